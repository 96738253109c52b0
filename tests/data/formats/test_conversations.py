"""Files of conversations: shapes, pictures, negatives, talk, what is refused."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from boxtune.data import Dataset, read_dataset
from boxtune.data.formats import FORMATS, sniff
from boxtune.errors import DataError

from ..cases import find
from . import chat_cases as chat
from .chat_cases import CAT, CAT_PX, DOG, DOG_PX, QUESTION, conversations, messages
from .tf_records import jpeg

BOTH = {"a.png": [("cat", CAT_PX), ("dog", DOG_PX)], "b.png": []}
CHATS = "llamafactory msswift paligemma_jsonl florence2_jsonl qwenvl llava".split()


def read(folder: Path, *entries: Any) -> Dataset:
    chat.pictures(folder, "a.png", "b.png")
    return read_dataset(chat.write_lines(folder / "train.jsonl", entries))


def picture_part(name: str) -> dict[str, Any]:
    return {"type": "image", "image": f"file://{name}"}


@pytest.mark.parametrize(
    "shape",
    [
        lambda image, answer: messages(image, answer),
        lambda image, answer: messages(
            [], [{"type": "text", "text": answer}], [picture_part(image), {"type": "text", "text": QUESTION}]
        ),
        lambda image, answer: messages([], answer, [{"type": "image_url", "image_url": {"url": image}}, QUESTION]),
        lambda image, answer: {
            "messages": messages(image, answer)["messages"],
            "images": [{"bytes": None, "path": image}],
        },
        lambda image, answer: conversations(image, (QUESTION, answer)),
        lambda image, answer: {"conversations": messages(image, answer)["messages"], "image": [image]},
        lambda image, answer: {"conversation": [{"human": QUESTION, "assistant": answer}], "images": [image]},
        lambda image, answer: {"query": QUESTION, "response": answer, "images": [image]},
        lambda image, answer: {"query": "?", "response": "!", "history": [[QUESTION, answer]], "images": [image]},
        lambda image, answer: {"instruction": "Detect", "input": "cats and dogs", "output": answer, "images": [image]},
        lambda image, answer: {"image": image, "prefix": "detect cat ; dog", "suffix": answer},
        lambda image, answer: {
            "conversations": [
                {"from": "user", "value": f"Picture 1: <img>{image}</img>\n{QUESTION}"},
                {"from": "assistant", "value": answer},
            ]
        },
    ],
)
def test_shapes(tmp_path: Path, shape: Any) -> None:
    dataset = read(tmp_path, shape("a.png", CAT + DOG), shape("b.png", "There are none."))
    assert chat.boxes(dataset) == BOTH and dataset.classes == ("cat", "dog")
    nothing = find(dataset, "chat.nothing")
    assert nothing is not None and "1 (line 2: 'There are none.')" in nothing.seen
    listed = chat.write_list(tmp_path / "list" / "train.json", [shape("a.png", CAT + DOG), shape("b.png", "None.")])
    assert chat.boxes(read_dataset(listed, images=tmp_path)) == BOTH


def test_splits_and_awkward_names(tmp_path: Path) -> None:
    names = ["img/a b#ü.png", "img/c%20d.png"]
    for split in ("train", "valid"):
        chat.pictures(tmp_path, *names)
        chat.write_lines(tmp_path / f"_annotations.{split}.jsonl", [messages(name, CAT) for name in names])
    dataset = read_dataset(tmp_path)
    assert {split: list(chat.boxes(dataset, split)) for split in dataset.splits} == {
        "train": ["a b#ü.png", "c%20d.png"],
        "valid": ["a b#ü.png", "c%20d.png"],
    }
    assert "train _annotations.train.jsonl, valid _annotations.valid.jsonl" in dataset.why
    chat.write_lines(tmp_path / "train.jsonl", [messages(names[0], CAT)])
    with pytest.raises(
        DataError, match=r"2 files are all of the `train` split: _annotations\.train\.jsonl, train\.jsonl"
    ):
        read_dataset(tmp_path)


def test_answers_about_one_picture_are_put_together(tmp_path: Path) -> None:
    turns = ((QUESTION, CAT), ("And what colour is it?", "White."), ("And the dog?", DOG))
    dataset = read(tmp_path, conversations("a.png", *turns), messages("a.png", DOG), messages("b.png", "No object."))
    assert chat.boxes(dataset) == {"a.png": [("cat", CAT_PX), ("dog", DOG_PX), ("dog", DOG_PX)], "b.png": []}
    assert find(dataset, "box.twice") is not None and find(dataset, "image.twice") is None
    talk = find(dataset, "chat.no_boxes")
    assert talk is not None and "1 (line 1: 'White.')" in talk.seen


def test_talk_is_no_negative(tmp_path: Path) -> None:
    entries = [
        messages("a.png", CAT),
        messages("b.png", "No.", "Is there snow?"),
        messages("b.png", "A long tale " * 9),
    ]
    dataset = read(tmp_path, *entries)
    assert list(chat.boxes(dataset)) == ["a.png"]
    talk = find(dataset, "chat.no_boxes")
    assert talk is not None and "2 (line 2: 'No.'" in talk.seen and find(dataset, "chat.nothing") is None


@pytest.mark.parametrize("answer", ["[]", "", "Keine.", "```json\n[]\n```", "I cannot see any."])
def test_negatives(tmp_path: Path, answer: str) -> None:
    dataset = read(tmp_path, messages("a.png", CAT), messages("b.png", answer))
    assert chat.boxes(dataset) == {"a.png": [("cat", CAT_PX)], "b.png": []} and find(dataset, "chat.no_boxes") is None


def test_negative_of_another_question(tmp_path: Path) -> None:
    dataset = read(tmp_path, messages("a.png", CAT), messages("b.png", "There is no horse.", "Detect the horse."))
    assert list(chat.boxes(dataset)) == ["a.png", "b.png"]


def test_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    entries = [
        messages("a.png", f"{CAT} <|box_start|>(1,2),(3,4)<|box_end|>"),
        messages("b.png", "<|box_start|>(1,2),(3,4)<|box_end|>", "Where?"),
        messages(["a.png", "b.png"], DOG),
        messages([], DOG),
        messages("a.png", "click(<|box_start|>(1,2)<|box_end|>)"),
    ]
    dataset = read(tmp_path, *entries)
    assert chat.boxes(dataset) == {"a.png": [("cat", CAT_PX), ("cat", [0.06, 0.1, 0.19, 0.19])], "b.png": []}
    for check, name in (
        ("chat.unlabelled", "line 2"),
        ("chat.several_pictures", "line 3"),
        ("chat.no_picture", "line 4"),
        ("chat.points", "line 5"),
    ):
        finding = find(dataset, check)
        assert finding is not None and f": 1 ({name})" in finding.seen, check


def test_unsound_answers(tmp_path: Path) -> None:
    broken = messages("b.png", DOG.replace("(0,0)", "(0,900)"))
    dataset = read(tmp_path, *[messages("a.png", CAT)] * 99, broken)
    finding = find(dataset, "chat.unsound")
    assert finding is not None and finding.level == "warn" and "1 (line 100: inverted: " in finding.seen
    assert chat.boxes(dataset)["b.png"] == []
    with pytest.raises(DataError, match="of 99 answers with boxes too many are not sound") as caught:
        read(tmp_path, *[messages("a.png", CAT)] * 98, broken)
    assert "line 99: inverted: " in caught.value.what
    assert find(read(tmp_path, messages("a.png", CAT)), "chat.unsound") is None


def test_pictures_in_base64(tmp_path: Path) -> None:
    uri = "data:image/jpeg;base64," + base64.b64encode(jpeg(1)).decode()
    dataset = read(tmp_path, messages(uri, CAT), messages(uri, DOG), messages("a.png", DOG))
    (first, other), embedded = dataset.splits["train"], find(dataset, "image.embedded")
    assert first.image.read_bytes() == jpeg(1) and len(first.boxes) == 2 and other.image.name == "a.png"
    assert embedded is not None and ": 1 " in embedded.seen
    with pytest.raises(DataError, match="line 1: a picture in base64 is broken"):
        read(tmp_path, messages("data:image/jpeg;base64,a", CAT))


def test_pixels_and_shares_in_one_file(tmp_path: Path) -> None:
    spot = {"ref": ["cat"], "bbox": [[16, 24, 32, 48]]}
    entries = [messages("a.png", "<ref-object><bbox>", objects=spot), messages("b.png", DOG)]
    assert chat.boxes(read(tmp_path, *entries)) == {"a.png": [("cat", CAT_PX)], "b.png": [("dog", DOG_PX)]}
    chat.write_lines(tmp_path / "train.jsonl", [messages("lost.png", "<ref-object><bbox>", objects=spot), *entries])
    with pytest.raises(DataError, match=r"the size of lost\.png is not known"):
        read_dataset(tmp_path)


def test_objects_of_swift(tmp_path: Path) -> None:
    spot = {"ref": ["cat"], "bbox": [[0.25, 0.5, 0.5, 1.0]], "bbox_type": "norm1"}
    nothing = {"ref": [], "bbox": []}
    dataset = read(
        tmp_path, messages("a.png", "<ref-object><bbox>", objects=spot), messages("b.png", "None", objects=nothing)
    )
    assert chat.boxes(dataset) == {"a.png": [("cat", CAT_PX)], "b.png": []} and "1 boxes of objects" in dataset.why
    with pytest.raises(DataError, match=r"entries that cannot be read: 2 \(line 1: a bbox is .*, line 2: "):
        read(tmp_path, *[messages("a.png", "<bbox>", objects={"bbox": [[1, 2, 3]]})] * 2)


def test_padded_squares_of_llava(tmp_path: Path) -> None:
    ask = "Please provide the bounding box coordinate of the region this sentence describes: {}."
    edge = [(ask.format("ox"), f"[0.{at}, 0.125, 0.777, 0.875]") for at in (211, 322)]
    said = [(ask.format("cat"), "[0.25, 0.5, 0.5, 0.875]"), (ask.format("dog"), "[0.0, 0.125, 1.0, 0.5]"), *edge]
    entries = [conversations("a.png", *said)]
    chat.pictures(tmp_path, "a.png")
    file = chat.write_list(tmp_path / "train.json", entries)
    dataset = read_dataset(tmp_path)
    assert dataset.format == "llava" and chat.boxes(dataset)["a.png"][:2] == BOTH["a.png"]
    assert chat.boxes(read_dataset(file, boxes="xyxy_unit"))["a.png"][0] == ("cat", [16.0, 24.0, 32.0, 42.0])


@pytest.mark.parametrize("end", ["<eos>", "</s>", " <pad><pad>", "<|im_end|>\n", "<|im_end|><|endoftext|>"])
@pytest.mark.parametrize(
    "answer", [CAT, "<loc0512><loc0256><loc1023><loc0512> cat", "cat<loc_250><loc_500><loc_500><loc_999>"]
)
def test_special_tokens_behind_an_answer_are_no_name(tmp_path: Path, answer: str, end: str) -> None:
    plain, ended = (
        read(tmp_path, messages("a.png", text), messages("b.png", "" if text == answer else end))
        for text in (answer, answer + end)
    )
    assert chat.boxes(ended) == chat.boxes(plain) and plain.classes == ended.classes == ("cat",)


def test_json_in_pixels_or_thousandths(tmp_path: Path) -> None:
    chat.pictures(tmp_path, "a.png")
    rows = [{"bbox_2d": [250, 500, 500, 1000], "label": "cat"}, {"bbox_2d": [0, 0, 1000, 500], "label": "dog"}]
    file = chat.write_list(tmp_path / "train.json", [conversations("a.png", (QUESTION, json.dumps(rows)))])
    dataset = read_dataset(file)
    assert dataset.format == "qwenvl" and chat.boxes(dataset)["a.png"] == BOTH["a.png"]
    assert "thousandths" in dataset.why
    rows = [{"bbox_2d": [16, 24, 32, 48], "label": "cat"}, {"bbox_2d": [0, 0, 64, 24], "label": "dog"}]
    chat.write_list(file, [conversations("a.png", (QUESTION, json.dumps(rows)))])
    with pytest.raises(DataError, match=r"xyxy_px .* or xyxy_bin1000"):  # two boxes are too few to tell
        read_dataset(file)
    chat.write_list(file, [conversations("a.png", *[(QUESTION, json.dumps(rows))] * 5)])
    assert "in pixels" in read_dataset(file).why and chat.boxes(read_dataset(file))["a.png"][:2] == BOTH["a.png"]


@pytest.mark.parametrize(
    ("entry", "format"),
    [
        (messages("a.png", CAT), "msswift"),
        ({"query": QUESTION, "response": CAT, "images": ["a.png"]}, "msswift"),
        (conversations("a.png", (QUESTION, '{"bbox_2d": [1, 2, 3, 4], "label": "x"}')), "qwenvl"),
        (conversations("a.png", (QUESTION, CAT)), "qwenvl"),
        (conversations("a.png", (QUESTION, "<ref>x</ref><box>[[1, 2, 3, 4]]</box>")), "llava"),
        (conversations("a.png", ("", "A cat."), (QUESTION, "[0.1, 0.2, 0.3, 0.4]")), "llava"),
        (
            {"image": "a.png", "prefix": "detect x", "suffix": "<loc0001><loc0002><loc0003><loc0004> x"},
            "paligemma_jsonl",
        ),
        ({"image": "a.png", "prefix": "<OD>", "suffix": "x<loc_1><loc_2><loc_3><loc_4>"}, "florence2_jsonl"),
    ],
)
def test_sniffers(tmp_path: Path, entry: Any, format: str) -> None:
    file = chat.write_lines(tmp_path / "train.jsonl", [entry])
    assert list(sniff(file)) == list(sniff(tmp_path)) == [format]
    assert list(sniff(chat.write_list(tmp_path / "deep" / "train.json", [entry]))) == [format]


def test_sniffers_are_quiet(tmp_path: Path) -> None:
    chat.write_lines(tmp_path / "talk.jsonl", [messages("a.png", "A cat."), messages([], CAT), {"text": CAT}])
    chat.write_list(tmp_path / "config.json", {"messages": "none", "model": "x"})
    chat.write_list(tmp_path / "numbers.json", [1, 2, 3])
    (tmp_path / "broken.json").write_text('[{"messages": ')
    (tmp_path / "empty.jsonl").write_text("")
    for path in (tmp_path, *tmp_path.iterdir(), tmp_path / "nowhere"):
        assert not [name for name in CHATS if FORMATS[name].sniff(path)], path


def test_a_large_file_is_sniffed_by_its_head(tmp_path: Path) -> None:
    entries = [messages("a.png", CAT)] * 6000
    assert list(sniff(chat.write_lines(tmp_path / "train.jsonl", entries))) == ["msswift"]
    assert list(sniff(chat.write_list(tmp_path / "x" / "train.json", entries))) == ["msswift"]


@pytest.mark.parametrize(
    ("text", "message", "where"),
    [
        ('{"messages": [}', "it is no JSON", "line 2"),
        ("[1]", "an entry is a list, no object", "line 2"),
        ('{"messages": [5], "images": ["a.png"]}', "a message is 5", "train"),
        ('{"messages": [{"who": "me"}]}', "a message has the keys who", "train"),
        ('{"messages": [{"role": "user", "content": 5}]}', "a message says 5", "train"),
        ('{"messages": [], "images": [5]}', "a picture is 5", "train"),
        ('{"text": "x"}', "the entry is no conversation; its keys are text", "train"),
    ],
)
def test_broken_entries(tmp_path: Path, text: str, message: str, where: str) -> None:
    chat.pictures(tmp_path, "a.png")
    file = chat.write_lines(tmp_path / "train.jsonl", [messages("a.png", CAT)])
    file.write_text(file.read_text() + text + "\n")
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(file)
    assert where in caught.value.where and "line 2" in str(caught.value)


def test_nothing_to_read(tmp_path: Path) -> None:
    file = chat.write_lines(tmp_path / "train.jsonl", [messages("a.png", "A cat."), messages([], CAT)])
    with pytest.raises(DataError, match=r"no answer holds a box \(.*A cat.*conversations without a picture"):
        read_dataset(file, format="msswift")
    with pytest.raises(DataError, match="no conversations with boxes were found"):
        read_dataset(tmp_path, format="llava")


def test_a_reading_that_changes_nothing_is_said(tmp_path: Path) -> None:
    chat.pictures(tmp_path, "a.png")
    file = chat.write_lines(tmp_path / "train.jsonl", [messages("a.png", CAT)])
    assert "boxes=xyxy_px changes nothing" in read_dataset(file, boxes="xyxy_px").why
