"""LLaMA-Factory's dataset_info.json: which files, and what their keys are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from boxtune.data import read_dataset
from boxtune.data.formats import sniff
from boxtune.errors import DataError

from . import chat_cases as chat
from .chat_cases import CAT, CAT_PX, QUESTION, messages

OPENAI = {
    "formatting": "sharegpt",
    "columns": {"messages": "messages", "images": "images"},
    "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
}


def write(folder: Path, info: Any, **files: Any) -> Path:
    chat.pictures(folder, "a.png")
    chat.write_list(folder / "dataset_info.json", info)
    for name, content in files.items():
        chat.write_list(folder / f"{name}.json", content)
    return folder


@pytest.mark.parametrize(
    ("info", "entry"),
    [
        (OPENAI, messages("a.png", CAT)),
        (
            {"formatting": "sharegpt", "columns": {"images": "images"}},
            {
                "images": ["a.png"],
                "conversations": [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": CAT}],
            },
        ),
        (
            {
                "formatting": "sharegpt",
                "columns": {"messages": "talk", "images": "pics"},
                "tags": {"role_tag": "who", "content_tag": "says", "user_tag": "me", "assistant_tag": "it"},
            },
            {"pics": ["a.png"], "talk": [{"who": "me", "says": QUESTION}, {"who": "it", "says": CAT}]},
        ),
        ({"columns": {"images": "images"}}, {"instruction": QUESTION, "input": "", "output": CAT, "images": ["a.png"]}),
        (
            {"columns": {"prompt": "q", "query": "more", "response": "a", "history": "h", "images": "pics"}},
            {"q": "What?", "more": "", "a": "A cat.", "h": [[QUESTION, CAT]], "pics": ["a.png"]},
        ),
    ],
)
def test_keys(tmp_path: Path, info: Any, entry: Any) -> None:
    write(tmp_path, {"det": {"file_name": "data.json", **info}}, data=[entry])
    for path in (tmp_path, tmp_path / "dataset_info.json", tmp_path / "data.json"):
        assert list(sniff(path)) == ["llamafactory"]
        dataset = read_dataset(path)
        assert chat.boxes(dataset) == {"a.png": [("cat", CAT_PX)]} and "not read" not in dataset.why


def test_splits_and_other_data_sets(tmp_path: Path) -> None:
    info = {
        "det_train": {"file_name": "det_train.json", **OPENAI},
        "det_val": {"file_name": "det_val.json", **OPENAI},
        "talk": {"file_name": "talk.json", **OPENAI},
        "far": {"hf_hub_url": "owner/name"},
        "lost": {"file_name": "lost.json"},
        "folder": {"file_name": "deep", **OPENAI},
    }
    boxes, talk = [messages("a.png", CAT)], [messages("a.png", "A cat.")]
    write(tmp_path, info, det_train=boxes, det_val=boxes, talk=talk)
    chat.write_list(tmp_path / "deep" / "test.json", boxes)
    dataset = read_dataset(tmp_path)
    assert list(dataset.splits) == ["train", "valid", "test"] and dataset.format == "llamafactory"
    write(tmp_path, info | {"more": {"file_name": "more_train.json", **OPENAI}}, more_train=boxes)
    with pytest.raises(DataError, match=r"2 files are all of the `train` split: det_train\.json, more_train\.json"):
        read_dataset(tmp_path)


def test_other_files_of_that_name(tmp_path: Path) -> None:
    for content in ({"features": {}, "splits": {}}, [1], "x", {"a": {"file_name": 5}}):
        chat.write_list(tmp_path / "dataset_info.json", content)
        assert not sniff(tmp_path)
    (tmp_path / "dataset_info.json").write_text("{")
    assert not sniff(tmp_path)
