"""What the model is fed: the prompt it will see again, the image it was given, labels on the answer alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import refuse
from PIL import Image

from boxtune.boxes import Boxes, iou_matrix
from boxtune.data import Sample, read_dataset
from boxtune.errors import DataError
from boxtune.finetune.collate import IGNORED, collate_for_prediction, collate_for_training
from boxtune.finetune.collator import TrainingCollator
from boxtune.finetune.encode import Encoder
from boxtune.settings import DataSettings


@pytest.fixture(scope="module")
def samples(squares: Path) -> list[Sample]:
    return list(read_dataset(squares).splits["train"])


def collate(encoder: Encoder, samples: list[Sample], how: Callable[..., Any]) -> dict[str, torch.Tensor]:
    examples = [encoder.encode_sample(sample) for sample in samples]
    return how(examples, encoder.layout)


def test_labels_decode_to_the_answer_and_the_end_of_turn(encoder: Encoder, samples: list[Sample]) -> None:
    batch = collate(encoder, samples, collate_for_training)
    seen = 0
    for labels, ids, mask, sample in zip(
        batch["labels"], batch["input_ids"], batch["attention_mask"], samples, strict=True
    ):
        supervised = labels != IGNORED
        frame = encoder.encode_sample(sample).frame
        answer = encoder.family.encode(sample.targets, frame, encoder.classes)
        assert encoder.tokenizer.decode(labels[supervised]) == answer + "<|im_end|>"
        assert (ids[supervised] == labels[supervised]).all()
        # One stretch, right up to the end of the row.
        places = torch.nonzero(supervised).flatten()
        assert places[-1] == mask.sum() - 1 and places[-1] - places[0] + 1 == len(places)
        seen += 1
    assert seen == len(samples) == 16


def test_decoded_labels_are_the_source_boxes(encoder: Encoder, samples: list[Sample]) -> None:
    checked = 0
    for sample in samples:
        example = encoder.encode_sample(sample)
        text = encoder.tokenizer.decode(example.answer_ids[:-1])
        decoded = encoder.family.decode(text, example.frame, encoder.classes)
        assert decoded.problems == ()
        assert sorted(decoded.boxes.labels) == sorted(sample.targets.labels)
        if len(sample.targets):
            assert iou_matrix(decoded.boxes.xyxy_px, sample.targets.xyxy_px).max(axis=0).min() >= 0.98
            checked += len(sample.targets)
    assert checked >= 16


def test_prompt_ids_are_those_of_prediction(encoder: Encoder, samples: list[Sample]) -> None:
    trained = collate(encoder, samples[:4], collate_for_training)
    asked = collate(encoder, samples[:4], collate_for_prediction)
    compared = 0
    for row in range(4):
        prompt = asked["input_ids"][row][asked["attention_mask"][row].bool()].tolist()
        prefix = trained["input_ids"][row][: len(prompt)].tolist()
        assert prompt == prefix
        assert trained["labels"][row][: len(prompt)].eq(IGNORED).all()
        assert trained["labels"][row][len(prompt)] != IGNORED
        compared += 1
    assert compared == 4
    assert torch.equal(trained["pixel_values"], asked["pixel_values"])


def test_image_tokens_are_those_of_the_grid(encoder: Encoder, samples: list[Sample]) -> None:
    batch = collate(encoder, samples[:4], collate_for_training)
    per_image = batch["image_grid_thw"].prod(dim=1) // 4
    assert (batch["input_ids"] == encoder.layout.image_token_id).sum(dim=1).tolist() == per_image.tolist()
    assert torch.equal(batch["mm_token_type_ids"].bool(), batch["input_ids"] == encoder.layout.image_token_id)
    assert len(batch["pixel_values"]) == int(batch["image_grid_thw"].prod(dim=1).sum())


@pytest.mark.parametrize("size", [(30, 20), (100, 100), (400, 100), (97, 203), (640, 480), (1000, 31)])
def test_family_rule_is_the_processors(encoder: Encoder, size: tuple[int, int]) -> None:
    example = encoder.encode_image(Image.new("RGB", size), Boxes.none())
    _, rows, columns = example.inputs["image_grid_thw"][0].tolist()
    assert example.frame.seen_wh == (columns * 14, rows * 14)
    assert example.frame.original_wh == size


def test_measure_counts_what_encoding_makes(encoder: Encoder, samples: list[Sample]) -> None:
    for sample in samples[:5]:
        example = encoder.encode_sample(sample)
        assert encoder.measure(sample) == (len(example.prompt_ids), len(example.answer_ids))


def test_an_image_of_another_size_than_declared_is_refused(encoder: Encoder, samples: list[Sample]) -> None:
    sample = samples[0]
    wrong = Sample(
        image=sample.image,
        image_id=1,
        size_wh=(50, 60),
        boxes=Boxes.none(),
        crowd=np.zeros(0, dtype=bool),
        ignore=np.zeros(0, dtype=bool),
    )
    with pytest.raises(DataError, match="112x112, its annotation says 50x60"):
        encoder.encode_sample(wrong)


def test_a_broken_training_image_is_told_and_the_next_takes_its_place(
    encoder: Encoder, samples: list[Sample], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(samples[0].image.read_bytes()[:100])
    bad = Sample(
        image=broken,
        image_id=99,
        size_wh=(112, 112),
        boxes=samples[0].boxes,
        crowd=samples[0].crowd,
        ignore=samples[0].ignore,
    )
    told: list[tuple[Path, str]] = []
    splits = {"train": [bad, *samples[1:3]], "valid": [bad]}
    collator = TrainingCollator(encoder, splits, lambda sample, error: told.append((sample.image, error.what)))
    batch = collator([{"split": "train", "i": 0}, {"split": "train", "i": 1}])
    assert [path for path, _ in told] == [broken]
    assert torch.equal(batch["input_ids"][0], batch["input_ids"][1])
    with pytest.raises(DataError, match="broken"):
        collator([{"split": "valid", "i": 0}])


def test_training_images_change_with_the_epoch_and_by_nothing_else(encoder: Encoder, samples: list[Sample]) -> None:
    splits = {"train": samples[:3], "valid": samples[:3]}
    changes = DataSettings(path=".", augment=("flip", "turn", "crop", "colour"))
    collator = TrainingCollator(encoder, splits, refuse, changes, seed=3)
    rows = [{"split": "train", "i": i} for i in range(3)]
    plain = [{"split": "valid", "i": i} for i in range(3)]
    first = collator(rows)
    # One by one, in another order, from another collator: the same.
    again = TrainingCollator(encoder, splits, refuse, changes, seed=3)
    for i in (2, 0, 1):
        alone = again([rows[i]])
        length = int(alone["attention_mask"].sum())
        assert torch.equal(alone["input_ids"][0, :length], first["input_ids"][i, :length])
    collator.epoch = 1
    second = collator(rows)
    other = TrainingCollator(encoder, splits, refuse, changes, seed=4)(rows)
    unchanged = TrainingCollator(encoder, splits, refuse)(rows)
    for batch in (second, other, unchanged):
        assert first["pixel_values"].shape != batch["pixel_values"].shape or not torch.equal(
            first["pixel_values"], batch["pixel_values"]
        )
    assert torch.equal(collator(plain)["pixel_values"], unchanged["pixel_values"])
