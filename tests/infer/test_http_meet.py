"""A server is asked for what it is before it is trusted with an image, and refused with the reason."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from http_stand_in import HURRIED, StandIn, answer_of, build_turn, paint, serving

from boxtune.errors import ConfigError, ModelError
from boxtune.infer import Answer
from boxtune.infer.http import HttpEngine
from boxtune.infer.http_meet import Need


def build_engine(*servers: StandIn | str, **more: Any) -> HttpEngine:
    urls = [server if isinstance(server, str) else server.url for server in servers]
    return HttpEngine(urls=urls, **{"turn": build_turn(), "max_new_tokens": 80, "patience": HURRIED, **more})


def ask(engine: HttpEngine, *places: int) -> list[Any]:
    images = [paint(place) for place in places]
    found = dict(engine.iter_answers([lambda i=i: i for i in images], sizes=[i.size for i in images]))  # type: ignore[misc]
    return [found[at] for at in range(len(images))]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_the_key_is_sent_and_never_shown() -> None:
    with serving(key="sk-secret") as server:
        build_engine(server, key="sk-secret").require_served()
        for key in (None, "sk-other"):
            engine = build_engine(server, key=key)
            with pytest.raises(ConfigError, match="wants another key") as caught:
                engine.require_served()
            assert "BOXTUNE_API_KEY" in caught.value.fix
            assert "sk-other" not in f"{caught.value} {engine!r}"


def test_the_only_model_is_taken() -> None:
    with serving(models=("one",)) as server:
        engine = build_engine(server)
        engine.require_served()
        assert engine.servers[0].model == "one"


def test_of_several_models_one_must_be_named() -> None:
    with serving(models=("base", "tuned")) as server:
        with pytest.raises(ConfigError, match="serves 2 models: base, tuned") as caught:
            build_engine(server).require_served()
        assert "served=NAME" in caught.value.fix
        ask(build_engine(server, served="tuned"), 1)
        assert server.bodies[-1]["model"] == "tuned"


def test_a_model_that_is_not_served_is_refused_with_those_that_are() -> None:
    with serving(models=("base", "tuned")) as server, pytest.raises(ModelError) as caught:
        build_engine(server, served="tunde").require_served()
    assert "The model `tunde` does not exist." in caught.value.what and "it lists base, tuned" in caught.value.what


def test_a_server_without_a_list_needs_a_name() -> None:
    with serving(models=None) as server:
        with pytest.raises(ConfigError, match="does not list its models"):
            build_engine(server).require_served()
        assert [answer.text for answer in ask(build_engine(server, served="any"), 3)] == [answer_of(3)]


def test_an_address_without_its_version_is_put_right() -> None:
    with serving() as server:
        engine = build_engine(server.url.removesuffix("/v1") + "/")
        assert ask(engine, 3)[0].text == answer_of(3)
        assert engine.servers[0].url == server.url


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x/v1", "http://", "", "http://x:port/v1"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="is no address of a server"):
        build_engine(url)


def test_without_any_address() -> None:
    with pytest.raises(ConfigError, match="no server is named"):
        build_engine()


def test_a_password_in_an_address_is_not_shown() -> None:
    engine = build_engine(f"http://user:pass@127.0.0.1:{free_port()}/v1")
    with pytest.raises(ConfigError, match="no server answers") as caught:
        engine.require_served()
    assert "pass" not in str(caught.value) and "127.0.0.1" in caught.value.where


def test_one_of_two_servers_may_be_down_at_the_start() -> None:
    with serving() as server:
        engine = build_engine(server, f"http://127.0.0.1:{free_port()}/v1")
        assert [answer.text for answer in ask(engine, 1, 2, 3)] == [answer_of(place) for place in (1, 2, 3)]


def test_one_of_two_servers_with_another_model_is_refused() -> None:
    with serving() as server, serving(models=("other",)) as other, pytest.raises(ModelError, match="'tuned'"):
        build_engine(server, other, served="tuned").require_served()


def test_another_prompt_is_refused() -> None:
    with (
        serving(more_tokens=3) as server,
        pytest.raises(ModelError, match="makes a prompt of 58 tokens where the adapter was trained with 55"),
    ):
        build_engine(server).require_served()


def test_an_image_that_is_seen_at_another_size_is_said() -> None:
    with serving() as server:
        engine = build_engine(server)
        engine.require_served()
        server.behaviour.more_tokens = -4
        (error,) = ask(engine, 5)
        assert "saw image 1 of 1 in a prompt of" in error.what


@pytest.mark.parametrize("name", ["reasoning_content", "tool_calls"])
def test_a_server_that_takes_answers_apart_is_refused(name: str) -> None:
    with serving(message={name: "a part"}) as server, pytest.raises(ModelError, match=f"for {name}: start it without"):
        build_engine(server).require_served()


def test_a_server_that_strips_box_tokens_is_refused() -> None:
    with serving(strips=True, heeds_fields=False) as server, pytest.raises(ModelError) as caught:
        ask(build_engine(server), 1)
    assert "so that no box could be read: asked for '<|box_end|>' it answered with nothing" in caught.value.what
    assert len(server.bodies) == 1


def test_a_server_that_keeps_them_when_asked_is_served() -> None:
    with serving(strips=True) as server:
        engine = build_engine(server)
        assert ask(engine, 1)[0].text == answer_of(1) and engine.servers[0].keeps is True


def test_what_cannot_be_told_beforehand_is_told_by_the_answers() -> None:
    """The bias is not heeded: an answer must show a box token, or be the one for nothing."""
    with serving(heeds_bias=False, answer=lambda place: answer_of(place) if place > 1 else "There are none.") as server:
        engine = build_engine(server, each=1)
        engine.require_served()
        assert engine.servers[0].keeps is None
        assert [finding.check for finding in engine.findings] == ["served.scores", "served.box_tokens"]
        assert [len(answer.boxes) for answer in ask(engine, 0, 1)] == [0, 0] and engine.servers[0].keeps is None
        assert [len(answer.boxes) for answer in ask(engine, 2, 0)] == [1, 0] and engine.servers[0].keeps is True


def test_stripped_answers_are_never_read_as_nothing_found() -> None:
    with serving(heeds_bias=False, strips=True, heeds_fields=False) as server:
        engine = build_engine(server)
        with pytest.raises(ModelError, match=r"'blue\(1,0\),\(101,200\)' holds none of <\|box_end\|>"):
            ask(engine, 1)


def test_a_grammar_of_plain_text_is_served_even_so() -> None:
    turn = build_turn(family="qwen2_5_vl")
    text = '```json\n[\n\t{"bbox_2d": [10, 20, 30, 40], "label": "red"}\n]\n```'
    with serving(strips=True, heeds_fields=False, turn=turn, answer=lambda place: text) as server:
        engine = build_engine(server, turn=turn)
        (answer,) = ask(engine, 1)
        assert isinstance(answer, Answer) and len(answer.boxes) == 1
        assert "logit_bias" not in server.bodies[0] and engine.servers[0].keeps is True


@pytest.mark.parametrize(
    ("refuses", "kept"),
    [
        (("return_tokens_as_token_ids",), {"skip_special_tokens", "repetition_penalty", "logprobs"}),
        (("logprobs", "top_logprobs"), {"skip_special_tokens", "repetition_penalty"}),
        (("skip_special_tokens", "repetition_penalty"), {"logprobs"}),
        (("logit_bias",), {"skip_special_tokens", "repetition_penalty", "logprobs", "return_tokens_as_token_ids"}),
    ],
)
def test_fields_that_a_server_refuses_are_left_away(refuses: tuple[str, ...], kept: set[str]) -> None:
    optional = {"skip_special_tokens", "repetition_penalty", "logprobs", "return_tokens_as_token_ids", "logit_bias"}
    with serving(refuses=refuses) as server:
        (answer,) = ask(build_engine(server), 1)
        assert answer.text == answer_of(1)
        assert optional & set(server.bodies[-1]) == kept


def test_a_server_that_refuses_everything_is_refused_with_its_words() -> None:
    with serving(refuses=("messages",)) as server, pytest.raises(ModelError, match="422: Unexpected fields"):
        build_engine(server).require_served()


def test_which_families_need_their_tokens() -> None:
    """Found out by reading answers without them: the turn's own family decides."""
    needed = {
        name: Need(turn=build_turn(family=name), served=None, max_new_tokens=1).box_tokens
        for name in ("qwen2_vl", "qwen2_5_vl")
    }
    tags = {"<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>"}
    assert set(needed["qwen2_vl"]) == tags and needed["qwen2_5_vl"] == ()
