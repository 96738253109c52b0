"""Conversations of every shape are read to one, odd ones are named by line, and a share of each epoch is theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxtune.data.mix import IMAGE, Conversation, check_mix, mixed, num_mixed, read_mix
from boxtune.errors import DataError, Finding

from .cases import picture, save

TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
LLAVA = [{"from": "human", "value": f"{IMAGE}\nWhat?"}, {"from": "gpt", "value": "A cat."}]


def write(folder: Path, *entries: Any, name: str = "mix.jsonl") -> Path:
    """A file of these entries (text is a line as it is), beside the pictures a.png and b.png."""
    for number, image in enumerate(("a.png", "b.png")):
        save(picture(number), folder / "images" / image)
    lines = [entry if isinstance(entry, str) else json.dumps(entry, ensure_ascii=False) for entry in entries]
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read_one(folder: Path, entry: Any) -> Conversation:
    (conversation,) = read_mix(write(folder, entry)).conversations
    return conversation


def findings_of(path: Path) -> dict[str, Finding]:
    return {finding.check: finding for finding in read_mix(path).findings}


ASKED = (("user", f"{IMAGE}What?"), ("assistant", "A cat."))
ANSWER = {"role": "assistant", "content": "A cat."}
SHAPES: list[tuple[dict[str, Any], tuple[tuple[str, str], ...]]] = [
    # ms-swift
    ({"messages": [{"role": "user", "content": f"{IMAGE}What?"}, ANSWER], "images": ["images/a.png"]}, ASKED),
    ({"messages": [{"role": "user", "content": "What?"}, ANSWER], "images": [{"path": "images/a.png"}]}, ASKED),
    ({"query": f"{IMAGE}What?", "response": "A cat.", "images": ["images/a.png"]}, ASKED),
    # LLaVA, with the image's place at the end, and Qwen-VL's scripts
    (
        {"id": 1, "image": "images/a.png", "conversations": [{"from": "human", "value": f"What?\n{IMAGE}"}, LLAVA[1]]},
        (("user", f"What?\n{IMAGE}"), ("assistant", "A cat.")),
    ),
    ({"image": ["images/a.png"], "conversations": LLAVA}, (("user", f"{IMAGE}\nWhat?"), ("assistant", "A cat."))),
    # OpenAI and Hugging Face: images as parts, named there or beside
    (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": "images/a.png"}},
                        {"type": "text", "text": "What?"},
                    ],
                },
                {"role": "assistant", "content": [{"type": "text", "text": "A cat.", "image": None}]},
            ]
        },
        ASKED,
    ),
    (
        {
            "messages": [
                {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
                ANSWER,
            ],
            "images": ["images/a.png"],
        },
        ASKED,
    ),
]


@pytest.mark.parametrize(("entry", "turns"), SHAPES)
def test_shapes_with_an_image(tmp_path: Path, entry: dict[str, Any], turns: tuple[tuple[str, str], ...]) -> None:
    read = read_one(tmp_path, entry)
    assert read.turns == turns and read.images == (tmp_path / "images" / "a.png",)


@pytest.mark.parametrize(
    ("entry", "roles"),
    [
        ({"messages": TALK}, "user assistant"),
        (
            {"messages": [{"role": "system", "content": "Be kind"}, *TALK, *TALK]},
            "system user assistant user assistant",
        ),
        ({"messages": [{"role": "developer", "content": "Be kind"}, *TALK]}, "system user assistant"),
        ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]}, "user assistant"),
        ({"conversations": TALK, "system": "Be kind", "image": ""}, "system user assistant"),
        (
            {"query": "c", "response": "d", "history": [["a", "b"]], "system": "s"},
            "system user assistant user assistant",
        ),
        ({"messages": TALK, "images": [], "objects": None, "tools": [], "source": "here"}, "user assistant"),
    ],
)
def test_shapes_without_an_image(tmp_path: Path, entry: dict[str, Any], roles: str) -> None:
    read = read_one(tmp_path, entry)
    assert " ".join(role for role, _ in read.turns) == roles and read.images == ()


def test_a_list_in_one_file_and_lines_read_the_same(tmp_path: Path) -> None:
    entries = [{"messages": TALK}, SHAPES[0][0]]
    lines = read_mix(write(tmp_path, *entries))
    listed = tmp_path / "mix.json"
    listed.write_text("\ufeff" + json.dumps(entries, indent=1), encoding="utf-8")
    assert read_mix(listed).conversations == lines.conversations and len(lines.conversations) == 2
    assert [str(finding) for finding in lines.findings] == [
        f"ok   mix.read: 2 conversations, 1 with an image [{tmp_path / 'mix.jsonl'}]"
    ]


def test_images_may_lie_elsewhere(tmp_path: Path) -> None:
    path = write(tmp_path, {"image": "a.png", "conversations": LLAVA})
    read = read_mix(path, images=tmp_path / "images")
    assert read.conversations[0].images == (tmp_path / "images" / "a.png",)
    absolute = {"image": f"file://{tmp_path / 'images' / 'b.png'}", "conversations": LLAVA}
    assert read_one(tmp_path, absolute).images == (tmp_path / "images" / "b.png",)


USER = {"role": "user", "content": "Hi"}
FAULTS: list[tuple[Any, str]] = [
    ('{"messages": [', "no JSON"),
    ("[" * 5000, "is not sound JSON"),
    ("7", "expected is an object, not int"),
    ({"text": "Hi"}, "neither messages, conversations nor query; its keys are text"),
    ({"messages": []}, "'messages' is not a list of turns"),
    ({"messages": ["Hi"]}, "turn 1 is not an object"),
    ({"messages": [{"role": "narrator", "content": "Hi"}]}, "turn 1 is of 'narrator'; known are system"),
    ({"messages": [USER]}, "it ends without an answer"),
    ({"messages": [{"role": "system", "content": "Hi"}]}, "it ends without an answer"),
    ({"messages": [USER, USER, TALK[1]]}, "do not take turns: user, user, assistant"),
    ({"messages": [TALK[1]]}, "do not take turns: assistant"),
    ({"messages": [USER, {"role": "assistant", "content": None}]}, "the content of a turn is NoneType, not text"),
    ({"messages": [USER, {"role": "assistant", "content": " "}]}, "a turn of assistant is empty"),
    ({"messages": [{"role": "user", "content": [{"type": "x"}]}, TALK[1]]}, "a part of type 'x'"),
    ({"messages": TALK, "images": ["images/z.png"]}, "z.png does not exist"),
    ({"messages": TALK, "images": [7]}, "named by int, not by a path"),
    ({"messages": TALK, "images": ["x" * 5000]}, "cannot be looked for"),
    ({"conversations": LLAVA}, "1 places for an image, but 0 images"),
    ({"conversations": [{**LLAVA[0], "value": IMAGE * 2}, LLAVA[1]], "image": "images/a.png"}, "2 places for an image"),
    ({"messages": [USER, {**TALK[1], "content": IMAGE}], "images": ["images/a.png"]}, "an image stands in a turn of"),
    ({"query": "a", "response": "b", "history": ["c"]}, "history is not a list"),
    ({**SHAPES[5][0], "images": ["images/a.png"]}, "in the messages and beside them"),
]


@pytest.mark.parametrize(("entry", "words"), FAULTS)
def test_broken_entries_are_named_by_line(tmp_path: Path, entry: Any, words: str) -> None:
    listed = entry == "[" * 5000
    path = write(tmp_path, *([entry] if listed else [{"messages": TALK}, entry]))
    with pytest.raises(DataError) as error:
        read_mix(path)
    text = str(error.value)
    assert words in text and (listed or ("1 of 2 conversations are broken" in text and "line 2: " in text))


def test_one_in_a_hundred_may_be_broken(tmp_path: Path) -> None:
    path = write(tmp_path, *[{"messages": TALK}] * 99, {"messages": [USER]})
    assert len(read_mix(path).conversations) == 99
    finding = findings_of(path)["mix.left_out"]
    assert finding.level == "warn" and finding.seen.startswith("1 broken conversations left out: line 100: it ends")
    with pytest.raises(DataError, match="2 of 100 conversations are broken"):
        read_mix(write(tmp_path, *[{"messages": TALK}] * 98, "{", "{"))


CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}
KINDS: list[tuple[dict[str, Any], str]] = [
    ({"messages": TALK, "images": ["images/a.png", "images/b.png"]}, "it has several images"),
    ({"messages": TALK, "images": ["https://example.com/a.png"]}, "its image is on the web"),
    ({"messages": TALK, "images": ["data:image/png;base64,AAAA"]}, "its image is inside the text"),
    ({"messages": TALK, "images": [{"bytes": "AAAA", "path": None}]}, "its image is inside the text"),
    ({"messages": TALK, "videos": ["a.mp4"]}, "it has 'videos'"),
    ({"messages": TALK, "objects": {"bbox": [[1, 2, 3, 4]]}}, "it has 'objects'"),
    ({"messages": TALK, "rejected_response": "No"}, "it has 'rejected_response'"),
    ({"messages": [USER, CALL]}, "a tool is called"),
    ({"messages": [USER, {"role": "tool", "content": "7"}, TALK[1]]}, "a tool is called"),
    ({"messages": [{"role": "user", "content": [{"type": "video"}]}, TALK[1]]}, "a part of type 'video'"),
]


@pytest.mark.parametrize(("entry", "words"), KINDS)
def test_other_kinds_are_left_out_and_counted(tmp_path: Path, entry: dict[str, Any], words: str) -> None:
    path = write(tmp_path, entry, {"messages": TALK}, entry)
    assert len(read_mix(path).conversations) == 1
    finding = findings_of(path)["mix.other_kinds"]
    assert finding.level == "warn" and f"{words}: 2 (line 1, line 3)" in finding.seen
    with pytest.raises(DataError, match="none of 1 conversations can be trained on"):
        read_mix(write(tmp_path, entry))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        read_mix(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        read_mix(tmp_path / "none.jsonl")
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n\n")
    with pytest.raises(DataError, match="none of 0 conversations"):
        read_mix(empty)
    empty.write_bytes(b"\xff\xfe{}")
    with pytest.raises(DataError, match="is not UTF-8"):
        read_mix(empty)


def test_the_models_own_tokens_are_found_in_texts(tmp_path: Path) -> None:
    odd = [USER, {"role": "assistant", "content": "Hello<|im_end|>"}]
    mix = read_mix(write(tmp_path, {"messages": TALK}, {"messages": odd}, SHAPES[0][0]))
    (finding,) = check_mix(mix, ["<|im_end|>", IMAGE])
    assert finding.level == "fail" and "1 of 3 conversations" in finding.seen
    assert "conversation 2 '<|im_end|>'" in finding.seen
    assert check_mix(mix, ["<end>", IMAGE]) == []


def test_shared_conversation_sets_are_read(shared_data: Path) -> None:
    counts = {}
    for name, file in [
        ("msswift_qwen2vl_text", "train.jsonl"),
        ("llava_norm", "train.json"),
        ("llamafactory_messages", "data.json"),
        ("qwenvl_finetune", "train.json"),
    ]:
        read = read_mix(shared_data / "formats" / name / file)
        counts[name] = len(read.conversations)
        assert all(len(one.images) == 1 and one.turns[0][1].count(IMAGE) == 1 for one in read.conversations)
    assert counts == {"msswift_qwen2vl_text": 6, "llava_norm": 15, "llamafactory_messages": 6, "qwenvl_finetune": 6}
    apart = read_mix(shared_data / "formats" / "msswift_real" / "train.jsonl")
    assert len(apart.conversations) == 1 and "it has 'objects': 5 (line 1" in apart.findings[-1].seen


@given(st.integers(0, 80), st.integers(1, 30), st.floats(0, 0.9), st.integers(0, 3))
def test_an_epoch_has_every_sample_and_its_share_of_conversations(
    num_samples: int, num_conversations: int, share: float, epoch: int
) -> None:
    num_rows = num_samples + num_mixed(num_samples, share)
    rows = [
        mixed(row, num_samples=num_samples, num_conversations=num_conversations, share=share, seed=1, epoch=epoch)
        for row in range(num_rows)
    ]
    assert [place for what, place in rows if what == "train"] == list(range(num_samples))
    drawn = [place for what, place in rows if what == "mix"]
    assert len(drawn) == num_mixed(num_samples, share) and set(drawn) <= set(range(num_conversations))
    if num_samples >= 20:
        assert abs(len(drawn) / num_rows - share) < 0.03
        # Evenly between: no stretch of rows is far from the share.
        ahead = [sum(what == "mix" for what, _ in rows[:row]) - len(drawn) * row / num_rows for row in range(num_rows)]
        assert max(map(abs, ahead), default=0) <= 1


def test_conversations_come_again_only_after_all_have_come() -> None:
    def drawn(seed: int) -> list[int]:
        rows = [
            mixed(row, num_samples=30, num_conversations=12, share=0.25, seed=seed, epoch=epoch)
            for epoch in range(6)
            for row in range(40)
        ]
        return [place for what, place in rows if what == "mix"]

    places = drawn(0)
    assert len(places) == 60 and places == drawn(0) != drawn(1)
    passes = [places[start : start + 12] for start in range(0, 60, 12)]
    assert all(sorted(one) == list(range(12)) for one in passes) and passes[0] != passes[1]


def test_rows_and_shares_that_cannot_be() -> None:
    with pytest.raises(IndexError, match="row 40 of 40"):
        mixed(40, num_samples=30, num_conversations=12, share=0.25, seed=0, epoch=0)
    with pytest.raises(ValueError, match=r"a share of 1\.0 is not"):
        num_mixed(30, 1.0)
    assert num_mixed(30, 0.0) == 0
