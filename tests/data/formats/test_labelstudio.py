"""Label Studio: which annotation, which image, which label."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from boxtune.data import read_dataset
from boxtune.data.formats.labelstudio import sniff_labelstudio
from boxtune.errors import DataError

from .labelstudio_cases import CORNERS, annotation, item, task
from .tool_cases import boxes, finding, pictures, put, raw_of, read


def test_percent_and_a_negative(tmp_path: Path) -> None:
    pictures(tmp_path / "images", "a.png", "b.png")
    tasks = [task(1, "a.png", annotation(item(), item("dog", 0))), task(2, "b.png", annotation())]
    file = put(tmp_path / "project-1.json", tasks)
    for path in (tmp_path, file):
        dataset = read(path, "labelstudio")
        assert boxes(dataset) == {"a.png": [("cat", CORNERS), ("dog", [0, 12, 32, 24])], "b.png": []}
        assert not [one for one in dataset.findings if one.check.startswith("labelstudio")]


def test_one_of_several_annotations(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png", "c.png", "d.png")
    old, new = {"updated_at": "2024-01-01T00:00:00Z"}, {"updated_at": "2024-02-01T00:00:00Z"}
    tasks = [
        task(1, "a.png", annotation(item("new"), **new), annotation(item("old"), **old)),
        task(2, "b.png", annotation(item("new"), **new), annotation(item("true"), ground_truth=True, **old)),
        task(3, "c.png", annotation(item("kept"), **old), annotation(item("skipped"), was_cancelled=True, **new)),
        task(4, "d.png", annotation(item("first")), annotation(item("second"))),
    ]
    put(tmp_path / "export.json", tasks)
    dataset = read(tmp_path, "labelstudio")
    assert [sample.boxes.labels for sample in dataset.splits["train"]] == [("new",), ("true",), ("kept",), ("second",)]
    found = finding(dataset, "labelstudio.several_annotations")
    assert found is not None and ": 3 (task 1 (2), task 2 (2), task 4 (2))" in found.seen


def test_skipped_and_new_tasks_are_no_negatives(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png", "c.png")
    skipped = annotation(was_cancelled=True)
    tasks = [task(1, "a.png", annotation(item())), task(2, "b.png", skipped), task(3, "c.png")]
    put(tmp_path / "export.json", tasks)
    dataset = read(tmp_path, "labelstudio")
    assert list(boxes(dataset)) == ["a.png"]
    cancelled, new = finding(dataset, "labelstudio.cancelled"), finding(dataset, "labelstudio.not_annotated")
    assert cancelled is not None and "(task 2)" in cancelled.seen and new is not None and "(task 3)" in new.seen


def test_predictions_count_only_where_there_is_nothing_else(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png")
    guess = {"model_version": "1", "score": 0.5, "result": [item("guess")]}
    both = [task(1, "a.png", annotation(item()), predictions=[guess]), task(2, "b.png", predictions=[guess])]
    put(tmp_path / "export.json", both)
    dataset = read(tmp_path, "labelstudio")
    assert boxes(dataset) == {"a.png": [("cat", CORNERS)]} and finding(dataset, "labelstudio.predictions") is None
    put(tmp_path / "export.json", [{"data": {"image": "b.png"}, "predictions": [guess]}])
    dataset = read(tmp_path, "labelstudio")
    assert boxes(dataset) == {"b.png": [("guess", CORNERS)]}
    assert finding(dataset, "labelstudio.predictions") is not None


def test_the_old_key_for_annotations(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png")
    old = {"id": 1, "data": {"image": "a.png"}, "completions": [annotation(item())]}
    put(tmp_path / "export.json", [old])
    assert boxes(read(tmp_path, "labelstudio")) == {"a.png": [("cat", CORNERS)]}


UPLOAD = "/data/upload/7/0a1b2c3d-"
HIDDEN = base64.b64encode(b"s3://bucket/deep/a b.png").decode()


@pytest.mark.parametrize(
    ("text", "file"),
    [
        (f"{UPLOAD}a.png", "a.png"),
        (f"{UPLOAD}a.png", "0a1b2c3d-a.png"),
        (f"{UPLOAD}a%20b.png", "a b.png"),
        ("https://host/data/upload/7/0a1b2c3d-a.png", "a.png"),
        ("/data/local-files/?d=photos/day%201/a.png", "photos/day 1/a.png"),
        ("/data/local-files/?d=photos%5Ca.png", "a.png"),
        ("s3://bucket/deep/a%20b.png", "a%20b.png"),
        ("s3://bucket/deep/a b#1.png", "a b#1.png"),
        ("gs://bucket/deep/a.png", "deep/a.png"),
        ("https://host/pictures/a%20b.png?token=1/2", "a b.png"),
        (f"/tasks/7/resolve/?fileuri={HIDDEN}", "a b.png"),
        ("C:\\pictures\\ä.png", "ä.png"),
    ],
)
def test_where_images_are(tmp_path: Path, text: str, file: str) -> None:
    pictures(tmp_path, file)
    put(tmp_path / "export.json", [task(1, text, annotation(item()))])
    dataset = read(tmp_path, "labelstudio")
    assert dataset.splits["train"][0].image == tmp_path / file


def test_two_uploads_of_one_name_are_not_confused(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png")
    tasks = [
        task(n, f"/data/upload/1/{n * 8}-{name}", annotation(item())) for n, name in (("1", "a.png"), ("2", "a.png"))
    ]
    put(tmp_path / "export.json", [*tasks, task(3, "b.png", annotation())])
    missing = finding(read(tmp_path, "labelstudio"), "image.missing")
    assert missing is not None and "11111111-a.png, 22222222-a.png" in missing.seen


def test_an_image_inside_the_export_is_missing(tmp_path: Path) -> None:
    pictures(tmp_path, "b.png")
    tasks = [task(1, "data:image/png;base64,AAAA", annotation(item())), task(2, "b.png", annotation())]
    put(tmp_path / "export.json", tasks)
    missing = finding(read(tmp_path, "labelstudio"), "image.missing")
    assert missing is not None and "task 1 (inside the export)" in missing.seen


def test_which_data_is_the_image(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png")
    data = {"scan": "a.png", "preview": "b.png", "text": "a picture"}
    one = {"id": 1, "data": data, "annotations": [annotation(item(to_name="photo"))]}
    file = put(tmp_path / "export.json", [one])
    with pytest.raises(DataError, match=r"cannot be told which data of export\.json is the image") as caught:
        read_dataset(tmp_path)
    assert "'scan', 'preview'" in caught.value.what and "label_config.xml" in caught.value.fix
    config = '<View><Image name="photo" value="$preview"/><RectangleLabels name="l" toName="photo">'
    labels = '<Label value="dog"/><Label value="feline" alias="cat"/></RectangleLabels></View>'
    put(tmp_path / "label_config.xml", config + labels)
    dataset = read(tmp_path, "labelstudio")
    assert boxes(dataset) == {"b.png": [("cat", CORNERS)]} and dataset.classes == ("cat",)
    assert raw_of(tmp_path, "labelstudio").classes == ["dog", "cat"]
    (tmp_path / "label_config.xml").unlink()
    one["annotations"] = [annotation(item(to_name="scan"))]
    put(file, [one])
    assert list(boxes(read(tmp_path, "labelstudio"))) == ["a.png"]


def test_two_images_in_one_task(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png")
    result = [item("cat", to_name="left"), item("dog", to_name="right")]
    one = {"id": 1, "data": {"left": "a.png", "right": "b.png"}, "annotations": [annotation(*result)]}
    put(tmp_path / "export.json", [one])
    assert boxes(read(tmp_path, "labelstudio")) == {"a.png": [("cat", CORNERS)], "b.png": [("dog", CORNERS)]}


def test_a_list_of_images(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png")
    items = [item("cat", item_index=1), item("dog", 0, item_index=0)]
    put(tmp_path / "export.json", [task(1, ["a.png", "b.png"], annotation(*items), key="pages")])
    assert boxes(read(tmp_path, "labelstudio")) == {"a.png": [("dog", [0, 12, 32, 24])], "b.png": [("cat", CORNERS)]}
    put(tmp_path / "export.json", [task(1, ["a.png"], annotation(item(item_index=3)), key="pages")])
    with pytest.raises(DataError, match="lies on image, which is none of the task's"):
        read_dataset(tmp_path)


def row_of_min(number: int, image: str, *values: Any, **more: Any) -> dict[str, Any]:
    start = {"image": image, "id": number, "annotator": 1, "annotation_id": 5, "lead_time": 2.0}
    return {**start, **({"label": list(values)} if values else {}), **more}


def test_json_min(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png")
    sizes = {"original_width": 64, "original_height": 48}
    value = {"x": 25, "y": 25, "width": 50, "height": 25, "rotation": 0, "rectanglelabels": ["cat"], **sizes}
    rows = [
        row_of_min(1, "a.png", {**value, "rectanglelabels": ["dog"]}, updated_at="2024-01-01"),
        row_of_min(1, "a.png", value, updated_at="2024-01-02"),
        row_of_min(2, "/data/upload/1/0a1b2c3d-b.png", choice="sharp"),
    ]
    put(tmp_path / "export.json", rows)
    dataset = read(tmp_path, "labelstudio")
    assert boxes(dataset) == {"a.png": [("cat", CORNERS)], "b.png": []}
    assert finding(dataset, "labelstudio.several_annotations") is not None


def test_splits_by_file_name(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png")
    put(tmp_path / "train.json", [task(1, "a.png", annotation(item()))])
    put(tmp_path / "test.json", [task(2, "b.png", annotation(item()))])
    assert list(read(tmp_path, "labelstudio").splits) == ["train", "test"]


def test_broken_files(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png")
    with pytest.raises(DataError, match="no Label Studio export was found"):
        raw_of(tmp_path, "labelstudio")
    file = put(tmp_path / "export.json", [task(1, "a.png", annotation(item())), {"id": 2}, 3])
    with pytest.raises(DataError, match=r"are no task: 2 \(entry 1, entry 2\)"):
        read_dataset(file)
    put(file, [task(1, "a.png", annotation(item())), task(2, None, annotation(item()))])
    with pytest.raises(DataError, match="task 2 has no image under 'image'"):
        read_dataset(file)
    file.write_text(file.read_text()[:-9])
    with pytest.raises(DataError, match="is not JSON"):
        read_dataset(file)


def test_the_sniffer_is_quiet_elsewhere(tmp_path: Path) -> None:
    for number, content in enumerate(
        (
            {"images": [], "annotations": [], "categories": []},
            [{"image": "a.png", "annotations": [{"label": "cat", "coordinates": {}}]}],
            [{"id": "1", "image": "a.png", "conversations": []}],
            [{"data": {"image": "a.png"}}],
            [{"data": {"image": "a.png"}, "annotations": [{"bbox": [1, 2, 3, 4]}]}],
        )
    ):
        assert sniff_labelstudio(put(tmp_path / f"{number}.json", content)) is None
    assert sniff_labelstudio(tmp_path) is None
