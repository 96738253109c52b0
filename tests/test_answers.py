"""What a run makes of answers: which images are asked, how scores are calibrated, what is kept in the card."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from models import make_settings

from boxtune import answers
from boxtune.artifacts import RUN_CARD, RunFolder, write_json
from boxtune.boxes import Boxes
from boxtune.data import Dataset, read_dataset
from boxtune.errors import DataError
from boxtune.finetune.callbacks import StopInTime
from boxtune.infer import POOLED, Answer, LocalEngine
from boxtune.infer.confidence import Signals
from boxtune.journal import Journal

SIGNALS = Signals(presence=0.9, label=0.9, corners=(0.9, 0.9, 0.9, 0.9), expected_iou=0.9, soft_px=(0.0, 0.0, 0.0, 0.0))


class Sure(LocalEngine):
    """Finds every target, and invents a box beside each, as sure of the one as of the other."""

    def iter_answers(self, images: Any, **_: Any) -> Iterator[tuple[int, Answer | DataError]]:
        for place, opener in enumerate(images):
            (sample,) = opener.args
            if sample.image.name == "003.png" and self.at_once == 1:
                yield place, DataError("cannot be opened", where=str(sample.image))
                continue
            right = sample.targets
            found = Boxes(
                xyxy_px=np.concatenate([right.xyxy_px, right.xyxy_px * 0.1]),
                labels=(*right.labels, *right.labels),
                scores=np.full(2 * len(right), 0.9),
            )
            yield place, Answer(text="", boxes=found, problems=(), truncated=False, signals=(SIGNALS,) * len(found))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    write_json(tmp_path / "adapter" / RUN_CARD, {"model": "tiny"})
    return Journal(RunFolder(path=tmp_path), {})


def card_of(journal: Journal) -> dict[str, Any]:
    return json.loads((journal.folder.adapter / RUN_CARD).read_text())


@pytest.fixture(scope="module")
def dataset(squares: Path) -> Dataset:
    return read_dataset(squares)


def test_scores_are_calibrated_on_held_out_images(tiny: Any, encoder: Any, dataset: Dataset, journal: Journal) -> None:
    engine = Sure(loaded=tiny, encoder=encoder, max_new_tokens=9)
    calibration = answers.calibrate(engine, dataset.splits["train"], journal)
    assert POOLED.score(SIGNALS) > 0.8 and calibration.score(SIGNALS) == pytest.approx(0.5, abs=0.05)
    card = card_of(journal)
    assert card["calibration"]["bias"] == calibration.bias and card["model"] == "tiny"
    assert card["calibration"]["num_images"] == 16 and [one.level for one in journal.findings] == ["ok"]


def test_a_held_out_image_that_does_not_open_is_named_and_left_out(
    tiny: Any, encoder: Any, dataset: Dataset, journal: Journal
) -> None:
    engine = Sure(loaded=tiny, encoder=encoder, max_new_tokens=9, at_once=1)
    answers.calibrate(engine, dataset.splits["train"], journal)
    (finding,) = journal.findings
    assert finding.level == "warn" and "003.png" in finding.seen
    assert card_of(journal)["calibration"]["num_images"] == 15


def test_without_held_out_images_nothing_is_changed(tiny: Any, encoder: Any, journal: Journal) -> None:
    assert answers.calibrate(Sure(loaded=tiny, encoder=encoder, max_new_tokens=9), (), journal) == POOLED
    assert card_of(journal) == {"model": "tiny"} and not journal.findings


def test_images_are_chosen_evenly(dataset: Dataset) -> None:
    full = [sample for sample in dataset.splits["train"] if len(sample.targets)]
    nothing = np.zeros(0, dtype=bool)
    empty = [replace(sample, boxes=Boxes.none(), crowd=nothing, ignore=nothing) for sample in full[:6]]
    both = [*empty, *full[6:12]]
    chosen = answers.choose_evenly(both, 6)
    assert len(chosen) == 6 and sum(len(sample.targets) > 0 for sample in chosen) == 3
    assert answers.choose_evenly(both, 99) == both
    # However few have boxes, one of them is there.
    assert [len(sample.targets) > 0 for sample in answers.choose_evenly([*empty, full[9]], 2)] == [False, True]


@pytest.mark.parametrize(("num", "reason", "asked"), [(0, "", None), (2, "SIGTERM", {}), (2, "", {"ap", "ap50"})])
def test_answers_in_training(
    tiny: Any,
    encoder: Any,
    dataset: Dataset,
    journal: Journal,
    capsys: pytest.CaptureFixture[str],
    num: int,
    reason: str,
    asked: Any,
) -> None:
    card: dict[str, Any] = {"max_new_tokens": 12, "selection": {}}
    settings = make_settings("language")
    settings = settings.model_copy(update={"eval": settings.eval.model_copy(update={"answers": num})})
    stop = StopInTime(None)
    stop.reason = reason
    ask = answers.build_ask(tiny, encoder, dataset, card, settings, journal, stop)
    if asked is None:
        assert ask is None
        return
    state = SimpleNamespace(global_step=7, is_world_process_zero=True)
    trainer = SimpleNamespace(model=tiny.model, state=state, args=SimpleNamespace(report_to=["codecarbon"]))
    assert ask is not None and {*ask(trainer)} == {*asked} == {*ask(trainer)}
    assert journal.folder.samples.is_dir() is bool(asked)
    assert capsys.readouterr().out.count("codecarbon takes no images") == bool(asked)
