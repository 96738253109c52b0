"""Pictures reach each tracker in its own words; one that takes none, or fails, is told of once and left alone.

The trackers' packages are not installed with boxtune: stand-ins have the methods and signatures of the real ones, and
are held by transformers' own callbacks.
"""

from __future__ import annotations

import base64
import inspect
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from boxtune.finetune.trackers import SENDERS, SendImages
from boxtune.settings import Tracker

COLOURS = {"00_red": (220, 20, 20), "01_blue": (20, 20, 220)}
WITHOUT_IMAGES = ("codecarbon", "kubeflow")

Sent = list[tuple[str, int, str]]
"""What a stand-in was given: name, step, and which of the pictures."""


def which(image: Any) -> str:
    """The picture's name, by its colour; `image` is a path, an array, or a PIL image."""
    if isinstance(image, str):
        image = Image.open(image)
    colour = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
    assert colour.shape == (30, 40, 3) and colour.dtype == np.uint8
    return min(COLOURS, key=lambda name: int(abs(colour.mean(axis=(0, 1)) - COLOURS[name]).sum()))


class Writer:
    """tensorboard 2.21, through torch."""

    def __init__(self, sent: Sent) -> None:
        self.sent, self.flushed = sent, 0

    def add_image(
        self, tag: str, img_tensor: Any, global_step: Any = None, walltime: Any = None, dataformats: str = "CHW"
    ) -> None:
        assert dataformats == "HWC"
        self.sent.append((tag, global_step, which(img_tensor)))

    def flush(self) -> None:
        self.flushed += 1


class Dictionaries:
    """wandb 0.31, trackio 0.43, swanlab 0.7 and 0.10: modules that log a dictionary with images in it."""

    def __init__(self, sent: Sent, *, steps: bool) -> None:
        self.sent, self.steps = sent, steps

    def Image(self, data: Any, *, caption: str | None = None, **more: str) -> tuple[str, str | None]:
        assert more == ({"file_type": "jpg"} if self.steps else {})
        return which(data), caption

    def log(self, data: dict[str, Any], step: int | None = None) -> None:
        at = step if self.steps else data.pop("train/global_step")
        assert isinstance(at, int) and (self.steps or step is None)
        for tag, (name, caption) in data.items():
            assert caption == f"step {at}"
            self.sent.append((tag, at, name))


class MLflow:
    """mlflow 3.17."""

    def __init__(self, sent: Sent, run: Any = "a run") -> None:
        self.sent, self.run = sent, run

    def active_run(self) -> Any:
        return self.run

    def log_image(
        self,
        image: Any,
        artifact_file: str | None = None,
        key: str | None = None,
        step: int | None = None,
        timestamp: int | None = None,
        synchronous: bool | None = False,
    ) -> None:
        assert isinstance(image, Image.Image) and artifact_file is None and synchronous
        assert key is not None and re.fullmatch(r"[a-zA-Z0-9_\-. ]+", key) and step is not None
        self.sent.append((key, step, which(image)))


class Experiment:
    """comet_ml 3.58."""

    def __init__(self, sent: Sent, *, takes: bool = True) -> None:
        self.sent, self.takes = sent, takes

    def log_image(
        self, image_data: Any, name: str | None = None, overwrite: bool = False, *, step: int | None = None
    ) -> dict[str, str] | None:
        assert name is not None and step is not None
        self.sent.append((name, step, which(image_data)))
        return {"web": "", "api": "", "imageId": "1"} if self.takes else None


class Task:
    """clearml 2.1."""

    def __init__(self, sent: Sent) -> None:
        self.sent = sent

    def get_logger(self) -> Task:
        return self

    def report_image(
        self,
        title: str,
        series: str,
        iteration: int | None = None,
        local_path: str | None = None,
        image: Any = None,
        matrix: Any = None,
        max_image_history: int | None = None,
        delete_after_upload: bool = False,
        url: str | None = None,
    ) -> None:
        assert max_image_history == -1 and not delete_after_upload and iteration is not None
        self.sent.append((f"{title}/{series}", iteration, which(local_path)))


class Live:
    """dvclive 3.49."""

    def __init__(self, sent: Sent) -> None:
        self.sent = sent

    def log_image(self, name: str, val: Any) -> None:
        folder, file = name.rsplit("/", 1)
        assert file.endswith(".jpg")
        self.sent.append((folder, int(file.removesuffix(".jpg")), which(val)))


class Run:
    """neptune 1.14: a run, and what its fields give."""

    def __init__(self, sent: Sent, path: str = "") -> None:
        self.sent, self.path = sent, path

    def __getitem__(self, path: str) -> Run:
        return Run(self.sent, f"{self.path}/{path}".strip("/"))

    def append(
        self, value: Any, *, step: float | None = None, timestamp: float | None = None, wait: bool = False
    ) -> None:
        assert isinstance(value, Image.Image) and isinstance(step, int)
        self.sent.append((self.path.removeprefix("finetuning/"), step, which(value)))

    def stop(self) -> None: ...


