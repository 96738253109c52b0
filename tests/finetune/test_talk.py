"""Other conversations in training: in the model's own chat turns, with labels on the last answer alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import CHAT_TEMPLATE, write_architecture
from models import refuse

import boxtune
from boxtune.data import Epochs, read_dataset
from boxtune.data.mix import Conversation
from boxtune.errors import DataError, ModelError
from boxtune.finetune import TrainingCollator, build_encoder, choose_placement, find_model, load_base, read_talk
from boxtune.finetune.collate import IGNORED, collate_for_training
from boxtune.finetune.talk import Talker

QUICK = {"r": 4, "epochs": 1, "micro_batch": 2, "effective_batch": 4, "learning_rate": 1e-3, "max_new_tokens": 6}
TURNS = (("user", "what is it?"), ("assistant", "a cat"), ("user", "sure?"), ("assistant", "yes"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_architecture("qwen2_vl", tmp_path_factory.mktemp("talk") / "model")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def chatty(folder: Path) -> Any:
    placement = choose_placement("none", "fp32")
    loaded = load_base(find_model(folder), placement, min_pixels=56 * 56, max_pixels=112 * 112)
    return loaded, build_encoder(loaded, ("red", "blue"))


@pytest.fixture(scope="module")
def write_mix(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    def write(image: Path) -> Path:
        path = tmp_path_factory.mktemp("mix") / "talk.jsonl"
        rows: list[dict[str, Any]] = [
            {"messages": [{"role": role, "content": text} for role, text in TURNS], "images": [str(image)] * (i % 2)}
            for i in range(12)
        ]
        path.write_text("\n".join(json.dumps(row) for row in rows))
        return path

    return write


def test_labels_are_the_last_answer_and_the_end_of_turn(chatty: Any, squares: Path) -> None:
    _, encoder = chatty
    image = squares / "train" / "001.png"
    talker = Talker(encoder)
    with_image = talker.encode(Conversation(images=(image,), turns=(("user", "<image>what?"), ("assistant", "red"))))
    plain = talker.encode(Conversation(images=(), turns=TURNS))
    batch = collate_for_training([with_image, plain], encoder.layout)
    texts = [encoder.tokenizer.decode(row[row != IGNORED]) for row in batch["labels"]]
    assert texts == ["red<|im_end|>", "yes<|im_end|>"]
    assert encoder.tokenizer.decode(plain.prompt_ids).count("<|im_start|>") == 4
    # Visual tokens for the one image, and pixels of it alone.
    num = int((batch["input_ids"] == encoder.layout.image_token_id).sum())
    assert num == 16 and batch["image_grid_thw"].tolist() == [[1, 8, 8]] and not plain.inputs


def test_conversations_and_images_stand_in_one_batch(
    chatty: Any, squares: Path, write_mix: Callable[[Path], Path]
) -> None:
    loaded, encoder = chatty
    samples = read_dataset(squares).splits["train"]
    talk = read_talk(encoder, str(write_mix(squares / "train" / "001.png")), 2048)
    assert len(talk.learned) == 11 and len(talk.kept_back) == 1
    epochs = Epochs(samples=samples, conversations=talk.learned, mix_share=0.3)
    collator = TrainingCollator(encoder, {"train": samples, "valid": samples}, refuse, epochs=epochs)
    kinds = [epochs.find(row, 0)[0] for row in range(collator.num_rows("train"))]
    assert kinds.count("mix") == 7 and kinds.count("train") == 16
    first = kinds.index("mix")
    batch = collator([{"split": "train", "i": i} for i in range(first - 1, first + 2)])
    with torch.no_grad():
        assert torch.isfinite(loaded.model(**batch).loss)


def test_measured_as_encoded(chatty: Any, squares: Path) -> None:
    _, encoder = chatty
    talker, image = Talker(encoder), squares / "train" / "001.png"
    for one in (
        Conversation(images=(image,), turns=(("user", "<image>what?"), ("assistant", "red"))),
        Conversation(images=(), turns=TURNS),
    ):
        example = talker.encode(one)
        assert talker.measure(one) == len(example.prompt_ids) + len(example.answer_ids)


def test_what_cannot_be_trained_on_is_refused_before(
    chatty: Any, squares: Path, write_mix: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, encoder = chatty
    assert read_talk(encoder, None, 10).learned == ()
    mix = write_mix(squares / "train" / "001.png")
    with pytest.raises(DataError, match=r"12 of 12 conversations are longer than the model's 10 positions"):
        read_talk(encoder, str(mix), 10)
    single = tmp_path / "one.jsonl"
    single.write_text(mix.read_text().splitlines()[0])
    with pytest.raises(DataError, match="a single conversation"):
        read_talk(encoder, str(single), 2048)
    monkeypatch.setattr(encoder.processor, "chat_template", "{{ raise_exception('System role not supported') }}")
    with pytest.raises(ModelError, match="System role not supported"):
        read_talk(encoder, str(mix), 2048)


def test_a_model_without_a_template_is_refused(encoder: Any) -> None:
    with pytest.raises(ModelError, match="no chat template"):
        Talker(encoder)


@pytest.mark.slow
def test_a_run_asks_what_was_kept_back(
    folder: Path, squares: Path, write_mix: Callable[[Path], Path], tmp_path: Path
) -> None:
    mix = write_mix(squares / "train" / "001.png")
    places = {"model": str(folder), "data": str(squares), "runs": str(tmp_path), "mix": str(mix), "mix_share": 0.3}
    run = boxtune.train(**places, **QUICK, min_pixels=56 * 56, max_pixels=112 * 112)
    (row,) = json.loads((run.folder.path / "general.json").read_text())
    assert row["question"] == "sure?" and row["answer"] == "yes" and isinstance(row["on"], str)
    assert row["loss_on"] < row["loss_off"]
