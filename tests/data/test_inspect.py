"""Counts are right, and the page fits on a screen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from boxtune.data import inspect_dataset, inspect_path
from boxtune.errors import DataError, Finding

from .cases import box_entry, image_entry, picture, read_coco, save, write_json, write_splits


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_splits(tmp_path, {"valid": 1}, first_seed=10)
    sizes = {"a.png": (64, 48), "b.png": (64, 48), "c.png": (100, 100)}
    for seed, (name, size_wh) in enumerate(sizes.items()):
        save(picture(seed, size_wh), tmp_path / "train" / name)
    images = [image_entry(i, name, size_wh) for i, (name, size_wh) in enumerate(sizes.items())]
    boxes = [
        box_entry(1, 0, (0, 0, 16, 12)),
        box_entry(2, 0, (0, 0, 64, 48), category=2, iscrowd=1),
        box_entry(3, 2, (0, 0, 30, 30), category=2),
        box_entry(4, 2, (50, 50, 40, 40), category=2),
        box_entry(5, 2, (5, 5, 9, 9), category=2, ignore=1),
    ]
    write_json(tmp_path / "train" / "_annotations.coco.json", images, boxes)
    return tmp_path


def test_counts(folder: Path) -> None:
    inspection = inspect_dataset(read_coco(folder))
    train = inspection.splits["train"]
    assert (train.images, train.boxes, train.negatives, train.crowd, train.ignored) == (3, 3, 1, 1, 1)
    assert train.boxes_per_image == (0, 1.0, 2)
    assert train.image_sizes == (((64, 48), 2), ((100, 100), 1)) and train.num_image_sizes == 2
    assert (train.least_wh, train.most_wh) == ((64, 48), (100, 100))
    assert inspection.class_counts == {"cat": {"train": 1, "valid": 1}, "dog": {"train": 2, "valid": 0}}
    assert inspection.side_px is not None and inspection.image_share is not None
    # 192, 900, 1600 px in train and 8,6,20,16 in valid: areas 192, 320, 900, 1600
    assert inspection.side_px.median == pytest.approx((320**0.5 + 30) / 2)
    assert inspection.image_share.median == pytest.approx((0.09 + 320 / 3072) / 2)


def test_class_findings(folder: Path) -> None:
    found = {finding.check: finding for finding in inspect_dataset(read_coco(folder)).findings}
    assert "dog" in found["data.class_not_in_valid"].seen and found["data.class_not_in_valid"].level == "warn"
    assert "data.class_not_in_train" not in found
    write_json(folder / "train" / "_annotations.coco.json", [image_entry(1, "a.png")], [box_entry(1, 1, category=2)])
    found = {finding.check: finding for finding in inspect_dataset(read_coco(folder)).findings}
    assert "cat" in found["data.class_not_in_train"].seen
    assert "data.class_says_nothing" not in found


def test_names_are_looked_at(folder: Path) -> None:
    categories = [{"id": 1, "name": "0"}, {"id": 2, "name": "class_1"}]
    boxes = [box_entry(1, 1), box_entry(2, 1, category=2)]
    write_json(folder / "train" / "_annotations.coco.json", [image_entry(1, "a.png")], boxes, categories)
    found = {finding.check: finding for finding in inspect_dataset(read_coco(folder)).findings}
    assert "'0' (1 boxes)" in found["data.class_says_nothing"].seen


def test_json(folder: Path) -> None:
    content = json.loads(json.dumps(inspect_dataset(read_coco(folder)).as_json()))
    assert content["splits"]["train"]["boxes"] == 3 and content["format"] == "coco"
    assert {finding["check"] for finding in content["findings"]} >= {"box.crowd", "data.class_not_in_valid"}
    assert content["audit"]["family"] == "Qwen2-VL" and content["audit"]["longest_answer"]["unit"] == "characters"
    assert "dataset" not in content


def test_text(folder: Path) -> None:
    text = inspect_dataset(read_coco(folder)).as_text()
    rows = text.splitlines()
    assert str(folder) in rows[0] and "2 classes" in rows[0]
    assert any(row.split() == ["train", "3", "3", "1", "1", "1", "0/1/2", "64..100", "x", "48..100"] for row in rows)
    assert any(row.split() == ["dog", "2", "0"] for row in rows)
    assert "data.class_not_in_valid" in text and not any(row != row.rstrip() for row in rows)
    heads = [row for row in rows if row.strip().startswith("split ")]
    assert len(heads) == 1
    assert "as seen by Qwen2-VL (by default" in text and "patches of 14" in text
    warned = next(i for i, row in enumerate(rows) if "data.class_not_in_valid" in row)
    assert "-> add images of them" in " ".join(rows[warned : warned + 3])


def test_text_of_a_large_set_is_short(folder: Path) -> None:
    """However much there is to say: 40 lines of 100 characters, the worst finding first and the rest counted."""
    dataset = read_coco(folder)
    findings = tuple(Finding(check=f"check.{i}", level="ok", seen="word " * 80) for i in range(50))
    worst = Finding(check="check.worst", level="fail", seen="this comes first " * 20, fix="and this is what to do " * 9)
    splits = {**dataset.splits, "test": dataset.splits["valid"]}
    dataset = replace(dataset, splits=splits, why="word " * 200, findings=(*findings, worst))
    inspection = inspect_dataset(dataset)
    many = replace(inspection, class_counts={f"class {i}": {"train": i, "valid": 1, "test": 0} for i in range(300)})
    rows = many.as_text().splitlines()
    assert 36 <= len(rows) <= 40 and max(map(len, rows)) <= 100
    assert any("class 299" in row for row in rows) and any("and 292 more classes" in row for row in rows)
    told = next(i for i, row in enumerate(rows) if row.startswith("findings: 1 fail, 1 warn, 50 ok"))
    assert "check.worst" in rows[told + 1] and "-> and this is what to do" in rows[told + 3]
    shown = sum(row.startswith("  ok  ") for row in rows)
    assert rows[-1] == f"  and {50 - shown} more (--json has all)" and shown > 0


def test_without_boxes_and_findings(tmp_path: Path) -> None:
    dataset = read_coco(write_splits(tmp_path, {"train": 2}))
    assert "nothing to remark" in inspect_dataset(dataset).as_text()
    assert inspect_dataset(dataset).dataset is dataset
    empty = dataset.with_splits({"train": ()})
    inspection = inspect_dataset(empty)
    assert inspection.side_px is None and inspection.splits["train"].boxes_per_image == (0, 0.0, 0)
    assert "box size" not in inspection.as_text()


def test_every_way_to_look(folder: Path) -> None:
    """Headers are read and images compared, unless they are not to be opened; alike says otherwise."""

    def checks(**asked: Any) -> dict[str, str]:
        return {finding.check: finding.level for finding in inspect_path(folder, **asked).findings}

    assert checks()["image.left_out"] == "ok" and checks()["image.alike"] == "ok"
    assert "image.alike" not in checks(alike=False)
    unopened = checks(headers=False)
    assert unopened["image.not_checked"] == "cannot_tell" and not {"image.alike", "image.left_out"} & set(unopened)
    assert checks(headers=False, alike=True)["image.alike"] == "ok"
    copy = folder / "valid" / "copy.png"
    copy.write_bytes((folder / "train" / "a.png").read_bytes())
    write_json(folder / "valid" / "_annotations.coco.json", [image_entry(1, "copy.png")], [box_entry(1, 1)])
    assert checks()["image.copy_in_two_splits"] == "warn"


def test_many_pixels_are_compared_only_if_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boxtune.data.inspect.ALIKE_MEGAPIXELS", 0.001)
    found = {finding.check: finding for finding in inspect_path(folder).findings}
    assert "not compared" in found["image.alike"].seen and found["image.alike"].fix.startswith("alike=true")
    found = {finding.check: finding for finding in inspect_path(folder, alike=True).findings}
    assert found["image.alike"].seen.startswith("no copies")


def test_words_of_a_user_reach_reading_and_audit(folder: Path) -> None:
    inspection = inspect_path(folder, family="paligemma", max_pixels=448 * 448, frame="stored")
    assert inspection.audit.family.startswith("PaliGemma") and inspection.audit.why == "family=paligemma"
    with pytest.raises(DataError, match=r"a\.png does not exist"):
        (folder / "train" / "a.png").unlink()
        inspect_path(folder)
