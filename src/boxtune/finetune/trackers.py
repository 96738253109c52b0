"""Pictures for the trackers of a trainer, sent into the runs that transformers' callbacks have opened there."""

from __future__ import annotations

import base64
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

GROUP = "samples"
"""What stands before the name of each picture, so that a tracker shows them together."""


class SendImages:
    """Sends pictures to every tracker that a trainer reports to.

    A tracker that takes no images, or that has failed, is told of once and then left alone; `left` names them.
    """

    def __init__(self) -> None:
        self.left: set[str] = set()

    def __call__(self, trainer: Any, images: Mapping[str, Path], step: int) -> list[str]:
        """Lines to print: which trackers get no images, and why; none where all is well.

        `images` are files by name. A name that is the same at every step makes one series. Rank 0 alone sends.
        """
        if not trainer.state.is_world_process_zero:
            return []
        lines = []
        for name in trainer.args.report_to:
            if name not in self.left and (fault := _send(name, trainer, images, step)):
                # A failure is not tried again: a server that cannot be reached may hold up each evaluation for minutes.
                self.left.add(name)
                lines.append(fault)
        return lines


def _send(name: str, trainer: Any, images: Mapping[str, Path], step: int) -> str:
    """What is wrong with a tracker, as a line; empty where it has taken the images."""
    send = SENDERS.get(name)
    if send is None:
        return f"{name} takes no images: they are in the run folder only"
    try:
        send(_find_callback(name, trainer), _with_tags(images), step)
    except Exception as error:
        # Days of training must not end because a picture could not be shown, and trackers raise all kinds of errors.
        what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return f"{name} gets no more images, they are in the run folder only; at step {step} it failed with {what}"
    return ""


def _find_callback(name: str, trainer: Any) -> Any:
    kind = INTEGRATION_TO_CALLBACK[name]
    for callback in trainer.callback_handler.callbacks:
        # Its exact type: DagsHub's callback is one of MLflow too.
        if type(callback) is kind:
            return callback
    raise RuntimeError(f"the trainer has no {kind.__name__}")


def _with_tags(images: Mapping[str, Path]) -> dict[str, Path]:
    """The images by names of letters, digits, dots, dashes and underscores: no tracker refuses those."""
    tags: dict[str, Path] = {}
    for name, path in images.items():
        tag = re.sub(r"[^A-Za-z0-9._-]+", "_", name)
        while tag in tags:  # two names may differ in other letters alone
            tag += "_"
        tags[tag] = path
    return tags


def _opened(handle: Any) -> Any:
    """What a callback holds of its run. None: it was switched off by its own settings, or training is over."""
    if handle is None:
        raise RuntimeError("its run is not open")
    return handle


def _decode(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _to_tensorboard(callback: Any, images: Mapping[str, Path], step: int) -> None:
    writer = _opened(callback.tb_writer)
    for tag, path in images.items():
        writer.add_image(f"{GROUP}/{tag}", np.asarray(_decode(path)), global_step=step, dataformats="HWC")
    writer.flush()


def _to_wandb(callback: Any, images: Mapping[str, Path], step: int) -> None:
    wandb = callback._wandb
    media = {f"{GROUP}/{tag}": wandb.Image(str(path), caption=f"step {step}") for tag, path in images.items()}
    # Its own step counts calls of log; the callback gives ours as a value, and makes it the axis of all others.
    wandb.log({**media, "train/global_step": step})


def _to_trackio(callback: Any, images: Mapping[str, Path], step: int) -> None:
    trackio = callback._trackio
    media = {f"{GROUP}/{tag}": trackio.Image(str(path), caption=f"step {step}") for tag, path in images.items()}
    # As for W&B.
    trackio.log({**media, "train/global_step": step})


def _to_swanlab(callback: Any, images: Mapping[str, Path], step: int) -> None:
    swanlab = callback._swanlab
    media = {
        f"{GROUP}/{tag}": swanlab.Image(str(path), caption=f"step {step}", file_type="jpg")
        for tag, path in images.items()
    }
    swanlab.log(media, step=step)


def _to_mlflow(callback: Any, images: Mapping[str, Path], step: int) -> None:
    mlflow = callback._ml_flow
    # Without an active run MLflow would begin another one.
    _opened(mlflow.active_run())
    for tag, path in images.items():
        # No slash in the key: MLflow up to 3.10 makes of it a name that cannot be downloaded (mlflow/mlflow#22165).
        # In the background a failure would be lost.
        mlflow.log_image(_decode(path), key=f"{GROUP} {tag}", step=step, synchronous=True)


def _to_comet(callback: Any, images: Mapping[str, Path], step: int) -> None:
    experiment = _opened(callback._experiment)
    for tag, path in images.items():
        # It does not raise: what it has taken has an address.
        if experiment.log_image(str(path), name=f"{GROUP}/{tag}", step=step) is None:
            raise RuntimeError(f"the image {tag} was not taken")


def _to_clearml(callback: Any, images: Mapping[str, Path], step: int) -> None:
    logger = _opened(callback._clearml_task).get_logger()
    title = GROUP + callback.log_suffix
    for tag, path in images.items():
        # It keeps the last five of a series where it is not told otherwise.
        logger.report_image(title, tag, iteration=step, local_path=str(path), max_image_history=-1)


def _to_dvclive(callback: Any, images: Mapping[str, Path], step: int) -> None:
    live = _opened(callback.live)
    for tag, path in images.items():
        # A folder of numbers is shown as one image with a slider.
        live.log_image(f"{GROUP}/{tag}/{step}{path.suffix}", str(path))


def _to_neptune(callback: Any, images: Mapping[str, Path], step: int) -> None:
    run = callback.run[callback._base_namespace_path]
    for tag, path in images.items():
        run[f"{GROUP}/{tag}"].append(_decode(path), step=step)


def _to_azure_ml(callback: Any, images: Mapping[str, Path], step: int) -> None:
    run = _opened(callback.azureml_run)
    for tag, path in images.items():
        # The path becomes the name of the artifact: Azure's are relative. There are no steps; the path has the step.
        run.log_image(f"{GROUP}/{tag}", path=os.path.relpath(path))


def _to_flyte(callback: Any, images: Mapping[str, Path], step: int) -> None:
    # The callback holds no run but the task that it is called in, and has imported flytekit.
    flytekit = sys.modules["flytekit"]
    decks = flytekit.current_context().decks
    deck = next((deck for deck in decks if deck.name == GROUP), None) or flytekit.Deck(GROUP)
    pictures = "\n".join(
        f'<img src="data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}" alt="{tag}">'
        for tag, path in images.items()
    )
    deck.append(f"<h3>step {step}</h3>\n{pictures}")


SENDERS: Mapping[str, Callable[[Any, Mapping[str, Path], int], None]] = {
    "azure_ml": _to_azure_ml,
    "clearml": _to_clearml,
    "comet_ml": _to_comet,
    "dagshub": _to_mlflow,
    "dvclive": _to_dvclive,
    "flyte": _to_flyte,
    "mlflow": _to_mlflow,
    "neptune": _to_neptune,
    "swanlab": _to_swanlab,
    "tensorboard": _to_tensorboard,
    "trackio": _to_trackio,
    "wandb": _to_wandb,
}
"""How images get into a run, by the tracker's name in transformers.

codecarbon measures energy, and kubeflow is told of progress and numbers: neither has a place for images.
"""
