"""Small files of conversations about pictures of 64 x 48, in the shapes of the fine-tuning tools."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from boxtune.data import Dataset

from ..cases import picture, save

QUESTION = "<image>Detect every cat and dog."
CAT = "<|object_ref_start|>cat<|object_ref_end|><|box_start|>(250,500),(500,1000)<|box_end|>"
DOG = "<|object_ref_start|>dog<|object_ref_end|><|box_start|>(0,0),(1000,500)<|box_end|>"
CAT_PX, DOG_PX = [16.0, 24.0, 32.0, 48.0], [0.0, 0.0, 64.0, 24.0]


def messages(image: str | Sequence[str], answer: Any, question: Any = QUESTION, **more: Any) -> dict[str, Any]:
    images = [image] if isinstance(image, str) else list(image)
    said = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": said, "images": images, **more}


def conversations(image: str, *turns: tuple[str, str]) -> dict[str, Any]:
    said = [{"from": who, "value": text} for turn in turns for who, text in zip(("human", "gpt"), turn, strict=True)]
    return {"id": image, "image": image, "conversations": said}


def pictures(folder: Path, *names: str, size_wh: tuple[int, int] = (64, 48)) -> None:
    for seed, name in enumerate(names):
        save(picture(seed, size_wh), folder / name)


def write_lines(file: Path, entries: Sequence[Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in entries), encoding="utf-8")
    return file


def write_list(file: Path, entries: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(entries, indent=1, ensure_ascii=False), encoding="utf-8")
    return file


def boxes(dataset: Dataset, split: str = "train") -> dict[str, list[tuple[str, list[float]]]]:
    """The boxes of each picture, in the order of the file, corners to a hundredth of a pixel."""
    return {
        sample.image.name: list(zip(sample.boxes.labels, sample.boxes.xyxy_px.round(2).tolist(), strict=True))
        for sample in dataset.splits[split]
    }