class AzureRun:
    """azureml-core 1.61, which has no steps."""

    def __init__(self, sent: Sent) -> None:
        self.sent = sent

    def log_image(self, name: str, path: str | None = None, plot: Any = None, description: str = "") -> None:
        assert path is not None and not Path(path).is_absolute()
        self.sent.append((name, int(Path(path).parent.name.removeprefix("step_")), which(path)))


def hold(name: str, **handles: Any) -> Any:
    """transformers' callback of a tracker, as it is once its run is open; its own constructor wants the package."""
    kind = INTEGRATION_TO_CALLBACK[name]
    callback = object.__new__(kind)
    source = "".join(inspect.getsource(one) for one in kind.__mro__[:2])
    for handle in handles:
        assert f"self.{handle} = " in source, f"transformers' callback for {name} has no {handle} any more"
    vars(callback).update(handles)
    return callback


NEPTUNE_REST = {"_base_namespace_path": "finetuning", "_volatile_checkpoints_dir": None}
HELD: dict[str, Callable[[Sent], Any]] = {
    "azure_ml": lambda sent: hold("azure_ml", azureml_run=AzureRun(sent)),
    "clearml": lambda sent: hold("clearml", _clearml_task=Task(sent)),
    "comet_ml": lambda sent: hold("comet_ml", _experiment=Experiment(sent)),
    "dagshub": lambda sent: hold("dagshub", _ml_flow=MLflow(sent), _auto_end_run=False),
    "dvclive": lambda sent: hold("dvclive", live=Live(sent)),
    "mlflow": lambda sent: hold("mlflow", _ml_flow=MLflow(sent), _auto_end_run=False),
    "neptune": lambda sent: hold("neptune", _run=Run(sent), **NEPTUNE_REST),
    "swanlab": lambda sent: hold("swanlab", _swanlab=Dictionaries(sent, steps=True)),
    "tensorboard": lambda sent: hold("tensorboard", tb_writer=Writer(sent)),
    "trackio": lambda sent: hold("trackio", _trackio=Dictionaries(sent, steps=False)),
    "wandb": lambda sent: hold("wandb", _wandb=Dictionaries(sent, steps=False)),
}


def build_trainer(*names: str, callbacks: tuple[Any, ...] = (), first: bool = True) -> Any:
    """As much of a trainer as is looked at."""
    return SimpleNamespace(
        args=SimpleNamespace(report_to=list(names)),
        state=SimpleNamespace(is_world_process_zero=first),
        callback_handler=SimpleNamespace(callbacks=[object(), *callbacks]),
    )


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], dict[str, Path]]:
    """Writes two pictures of a step, and gives them by name."""
    monkeypatch.chdir(tmp_path)

    def write(step: int) -> dict[str, Path]:
        folder = tmp_path / f"step_{step:06d}"
        folder.mkdir()
        for name, colour in COLOURS.items():
            Image.new("RGB", (40, 30), colour).save(folder / f"{name}.jpg")
        return {name: folder / f"{name}.jpg" for name in COLOURS}

    return write


def test_every_tracker_is_known() -> None:
    assert sorted([*SENDERS, *WITHOUT_IMAGES]) == sorted(get_args(Tracker))
    assert sorted([*HELD, "flyte"]) == sorted(SENDERS)


@pytest.mark.parametrize("name", sorted(HELD))
def test_images_are_sent(name: str, pictures: Callable[[int], dict[str, Path]]) -> None:
    sent: Sent = []
    send, trainer = SendImages(), build_trainer(name, callbacks=(HELD[name](sent),))
    assert [send(trainer, pictures(step), step) for step in (0, 12)] == [[], []]
    before = "samples " if name in ("mlflow", "dagshub") else "samples/"
    assert sent == [(before + picture, step, picture) for step in (0, 12) for picture in COLOURS]
    assert send.left == set()


def test_tensorboard_shows_them_at_once(pictures: Callable[[int], dict[str, Path]]) -> None:
    writer = Writer([])
    SendImages()(build_trainer("tensorboard", callbacks=(hold("tensorboard", tb_writer=writer),)), pictures(1), 1)
    assert writer.flushed == 1


