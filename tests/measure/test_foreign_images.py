"""Image ids of another system are read as they are meant and that is said, or they are asked about."""

from __future__ import annotations

from pathlib import Path

import pytest

from boxtune.errors import DataError

from .foreign_sets import (
    fit,
    rows_of,
    scores,
    stem,
    told,
    write_coco,
)


@pytest.fixture()
def coco(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "set")


def test_numbers_are_stems_where_nothing_else_fits(tmp_path: Path) -> None:
    """As Ultralytics writes 000139 as 139."""
    folder = write_coco(tmp_path / "set", ["000139.jpg", "000285.jpg"], ids=[7, 8])
    fitted, dataset = fit(folder, rows_of(folder, image=lambda image: int(stem(image))))
    assert [len(said.boxes) for said in fitted.predictions] == [2, 2]
    assert [said.image_id for said in fitted.predictions] == [s.image_id for s in dataset.splits["valid"]] == [7, 8]


def test_ids_that_mean_two_images_are_asked_about(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "set", ["2.jpg", "1.jpg"], ids=[1, 2])
    with pytest.raises(
        DataError, match=r"2 of 2 image ids can be read in two ways: 1 is 2\.jpg by the ids .* 1\.jpg"
    ) as e:
        fit(folder, rows_of(folder))
    assert "ids=own or ids=stem" in e.value.fix
    own, stems = (scores(folder, rows_of(folder), ids=way)["map50"] for way in ("own", "stem"))
    assert own == 1 and stems < 0.5


def test_file_names_beside_ids_decide(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "set", ["2.jpg", "1.jpg"], ids=[1, 2])
    rows = [{**row, "file_name": f"{row['image_id']}.jpg"} for row in rows_of(folder, image=lambda i: int(stem(i)))]
    assert scores(folder, rows)["map50"] == 1


def test_a_stem_of_two_images_is_refused(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "set", ["a/1.jpg", "b/1.jpg"])
    with pytest.raises(DataError, match=r"1 image ids mean several images each: '1' is .*a/1\.jpg, .*b/1\.jpg"):
        fit(folder, rows_of(folder, image=stem))
    assert scores(folder, rows_of(folder, image=lambda image: image["file_name"]))["map50"] == 1


def test_ids_of_nothing_are_refused(coco: Path) -> None:
    with pytest.raises(DataError, match=r"none of the 4 image ids .* is an image of the data: 1101, 1102") as error:
        fit(coco, rows_of(coco, image=lambda image: image["id"] + 1000))
    assert "sun.jpg, moon.jpg" in error.value.fix and "101, 102" in error.value.fix


def test_few_ids_of_nothing_are_left_out_and_many_refused(coco: Path) -> None:
    rows = rows_of(coco)
    fitted, _ = fit(coco, [*rows, {**rows[0], "image_id": 999}])
    assert "warn images that the data does not have, left out: 1 (999)" in told(fitted)["eval.images_unknown"]
    many = [{**rows[0], "image_id": number} for number in range(900, 905)]
    with pytest.raises(DataError, match="only 4 of 9 image ids are images of valid"):
        fit(coco, [*rows, *many])


def test_images_of_other_splits_are_left_out_and_said(coco: Path) -> None:
    write_coco(coco, ["fish.jpg", "bird.jpg"], split="train", ids=[1, 2])
    rows = [*rows_of(coco, image=stem), *rows_of(coco, image=stem, split="train")]
    fitted, _ = fit(coco, rows)
    assert "left out: 2 ('fish' (train), 'bird' (train))" in told(fitted)["eval.images_elsewhere"]
    with pytest.raises(DataError, match=r"only 0 of 2 image ids are images of valid.*2 are of other splits") as error:
        fit(coco, rows_of(coco, image=stem, split="train"))
    assert error.value.fix == "give split=train"


def test_ids_that_are_another_splits_are_refused(coco: Path) -> None:
    """Splits count their images anew: ids 103 and 104 are images of both."""
    write_coco(coco, [f"t{i}.jpg" for i in range(8)], split="train", ids=range(103, 111))
    with pytest.raises(
        DataError, match="all 8 image ids are ids of train, and only 2 of them are ids of valid"
    ) as error:
        fit(coco, rows_of(coco, split="train"))
    assert "split=train" in error.value.fix


def test_the_second_id_of_an_image_is_left_out(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "set", ["a.jpg", "b.jpg", "a.jpg"], ids=[1, 2, 3])
    fitted, _ = fit(folder, rows_of(folder))
    assert "left out: 1 (3 as 1)" in told(fitted)["eval.images_twice"]
    assert [len(said.boxes) for said in fitted.predictions] == [2, 2]


def test_ids_of_text_are_own_ids(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "set", ["a.jpg", "b.jpg"], ids=["x-1", "x-2"])
    fitted, _ = fit(folder, rows_of(folder))
    assert "ids of the data set's annotations" in told(fitted)["eval.images"]
    assert [len(said.boxes) for said in fitted.predictions] == [2, 2]
