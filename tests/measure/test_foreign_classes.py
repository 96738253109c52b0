"""Category ids of another system are read as they are meant and that is said, or they are asked about."""

from __future__ import annotations

from pathlib import Path

import pytest

from boxtune.errors import ConfigError, DataError
from boxtune.measure import score_predictions

from .foreign_sets import (
    CATEGORIES,
    SIZE,
    fit,
    rows_of,
    scores,
    told,
    write_coco,
)


@pytest.fixture()
def coco(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "set")


def test_own_ids_are_taken_and_doubt_is_said(coco: Path) -> None:
    rows = [row for row in rows_of(coco) if row["category_id"] != 3]
    fitted, _ = fit(coco, rows)
    line = told(fitted)["eval.categories"]
    assert line.startswith("warn category ids read as the data's own: 1 is cat, 2 is dog")
    assert "no row is of 3 (cow)" in line and "categories=from_zero" in line
    fitted, _ = fit(coco, rows_of(coco))
    assert told(fitted)["eval.categories"].startswith("ok ")
    fitted, _ = fit(coco, rows, categories="from_zero")
    assert {label for said in fitted.predictions for label in said.boxes.labels} == {"dog", "cow"}


@pytest.mark.parametrize(("first", "shift", "way"), [(1, -1, "from 0"), (0, 1, "from 1"), (5, -5, "from 0")])
def test_shifted_categories_are_found(tmp_path: Path, first: int, shift: int, way: str) -> None:
    folder = write_coco(tmp_path / "set", categories={first + i: name for i, name in enumerate(CATEGORIES.values())})
    fitted, dataset = fit(folder, rows_of(folder, category=lambda i: i + shift))
    assert way in told(fitted)["eval.categories"]
    assert score_predictions(dataset.splits["valid"], fitted.predictions, fitted.classes)["map50"] == 1