def test_flyte_has_one_deck(pictures: Callable[[int], dict[str, Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    decks: list[Any] = []

    class Deck:
        """flytekit 1.16."""

        def __init__(self, name: str, html: str = "", auto_add_to_deck: bool = True) -> None:
            self.name, self.html = name, html
            decks.append(self)

        def append(self, html: str) -> Deck:
            self.html += html
            return self

    flytekit = SimpleNamespace(current_context=lambda: SimpleNamespace(decks=decks), Deck=Deck)
    monkeypatch.setitem(sys.modules, "flytekit", flytekit)
    Deck("Timeline")
    send, trainer = SendImages(), build_trainer("flyte", callbacks=(hold("flyte", cp=None),))
    assert [send(trainer, pictures(step), step) for step in (0, 12)] == [[], []]
    assert [deck.name for deck in decks] == ["Timeline", "samples"]
    inside = [base64.b64decode(found) for found in re.findall(r"data:image/jpeg;base64,([^\"]+)", decks[1].html)]
    assert [which(Image.open(io.BytesIO(one))) for one in inside] == [*COLOURS, *COLOURS]
    assert re.findall(r"<h3>(.*?)</h3>", decks[1].html) == ["step 0", "step 12"]


@pytest.mark.parametrize("name", WITHOUT_IMAGES)
def test_tracker_without_images_is_told_once(name: str, pictures: Callable[[int], dict[str, Path]]) -> None:
    send, trainer = SendImages(), build_trainer(name)
    assert send(trainer, pictures(0), 0) == [f"{name} takes no images: they are in the run folder only"]
    assert send(trainer, pictures(12), 12) == []
    assert send.left == {name}


def test_one_that_fails_is_told_once_and_left(pictures: Callable[[int], dict[str, Path]]) -> None:
    sent: Sent = []
    calls = []

    class Broken(Writer):
        def add_image(self, *_: Any, **__: Any) -> None:
            calls.append(1)
            raise ConnectionError("no way\nto the server")

    callbacks = (hold("tensorboard", tb_writer=Broken([])), HELD["wandb"](sent))
    send, trainer = SendImages(), build_trainer("tensorboard", "wandb", callbacks=callbacks)
    (line,) = send(trainer, pictures(3), 3)
    assert line.startswith("tensorboard gets no more images") and "step 3" in line
    assert line.endswith("ConnectionError: no way to the server")
    assert send(trainer, pictures(6), 6) == [] and len(calls) == 1 and send.left == {"tensorboard"}
    # The others go on.
    assert [step for _, step, _ in sent] == [3, 3, 6, 6]


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("tensorboard", lambda: hold("tensorboard", tb_writer=None)),
        ("comet_ml", lambda: hold("comet_ml", _experiment=None)),
        ("clearml", lambda: hold("clearml", _clearml_task=None)),
        ("dvclive", lambda: hold("dvclive", live=None)),
        ("azure_ml", lambda: hold("azure_ml", azureml_run=None)),
        ("mlflow", lambda: hold("mlflow", _ml_flow=MLflow([], None), _auto_end_run=False)),
    ],
)
def test_run_that_is_not_open_is_told(
    name: str, build: Callable[[], Any], pictures: Callable[[int], dict[str, Path]]
) -> None:
    (line,) = SendImages()(build_trainer(name, callbacks=(build(),)), pictures(0), 0)
    assert name in line and line.endswith("its run is not open")


def test_image_that_comet_does_not_take_is_told(pictures: Callable[[int], dict[str, Path]]) -> None:
    callback = hold("comet_ml", _experiment=Experiment([], takes=False))
    (line,) = SendImages()(build_trainer("comet_ml", callbacks=(callback,)), pictures(0), 0)
    assert "00_red was not taken" in line


def test_missing_callback_is_told(pictures: Callable[[int], dict[str, Path]]) -> None:
    (line,) = SendImages()(build_trainer("wandb", callbacks=(HELD["tensorboard"]([]),)), pictures(0), 0)
    assert "no WandbCallback" in line


def test_dagshub_is_not_taken_for_mlflow(pictures: Callable[[int], dict[str, Path]]) -> None:
    (line,) = SendImages()(build_trainer("mlflow", callbacks=(HELD["dagshub"]([]),)), pictures(0), 0)
    assert "no MLflowCallback" in line


def test_other_ranks_send_nothing(pictures: Callable[[int], dict[str, Path]]) -> None:
    sent: Sent = []
    trainer = build_trainer("wandb", "codecarbon", callbacks=(HELD["wandb"](sent),), first=False)
    assert SendImages()(trainer, pictures(0), 0) == [] and sent == []


def test_names_are_made_plain_and_stay_apart(pictures: Callable[[int], dict[str, Path]]) -> None:
    sent: Sent = []
    red, blue = pictures(0).values()
    images = {"00_чашка (1)": red, "00_чаша (1)": blue, "a#b": red}
    SendImages()(build_trainer("mlflow", callbacks=(HELD["mlflow"](sent),)), images, 0)
    assert [(name, picture) for name, _, picture in sent] == [
        ("samples 00__1_", "00_red"),
        ("samples 00__1__", "01_blue"),
        ("samples a_b", "00_red"),
    ]
