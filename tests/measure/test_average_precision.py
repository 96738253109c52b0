"""AP agrees with pycocotools, and says None where it has nothing to measure."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import boxtune.measure
from boxtune.boxes import Boxes, box_areas
from boxtune.data.sample import Sample
from boxtune.measure.average_precision import average_precision

CLASSES = ["cell", "plate", "dot", "never"]
OVERALL = ["map", "map50", "map75", "map_small", "map_medium", "map_large"]


def boxes(*rows: tuple[str, float, float, float, float], scores: list[float] | None = None) -> Boxes:
    xyxy = np.array([row[1:] for row in rows], dtype=float).reshape(-1, 4)
    return Boxes(xyxy_px=xyxy, labels=tuple(r[0] for r in rows), scores=None if scores is None else np.array(scores))


def sample(image_id: int, truth: Boxes, crowd: object = None, ignore: object = None) -> Sample:
    none = np.zeros(len(truth), dtype=bool)
    return Sample(
        image=Path(f"{image_id}.jpg"),
        image_id=image_id,
        size_wh=(400, 300),
        boxes=truth,
        crowd=none if crowd is None else np.array(crowd, dtype=bool),
        ignore=none if ignore is None else np.array(ignore, dtype=bool),
    )


def random_boxes(random: np.random.Generator, num: int) -> Boxes:
    wh = np.exp(random.uniform(np.log(6), np.log(250), (num, 2)))
    xy = random.uniform(0, 1, (num, 2)) * [300, 200]
    labels = tuple(CLASSES[k] for k in random.integers(0, 3, num))
    return Boxes(xyxy_px=np.concatenate([xy, xy + wh], axis=1), labels=labels)


def random_split(seed: int, num_images: int = 12) -> tuple[list[Sample], dict[int, Boxes]]:
    random = np.random.default_rng(seed)
    samples: list[Sample] = []
    predicted: dict[int, Boxes] = {}
    for image_id in random.permutation(1000)[:num_images].tolist():
        num = int(random.integers(0, 6))
        truth = random_boxes(random, num)
        samples.append(sample(image_id, truth, random.random(num) < 0.15, random.random(num) < 0.1))
        near, invented = truth.xyxy_px + random.normal(0, 2, (num, 4)), random_boxes(random, int(random.integers(0, 4)))
        xyxy = np.concatenate([near, invented.xyxy_px])
        scores = [np.ones(len(xyxy)), random.random(len(xyxy)), np.round(random.random(len(xyxy)) * 3) / 3][seed % 3]
        upright = np.sort(xyxy.reshape(-1, 2, 2), axis=1).reshape(-1, 4)
        predicted[image_id] = Boxes(xyxy_px=upright, labels=truth.labels + invented.labels, scores=scores)
    return samples, predicted


def by_pycocotools(samples: list[Sample], predicted: dict[int, Boxes]) -> dict[str, object]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    ids = {name: i + 1 for i, name in enumerate(CLASSES)}
    truth = COCO()
    rows = [
        {**row, "area": float(area), "iscrowd": int(aside)}
        for s in samples
        for row, area, aside in zip(
            s.boxes.to_coco(s.image_id, ids), box_areas(s.boxes.xyxy_px), s.crowd | s.ignore, strict=True
        )
    ]
    truth.dataset = {
        "images": [{"id": s.image_id} for s in samples],
        "annotations": [{**row, "id": i + 1} for i, row in enumerate(rows)],
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        found = truth.loadRes([row for image_id, b in predicted.items() for row in b.to_coco(image_id, ids)])
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    table = evaluation.eval["precision"][:, :, :, 0, -1]
    per_class = {name: table[:, :, k] for k, name in enumerate(CLASSES)}
    return {**dict(zip(OVERALL, evaluation.stats[:6], strict=True)), "per_class": per_class}


@pytest.mark.parametrize("seed", range(12))
def test_equal_to_pycocotools(seed: int) -> None:
    samples, predicted = random_split(seed)
    ours, theirs = average_precision(samples, predicted, CLASSES), by_pycocotools(samples, predicted)
    for name in OVERALL:
        expected = None if theirs[name] == -1 else pytest.approx(theirs[name], abs=1e-9)
        assert ours[name] == expected, name
    assert ours["map"] > 0.05
    assert list(ours["per_class"]) == CLASSES
    for name, table in theirs["per_class"].items():
        row = ours["per_class"][name]
        assert row["num_truth"] == sum(s.targets.labels.count(name) for s in samples)
        if row["num_truth"]:
            assert row["ap"] == pytest.approx(table.mean(), abs=1e-9)
            assert row["ap50"] == pytest.approx(table[0].mean(), abs=1e-9)
        else:
            assert row["ap"] is None and row["ap50"] is None


def test_all_right_is_one_and_all_wrong_is_zero() -> None:
    truth = boxes(("cell", 0, 0, 20, 20), ("dot", 50, 50, 100, 100))
    samples = [sample(7, truth)]
    right = average_precision(samples, {7: truth}, CLASSES)
    assert [right[name] for name in OVERALL] == [1.0, 1.0, 1.0, 1.0, 1.0, None]
    assert right["per_class"]["cell"] == {"ap": 1.0, "ap50": 1.0, "num_truth": 1}
    assert right["per_class"]["never"] == {"ap": None, "ap50": None, "num_truth": 0}
    swapped = boxes(("dot", 0, 0, 20, 20), ("cell", 50, 50, 100, 100))
    wrong = average_precision(samples, {7: swapped}, CLASSES)
    assert [wrong[name] for name in OVERALL] == [0.0, 0.0, 0.0, 0.0, 0.0, None]


def test_a_false_box_above_the_right_one_halves_ap() -> None:
    predicted = boxes(("cell", 50, 50, 70, 70), ("cell", 0, 0, 20, 20), scores=[0.9, 0.8])
    ours = average_precision([sample(1, boxes(("cell", 0, 0, 20, 20)))], {1: predicted}, CLASSES)
    assert ours["map"] == pytest.approx(0.5)


def test_iou_of_0_8_counts_for_seven_of_ten_thresholds() -> None:
    ours = average_precision([sample(1, boxes(("cell", 0, 0, 10, 10)))], {1: boxes(("cell", 0, 0, 10, 8.1))}, CLASSES)
    assert (ours["map"], ours["map50"], ours["map75"]) == (pytest.approx(0.7), 1.0, 1.0)


def test_no_predictions_at_all_is_zero() -> None:
    samples, _ = random_split(1)
    for predicted in ({}, {s.image_id: Boxes.none() for s in samples}):
        ours = average_precision(samples, predicted, CLASSES)
        assert ours["map"] == ours["map50"] == ours["per_class"]["cell"]["ap"] == 0.0
        assert ours["per_class"]["never"]["ap"] is None


def test_no_truth_is_none() -> None:
    crowd_only = sample(2, boxes(("cell", 0, 0, 9, 9)), crowd=[True])
    invented = {1: boxes(("cell", 0, 0, 9, 9))}
    num_seen = 0
    for samples in ([], [sample(1, Boxes.none())], [sample(1, Boxes.none()), crowd_only]):
        ours = average_precision(samples, invented if samples else {}, CLASSES)
        assert [ours[name] for name in OVERALL] == [None] * 6
        assert all(row == {"ap": None, "ap50": None, "num_truth": 0} for row in ours["per_class"].values())
        num_seen += 1
    assert num_seen == 3
    assert average_precision([sample(1, Boxes.none())], {}, [])["per_class"] == {}


@pytest.mark.parametrize("flag", ["crowd", "ignore"])
def test_boxes_on_a_crowd_are_not_false(flag: str) -> None:
    truth = boxes(("cell", 0, 0, 20, 20), ("cell", 100, 100, 200, 200))
    on_both = boxes(("cell", 110, 110, 130, 130), ("cell", 0, 0, 20, 20), scores=[0.9, 0.8])
    marked = average_precision([sample(1, truth, **{flag: [False, True]})], {1: on_both}, CLASSES)
    assert marked["map"] == 1.0 and marked["per_class"]["cell"]["num_truth"] == 1
    assert average_precision([sample(1, truth)], {1: on_both}, CLASSES)["map"] < 0.5


def test_handing_over_in_another_order_changes_nothing_but_other_ids_do() -> None:
    good, bad = boxes(("cell", 0, 0, 20, 20)), boxes(("cell", 60, 60, 80, 80))
    truth = boxes(("cell", 0, 0, 20, 20))
    samples = [sample(1, truth), sample(2, truth)]
    forth = average_precision(samples, {1: good, 2: bad}, CLASSES)
    back = average_precision(samples[::-1], {2: bad, 1: good}, CLASSES)
    assert forth == back
    swapped = average_precision(samples, {1: bad, 2: good}, CLASSES)
    assert forth["map"] == pytest.approx(51 / 101) and swapped["map"] == pytest.approx(51 / 101 / 2)


def test_any_image_id_will_do() -> None:
    truth = boxes(("cell", 0, 0, 20, 20))
    for image_id in (0, -5, 2**60):
        assert average_precision([sample(image_id, truth)], {image_id: truth}, CLASSES)["map"] == 1.0


def test_nothing_is_printed_or_logged_and_no_input_is_changed(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    samples, predicted = random_split(2)
    before = {image_id: b.xyxy_px.copy() for image_id, b in predicted.items()}
    with caplog.at_level("INFO"):
        average_precision(samples, predicted, CLASSES)
        average_precision(samples, {}, CLASSES)
    captured = capfd.readouterr()
    assert (captured.out, captured.err, caplog.records) == ("", "", [])
    assert all((before[image_id] == b.xyxy_px).all() for image_id, b in predicted.items())


def test_what_would_be_counted_wrongly_is_refused() -> None:
    truth = boxes(("cell", 0, 0, 20, 20))
    with pytest.raises(ValueError, match="two samples have the same image id: 1"):
        average_precision([sample(1, truth), sample(1, truth)], {}, CLASSES)
    with pytest.raises(ValueError, match="no sample has: 9"):
        average_precision([sample(1, truth)], {9: truth}, CLASSES)
    with pytest.raises(ValueError, match=r"predictions with labels .*: cow"):
        average_precision([sample(1, truth)], {1: boxes(("cow", 0, 0, 9, 9))}, CLASSES)
    with pytest.raises(ValueError, match=r"truth with labels .*: cow"):
        average_precision([sample(1, boxes(("cow", 0, 0, 9, 9)))], {}, CLASSES)
    with pytest.raises(ValueError, match=r"stands twice.*: cell"):
        average_precision([sample(1, truth)], {}, [*CLASSES, "cell"])
    with pytest.raises(ValueError, match="image 1 have a score that is not finite"):
        average_precision([sample(1, truth)], {1: boxes(("cell", 0, 0, 9, 9), scores=[np.nan])}, CLASSES)


def test_measuring_loads_no_torch() -> None:
    source = Path(boxtune.measure.__file__).parents[2]
    code = f"import sys; sys.path.insert(0, {str(source)!r}); import boxtune.measure; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("False", "")
