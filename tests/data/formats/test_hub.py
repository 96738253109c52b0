"""Data sets of the Hugging Face hub in their layouts: Parquet, save_to_disk, ImageFolder with metadata."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pytest

from boxtune.data import Dataset, read_dataset
from boxtune.data.formats import sniff
from boxtune.data.formats.embedded import PictureStore
from boxtune.data.formats.hub import sniff_hub
from boxtune.errors import DataError

from ..cases import find
from . import hub_cases as hub


def corners(dataset: Dataset, split: str = "train") -> list[list[list[float]]]:
    return [sample.boxes.xyxy_px.tolist() for sample in dataset.splits[split]]


def test_parquet_shards(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002", "train-00001-of-00002", "validation-0"):
        hub.write_parquet(tmp_path / "data" / f"{name}.parquet", hub.rows(), hub.features(["cat", "dog"]))
    dataset = read_dataset(tmp_path)
    assert dataset.format == "hf" and dataset.classes == ("cat", "dog") and list(dataset.splits) == ["train", "valid"]
    assert corners(dataset, "valid") == [hub.XYXY[:2], hub.XYXY[2:], []] and len(dataset.splits["train"]) == 6
    assert dataset.splits["valid"][0].boxes.labels == ("cat", "dog")
    assert dataset.splits["valid"][0].image.read_bytes() == hub.image(1)["bytes"]
    assert "x, y, width, height in pixels" in dataset.why and "class names by" in dataset.why
    assert "not read" not in dataset.why
    assert corners(read_dataset(tmp_path / "data" / "validation-0.parquet"), "valid") == corners(dataset, "valid")


def test_pictures_are_read_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = hub.write_parquet(tmp_path / "a.parquet", hub.rows())
    first = [sample.image for sample in read_dataset(file).splits["train"]]
    monkeypatch.setattr(PictureStore, "keep", None)  # a second time nothing is copied
    assert [sample.image for sample in read_dataset(file).splits["train"]] == first


def test_split_folders_and_paths_without_bytes(tmp_path: Path) -> None:
    content = [hub.row(seed, hub.XYWH, ["cat"] * 3) | {"image": f"{seed}.png"} for seed in (1, 2)]
    for split in ("train", "test"):
        hub.write_parquet(tmp_path / "default" / split / "0000.parquet", content)
        for seed in (1, 2):
            hub.save(hub.picture(seed), tmp_path / "default" / split / f"{seed}.png")
    dataset = read_dataset(tmp_path)
    assert list(dataset.splits) == ["train", "test"] and find(dataset, "image.embedded") is None
    assert dataset.splits["test"][1].image == tmp_path / "default" / "test" / "2.png"


def test_two_configurations_are_refused(tmp_path: Path) -> None:
    for name in ("full", "mini"):
        hub.write_parquet(tmp_path / name / "train-0.parquet", hub.rows())
    with pytest.raises(DataError, match=r"several data sets: full/, mini/"):
        read_dataset(tmp_path)
    assert len(read_dataset(tmp_path / "mini").splits["train"]) == 3


def test_list_of_structs_and_bare_bytes(tmp_path: Path) -> None:
    content = [
        {"img": hub.image(1)["bytes"], "objects": [{"bbox": box, "label": "cat"} for box in hub.XYWH]},
        {"img": hub.image(2)["bytes"], "objects": []},
    ]
    file = hub.write_parquet(tmp_path / "x.parquet", content)
    dataset = read_dataset(file)
    assert corners(dataset) == [hub.XYXY, []]
    assert [sample.image.name for sample in dataset.splits["train"]] == ["x-0.jpg", "x-1.jpg"]


def test_columns_instead_of_objects(tmp_path: Path) -> None:
    content = [{"image": hub.image(1, "a.jpg"), "bboxes": hub.XYWH, "category_id": [1, 0, 1], "area": [0, 0, 0]}]
    said = {"category_id": {"feature": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "_type": "List"}}
    dataset = read_dataset(hub.write_parquet(tmp_path / "x.parquet", content, said))
    assert corners(dataset) == [hub.XYXY] and dataset.splits["train"][0].boxes.labels == ("dog", "cat", "dog")


def test_crowds_and_missing_classes(tmp_path: Path) -> None:
    one = hub.row(1, hub.XYWH, [0, -1, None])
    one["objects"]["iscrowd"] = [1, 0, 0]
    dataset = read_dataset(hub.write_parquet(tmp_path / "x.parquet", [one], hub.features(["cat"])))
    sample, finding = dataset.splits["train"][0], find(dataset, "hf.unlabelled")
    assert sample.crowd.tolist() == [True] and sample.boxes.xyxy_px.tolist() == hub.XYXY[:1]
    assert finding is not None and "2 (1.jpg object 1, 1.jpg object 2)" in finding.seen
    sound = read_dataset(hub.write_parquet(tmp_path / "y.parquet", hub.rows()))
    assert find(sound, "hf.unlabelled") is None


def test_what_datasets_saves(tmp_path: Path) -> None:
    import datasets

    label = datasets.ClassLabel(names=["cat", "dog"])
    objects = datasets.Sequence({"bbox": datasets.Sequence(datasets.Value("float32")), "category": label})
    kinds = datasets.Features({"image": datasets.Image(), "objects": objects})
    made = datasets.Dataset.from_list(hub.rows(), features=kinds)
    datasets.DatasetDict({"train": made, "validation": made}).save_to_disk(tmp_path / "both")
    made.to_parquet(tmp_path / "test.parquet")
    dataset = read_dataset(tmp_path / "both")
    assert dataset.format == "hf" and list(dataset.splits) == ["train", "valid"] and dataset.classes == ("cat", "dog")
    assert corners(dataset, "valid") == [hub.XYXY[:2], hub.XYXY[2:], []]
    assert "not read" not in dataset.why
    assert corners(read_dataset(tmp_path / "both" / "train")) == corners(dataset, "valid")
    assert corners(read_dataset(tmp_path / "test.parquet"), "test") == corners(dataset, "valid")


def test_saved_split_says_its_name(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(hub.rows())
    with (
        pa.OSFile(str(tmp_path / "data-00000-of-00001.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as out,
    ):
        out.write_table(table)
    (tmp_path / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": "validation"})
    )
    dataset = read_dataset(tmp_path)
    assert list(dataset.splits) == ["valid"] and corners(dataset, "valid")[0] == hub.XYXY[:2]
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(DataError, match=r"state\.json is not JSON"):
        read_dataset(tmp_path)


def test_metadata_of_each_split(tmp_path: Path) -> None:
    content = [hub.entry("a b#ü.png", hub.XYWH, [0, 1, 0]), hub.entry("deep/c%20d.png", [], [])]
    for split in ("train", "test"):
        hub.write_metadata(tmp_path / split, content)
    (tmp_path / "classes.json").write_text('["cat", "dog"]')
    dataset = read_dataset(tmp_path)
    assert list(dataset.splits) == ["train", "test"] and corners(dataset) == [hub.XYXY, []]
    assert dataset.splits["train"][1].image == tmp_path / "train" / "deep" / "c%20d.png"
    assert "class names by classes.json" in dataset.why and dataset.classes == ("cat", "dog")
    alone = read_dataset(tmp_path / "test" / "metadata.jsonl")
    assert list(alone.splits) == ["test"] and alone.classes == ("cat", "dog")


def test_metadata_above_the_splits(tmp_path: Path) -> None:
    content = [hub.entry("train/a.png", hub.XYWH, ["cat"] * 3), hub.entry("val/b.png", hub.XYWH[:1], ["dog"])]
    hub.write_metadata(tmp_path, content)
    dataset = read_dataset(tmp_path)
    assert {split: len(samples) for split, samples in dataset.splits.items()} == {"train": 1, "valid": 1}
    hub.write_metadata(tmp_path, [*content, hub.entry("c.png", [], [])])
    with pytest.raises(DataError, match="1 of 3 pictures lie in no folder named for a split"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("write", [json.dumps, str])
def test_metadata_as_csv(tmp_path: Path, write: object) -> None:
    content = [hub.entry("a.png", hub.XYWH, [1, 0, 1]), hub.entry("b.png", [], [])]
    hub.write_metadata(tmp_path, content).unlink()
    with (tmp_path / "metadata.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["file_name", "objects"])
        out.writerows([one["file_name"], write(one["objects"])] for one in content)  # type: ignore[operator]
    dataset = read_dataset(tmp_path)
    assert dataset.format == "hf" and corners(dataset) == [hub.XYXY, []]


def test_metadata_as_parquet(tmp_path: Path) -> None:
    content = [hub.entry("a.png", hub.XYWH, [1, 0, 1])]
    hub.write_metadata(tmp_path / "train", content).unlink()
    hub.write_parquet(tmp_path / "train" / "metadata.parquet", content)
    assert corners(read_dataset(tmp_path)) == [hub.XYXY]


def test_sniffer_is_quiet(tmp_path: Path) -> None:
    assert sniff_hub(tmp_path) is None and sniff_hub(tmp_path / "nowhere") is None
    hub.write_parquet(tmp_path / "train.parquet", [{"image": hub.image(1), "label": 3}])
    hub.write_parquet(tmp_path / "text.parquet", [{"text": "words", "bbox": [[1, 2, 3, 4]]}])
    hub.write_metadata(tmp_path / "x", [{"file_name": "a.png", "text": "a cat"}])
    (tmp_path / "metadata.csv").write_text("file_name,xmin,ymin,xmax,ymax,class\na.png,1,2,3,4,cat\n")
    assert sniff_hub(tmp_path) is None
    assert not any(sniff_hub(file) for file in tmp_path.rglob("*.*"))
    assert "hf" in sniff(hub.write_parquet(tmp_path / "y.parquet", hub.rows()))


def test_broken_files_are_named(tmp_path: Path) -> None:
    file = hub.write_parquet(tmp_path / "a.parquet", hub.rows())
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"a\.parquet cannot be read"):
        read_dataset(file)
    file.unlink()
    lines = hub.write_metadata(tmp_path, [hub.entry("a.png", hub.XYWH, [0, 0, 0])])
    lines.write_text(lines.read_text() + "\n[1]\n")
    with pytest.raises(DataError, match="it is JSON, but a list") as caught:
        read_dataset(tmp_path)
    assert caught.value.where.endswith("line 3")
    lines.write_text(lines.read_text().replace("[1]", '{"file_name": '))
    with pytest.raises(DataError, match="it is no JSON"):
        read_dataset(tmp_path)


def test_rows_without_a_picture(tmp_path: Path) -> None:
    schema = pa.schema(
        {
            "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
            "objects": pa.struct({"bbox": pa.list_(pa.list_(pa.float32())), "category": pa.list_(pa.string())}),
        }
    )
    for nothing in (None, {"bytes": None, "path": None}):
        content = [hub.row(1, hub.XYWH, ["cat"] * 3), hub.row(2, [], []) | {"image": nothing}]
        file = hub.write_parquet(tmp_path / "a.parquet", content, schema=schema)
        with pytest.raises(DataError, match="neither a picture nor the name of one") as caught:
            read_dataset(file)
        assert caught.value.where.endswith("row 1")


def test_numbers_that_nobody_names(tmp_path: Path) -> None:
    dataset = read_dataset(hub.write_parquet(tmp_path / "a.parquet", hub.rows()))
    finding = find(dataset, "hf.no_names")
    assert dataset.classes == ("0", "1") and finding is not None and "classes.json" in finding.fix
    named = read_dataset(hub.write_parquet(tmp_path / "b.parquet", hub.rows(), hub.features(["cat", "dog"])))
    assert find(named, "hf.no_names") is None


def test_format_given_for_something_else(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no table with pictures and boxes"):
        read_dataset(tmp_path, format="hf")
