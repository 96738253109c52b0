"""A run behind a server: what a question must repeat is taken from the run card, and no weights are needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from http_stand_in import TEMPLATE, answer_of, build_turn, paint, serving
from models import BUDGET
from squares import CLASSES

from boxtune.artifacts import RUN_CARD, read_json, write_json
from boxtune.cli import main
from boxtune.errors import ConfigError, DataError, ModelError
from boxtune.finetune.processors import save_processor
from boxtune.infer.confidence import Calibration
from boxtune.infer.http import HttpEngine
from boxtune.infer.served import load_served
from boxtune.run import find_source


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """The folder of a run, with what lies beside an adapter's weights."""
    encoder, folder = build_turn().encoder, tmp_path / "run" / "adapter"
    encoder.processor.chat_template = TEMPLATE
    save_processor(encoder.processor, find_source("tiny"), folder)
    card = {
        "model": "some/where", "family": "qwen2_vl", "prompt": encoder.prompt(CLASSES, ""), "classes": list(CLASSES),
        **BUDGET, "max_new_tokens": 70, "selection": {"nms": "class", "iou": 0.5, "most": 7},
        "calibration": {"label": 1.5}, "versions": {"boxtune": "0.0.9"},
    }  # fmt: skip
    write_json(folder / RUN_CARD, card)
    return folder


def nobody(model: str, family: str) -> Any:
    raise AssertionError("the base is not asked for")


def change_card(adapter: Path, **values: Any) -> None:
    write_json(adapter / RUN_CARD, {**read_json(adapter / RUN_CARD), **values})


def test_a_run_is_served(adapter: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOXTUNE_API_KEY", "from the environment")
    with serving(key="from the environment") as server:
        for folder in (adapter, adapter.parent):
            predictor = load_served(folder, nobody, urls=server.url, at_once=3)
            assert predictor.classes == CLASSES
            boxes = predictor.predict([paint(4), paint(5)])
            assert [found.labels for found in boxes] == [("red",), ("blue",)]
            assert [answer.text for answer in predictor.answer([paint(6)])] == [answer_of(6)]
    engine = predictor.engine
    assert isinstance(engine, HttpEngine)
    assert (engine.max_new_tokens, engine.budget, engine.at_once) == (70, tuple(BUDGET.values()), 3)
    assert engine.calibration == Calibration(label=1.5) and engine.selection.most == 7
    said = capsys.readouterr().out
    assert said.count("warn served.scores: the server gives no log-probabilities: its boxes have no scores") == 2
    assert "from the environment" not in said


def test_addresses_may_stand_in_one_text(adapter: Path) -> None:
    with serving() as one, serving() as two:
        predictor = load_served(adapter, nobody, urls=f"{one.url},{two.url}")
        assert [server.url for server in predictor.engine.servers] == [one.url, two.url]  # type: ignore[attr-defined]


def test_errors_come_before_any_image(adapter: Path) -> None:
    with serving(key="right") as server, pytest.raises(ConfigError, match="wants another key"):
        load_served(adapter, nobody, urls=[server.url], api_key="wrong")
    with pytest.raises(DataError, match="there is no adapter of boxtune's"):
        load_served(adapter.parent.parent, nobody, urls="http://127.0.0.1:1/v1")


def test_a_changed_prompt_is_refused(adapter: Path) -> None:
    change_card(adapter, prompt="another")
    with pytest.raises(ModelError, match="asks with another prompt") as caught:
        load_served(adapter, nobody, urls="http://127.0.0.1:1/v1")
    assert caught.value.fix == "use boxtune 0.0.9"


def test_a_family_of_another_version_is_refused(adapter: Path) -> None:
    change_card(adapter, family="qwen9")
    with pytest.raises(ModelError, match="there is no family 'qwen9'"):
        load_served(adapter, nobody, urls="http://127.0.0.1:1/v1")


def test_a_model_without_a_chat_template_is_refused(adapter: Path) -> None:
    (adapter / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="has no chat template") as caught:
        load_served(adapter, nobody, urls="http://127.0.0.1:1/v1")
    assert caught.value.where == str(adapter)


def test_the_base_is_asked_for_what_is_not_beside_the_adapter(adapter: Path) -> None:
    (adapter / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="has no chat template"):  # the embedded model has none
        load_served(adapter, lambda model, family: find_source("tiny"), urls="http://127.0.0.1:1/v1")


def test_a_broken_tokenizer_is_said(adapter: Path) -> None:
    (adapter / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="tokenizer cannot be used"):
        load_served(adapter, nobody, urls="http://127.0.0.1:1/v1")


def test_predict_asks_a_server(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for place in range(5):
        paint(place).save(images / f"{place}.png")
    (adapter / "adapter_model.safetensors").write_bytes(b"weights that nobody loads")
    with serving() as server:
        words = ["predict", str(adapter.parent), str(images), f"out={tmp_path / 'out'}", f"server={server.url}"]
        assert main([*words, "at_once=2"]) == 0
        written = tmp_path / "out" / "predictions.json"
        rows = read_json(written)
        assert [row["answer"] for row in rows] == [answer_of(place) for place in range(5)]
        assert all(box["score"] is None for row in rows for box in row["boxes"])
        assert "5 requests, 0 of them again" in capsys.readouterr().out
        # Again: all is answered.
        assert main([*words, "at_once=2"]) == 0 and read_json(written) == rows
    assert main([*words[:3], f"out={tmp_path / 'other'}", "server=http://127.0.0.1:1/v1"]) == 2