def test_categories_that_fit_several_ways_are_asked_about(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "set", categories={10: "cat", 20: "dog", 30: "cow"}, unused=[20])
    with pytest.raises(DataError, match="category ids 1, 2 mean cannot be told: they fit 2 ways") as error:
        fit(folder, rows_of(folder, category=lambda i: i // 10 if i < 20 else 2))
    assert "categories=from_zero or categories=from_one; the order of the classes is: cat, dog, cow" in error.value.fix


def test_a_zero_that_is_a_group_is_asked_about(tmp_path: Path) -> None:
    """Roboflow writes the group as category 0 of COCO, and leaves it out of YOLO."""
    folder = write_coco(tmp_path / "set", categories={0: "animals", 1: "cat", 2: "dog", 3: "cow"}, unused=[0])
    from_zero = rows_of(folder, category=lambda i: i - 1)
    with pytest.raises(DataError, match=r"0 is 'animals' by .* and no box .* where 0 is 'cat'") as error:
        fit(folder, from_zero)
    assert "categories=own or categories=from_zero" in error.value.fix
    assert scores(folder, from_zero, categories="from_zero")["map50"] == 1
    assert scores(folder, rows_of(folder))["map50"] == 1


@pytest.mark.slow
def test_coco_80_and_91(tmp_path: Path) -> None:
    ids = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
    names = ["person", *(f"thing {i}" for i in range(1, 79)), "toothbrush"]
    images = [f"{i}.png" for i in range(40)]
    wide = write_coco(tmp_path / "a" / "set", images, categories=dict(zip(ids, names, strict=True)))
    assert scores(wide, rows_of(wide, category=ids.index))["map50"] == 1
    close = write_coco(tmp_path / "b" / "set", images, categories=dict(enumerate(names)))
    fitted, _ = fit(close, rows_of(close, category=lambda i: ids[i]))
    assert "COCO's own files" in told(fitted)["eval.categories"]
    assert scores(close, rows_of(close, category=lambda i: ids[i]))["map50"] == 1
    assert scores(close, rows_of(close, category=lambda i: ids[i]), categories="coco91")["map50"] == 1


def test_unknown_categories_are_refused_or_left_out(coco: Path) -> None:
    rows = rows_of(coco)
    rows[0]["category_id"] = 17
    with pytest.raises(DataError, match="category ids that the data does not have: 1, 2, 3, 17") as error:
        fit(coco, rows)
    assert "1 (cat), 2 (dog), 3 (cow)" in error.value.fix
    fitted, _ = fit(coco, rows, categories="own")
    assert "left out: 1 (17)" in told(fitted)["eval.categories_unknown"]
    assert sum(len(said.boxes) for said in fitted.predictions) == 7
    with pytest.raises(DataError, match="categories=from_one: 17"):
        fit(coco, rows, categories="from_one")
    with pytest.raises(ConfigError, match="coco91 is no way"):
        fit(coco, rows, categories="coco91")


def test_names_of_classes_are_taken(coco: Path) -> None:
    rows = [{**row, "category_name": CATEGORIES[row["category_id"]], "category_id": 0} for row in rows_of(coco)]
    assert scores(coco, rows)["map50"] == 1
    assert scores(coco, rows_of(coco, category=lambda i: CATEGORIES[i]))["map50"] == 1
    rows[0]["category_name"] = "Cat"
    with pytest.raises(DataError, match=r"classes that the data does not have: 1 of 4 \(Cat\)"):
        fit(coco, rows)
    fitted, _ = fit(coco, rows, categories="own")
    assert sum(len(said.boxes) for said in fitted.predictions) == 7


def test_a_class_without_truth_counts_as_false(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "set", unused=[3])
    rows = rows_of(folder)
    fitted, dataset = fit(folder, [*rows, {**rows[0], "category_id": 3}])
    assert "cow (1)" in told(fitted)["eval.classes_without_truth"]
    assert dataset.classes == ("cat", "dog") and fitted.classes == ("cat", "dog", "cow")
    found = score_predictions(dataset.splits["valid"], fitted.predictions, fitted.classes)
    assert found["map50"] == 1 and found["precision"] == pytest.approx(8 / 9)
    assert found["per_class"]["cow"]["ap"] is None


def test_chosen_classes_are_renamed_and_others_left_out(coco: Path) -> None:
    fitted, _ = fit(coco, rows_of(coco), classes=("pet",), chosen={"cat": "pet", "dog": "pet"})
    assert {label for said in fitted.predictions for label in said.boxes.labels} == {"pet"} and fitted.classes == (
        "pet",
    )
    assert "left out: cow" in told(fitted)["eval.classes_dropped"]
    with pytest.raises(DataError, match="not one of 8 boxes is of a class and an image that are scored"):
        fit(coco, rows_of(coco, category=lambda i: 1), classes=("beast",), chosen={"cow": "beast"})


def test_yolo_counts_from_zero_or_one(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "yolo"
    for kind in ("images", "labels"):
        (folder / kind / "val").mkdir(parents=True)
    for number in range(1, 4):
        Image.new("RGB", SIZE).save(folder / "images" / "val" / f"{number}.png")
        (folder / "labels" / "val" / f"{number}.txt").write_text(f"{number - 1} 0.5 0.5 0.2 0.2\n")
    (folder / "data.yaml").write_text("val: images/val\nnames: [zebra, cat, ape]\n")
    rows = [{"image_id": n, "category_id": n, "bbox": [80, 40, 40, 20], "score": 0.5} for n in range(1, 4)]
    for shift in (0, 1):
        shifted = [{**row, "category_id": row["category_id"] - shift} for row in rows]
        assert scores(folder, shifted)["map"] == 1
    with pytest.raises(DataError, match="what the category ids 2 mean cannot be told"):
        fit(folder, rows[1:2])
    # Ids that boxtune gives by itself are no ids of theirs.
    for number in range(1, 4):
        for kind, suffix in (("images", "png"), ("labels", "txt")):
            path = folder / kind / "val" / f"{number}.{suffix}"
            path.rename(path.with_stem(f"picture-{number}"))
    with pytest.raises(DataError, match="none of the 3 image ids"):
        fit(folder, rows)
