"""Images answered by servers that fail in every way: each once, in its place, or said to have failed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from http_stand_in import HURRIED, Asked, Behaviour, Fault, StandIn, answer_of, build_turn, paint, serving

from boxtune.data.tiles import Tiling
from boxtune.errors import ConfigError, DataError, ModelError
from boxtune.infer import Answer
from boxtune.infer.http import HttpEngine

NOTHING = "There are none."


def build_engine(*servers: StandIn | str, **more: Any) -> HttpEngine:
    """An engine in a hurry."""
    urls = [server if isinstance(server, str) else server.url for server in servers]
    given = {"turn": build_turn(), "max_new_tokens": 80, "each": 4, "patience": HURRIED}
    return HttpEngine(urls=urls, **{**given, **more})


def ask(engine: HttpEngine, places: Sequence[int], **how: Any) -> dict[int, Answer | DataError]:
    """What is answered, by place; each place once."""
    images = [paint(place) for place in places]
    found = list(
        engine.iter_answers([lambda image=image: image for image in images], sizes=[i.size for i in images], **how)
    )
    assert len(found) == len({place for place, _ in found}), "a place came twice"
    return dict(found)


def texts(found: dict[int, Answer | DataError]) -> dict[int, str]:
    """The answers' texts; none may have failed."""
    assert all(isinstance(answer, Answer) for answer in found.values()), found
    return {place: answer.text for place, answer in sorted(found.items()) if isinstance(answer, Answer)}


def expected(places: Sequence[int]) -> dict[int, str]:
    return {at: answer_of(place) for at, place in enumerate(places)}


def test_each_image_gets_its_own_answer() -> None:
    with serving() as one, serving() as two:
        engine = build_engine(one, two)
        assert texts(ask(engine, range(60))) == expected(range(60))
        assert sorted((one.seen + two.seen).values()) == [1] * 60 + [2]  # the blank image once at each
        assert min(len(one.bodies), len(two.bodies)) > 5
        assert max(one.most_open, two.most_open) <= 4
        assert (
            engine.at_once == 8
            and [finding.check for finding in engine.findings] == ["served.scores"] * 2
            and engine.tally["retries"] == 0
        )


def test_boxes_are_those_of_the_answer() -> None:
    with serving() as server:
        answer = ask(build_engine(server), [3])[0]
        assert isinstance(answer, Answer)
        x, y = 112 / 1000, 112 / 1000
        assert answer.boxes.xyxy_px.round(6).tolist() == [[round(v, 6) for v in (3 * x, 0, 103 * x, 200 * y)]]
        assert answer.boxes.labels == ("blue",) and answer.problems == () and not answer.truncated
        assert answer.num_swayed is None


def test_the_request_is_greedy_and_asks_for_the_trained_prompt() -> None:
    with serving() as server:
        ask(build_engine(server), [0])
        body = server.bodies[-1]
        assert (body["temperature"], body["max_tokens"], body["model"]) == (0.0, 80, "tuned")
        assert body["skip_special_tokens"] is False and body["repetition_penalty"] == 1.0
        assert not {"top_p", "top_k", "seed", "stream", "logit_bias"} & set(body)
        assert body["messages"][0]["content"][1]["text"] == "Detect the bounding box of each: red, blue."


def test_an_image_is_asked_for_its_own_classes() -> None:
    with serving() as server:
        ask(build_engine(server), [0, 2], classes=[("red",), ("blue", "red")])
        words = {body["messages"][0]["content"][1]["text"] for body in server.bodies[1:]}
        assert words == {"Detect the bounding box of each: red.", "Detect the bounding box of each: blue, red."}


def test_parts_are_the_batches_of_the_whole() -> None:
    with serving() as server:
        parts = [ask(build_engine(server), range(21), part=(number, 3)) for number in range(3)]
        assert [sorted(part) for part in parts] == [[0, 1, 2, 3, 12, 13, 14, 15], [4, 5, 6, 7, 16, 17, 18, 19],
                                                    [8, 9, 10, 11, 20]]  # fmt: skip


FAULTS: dict[str, Fault] = {
    "timeout": "hang",
    "reset": "drop",
    "half": "half",
    "garbage": "garbage",
    "other_json": "other",
    "internal": 500,
    "gateway": 502,
    "unavailable": 503,
    "gateway_timeout": 504,
    "request_timeout": 408,
    "too_many": (429, {"Retry-After": "0.1"}),
    "too_many_date": (429, {"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_what_failed_is_asked_again(fault: Fault) -> None:
    def fails(asked: Asked) -> Fault:
        return fault if asked.place % 4 == 1 and asked.before < 2 else None

    with serving(fails=fails) as server:
        engine = build_engine(server)
        assert texts(ask(engine, range(8))) == expected(range(8))
        assert [server.seen[place] for place in range(8)] == [1, 3, 1, 1, 1, 3, 1, 1]
        assert engine.tally["retries"] == 4


def test_what_still_fails_is_said_and_the_others_go_on() -> None:
    with serving(fails=lambda asked: 500 if asked.place == 5 else None) as server:
        found = ask(build_engine(server), range(12))
        error = found.pop(5)
        assert isinstance(error, DataError) and server.seen[5] == HURRIED.tries
        assert "image 6 of 12 has no answer: 4 requests failed, the last: it failed (500: told so)" in error.what
        assert texts(found) == {at: text for at, text in expected(range(12)).items() if at != 5}


def test_a_request_that_is_refused_is_not_repeated() -> None:
    with serving(fails=lambda asked: 400 if asked.place == 2 else None) as server:
        found = ask(build_engine(server), range(4))
        error = found.pop(2)
        assert isinstance(error, DataError) and server.seen[2] == 1
        assert "the server refuses it (400: told so)" in error.what
        assert len(texts(found)) == 3


def test_a_retry_goes_to_another_server() -> None:
    with serving(fails=lambda asked: None if asked.is_probe else 500) as broken, serving() as sound:
        assert texts(ask(build_engine(broken, sound), range(40))) == expected(range(40))
        # A server that fails again and again is asked by one request at a time.
        assert sum(broken.seen.values()) < 18


def test_an_image_that_cannot_be_opened_is_not_asked_for() -> None:
    def broken() -> Any:
        raise DataError("the file is cut off", where="a.png")

    with serving() as server:
        images = [broken, lambda: paint(1)]
        found = dict(build_engine(server).iter_answers(images, sizes=[(112, 112)] * 2))
        assert isinstance(found[0], DataError) and found[0].what == "the file is cut off"
        assert isinstance(found[1], Answer) and len(server.bodies) == 2


def test_a_shape_that_the_model_cannot_be_shown_is_said() -> None:
    with serving() as server:
        images = [lambda: paint(1).resize((3, 900))]
        (found,) = dict(build_engine(server).iter_answers(images, sizes=[(3, 900)])).values()
        assert isinstance(found, DataError) and "cannot be shown to the model" in found.what


def test_an_answer_without_its_end_is_truncated() -> None:
    with serving() as server:
        answer = ask(build_engine(server, max_new_tokens=5), [1])[0]
        assert isinstance(answer, Answer) and answer.truncated
        assert [problem.kind for problem in answer.problems] == ["truncated"]


def test_what_stands_behind_the_end_of_turn_does_not_count() -> None:
    with serving(answer=lambda place: answer_of(place) + "<|im_end|>\nand more") as server:
        found = ask(build_engine(server), [1])
        assert texts(found) == {0: answer_of(1)}


@pytest.mark.parametrize("at_start", [True, False])
def test_a_server_may_be_restarted(at_start: bool) -> None:
    """For longer than all waits between the tries of one image, and while others wait."""
    with serving(seconds=0.02) as first:
        port = first.server_address[1]
        engine = build_engine(first, patience=replace(HURRIED, tries=3, most_wait_s=0.2, lost_after_s=20.0))
        images = [paint(place) for place in range(60)]
        answers = engine.iter_answers([lambda i=i: i for i in images], sizes=[i.size for i in images])
        found = dict([next(answers) for _ in range(1 if at_start else 20)])
    again = threading.Timer(1.5, lambda: started.append(serving(port=port)) or started[0].__enter__())
    started: list[Any] = []
    again.start()
    try:
        found |= dict(answers)
        assert texts(found) == expected(range(60))
    finally:
        again.join()
        started[0].__exit__(None, None, None)


def test_a_server_that_is_gone_does_not_end_the_work_of_another() -> None:
    with serving(seconds=0.05) as sound:
        with serving(seconds=0.05) as gone:
            engine = build_engine(sound, gone, patience=replace(HURRIED, most_wait_s=0.05, lost_after_s=0.1))
            images = [paint(place) for place in range(120)]
            answers = engine.iter_answers([lambda i=i: i for i in images], sizes=[i.size for i in images])
            found = dict([next(answers) for _ in range(10)])
        found |= dict(answers)
        assert texts(found) == expected(range(120))
        assert [f.where for f in engine.findings if f.check == "served.left_out"] == [gone.url]
        # It is looked for again with the next images, and they do not wait for it.
        assert texts(ask(engine, range(4))) == expected(range(4))
        with serving(port=gone.server_address[1]) as back:
            assert texts(ask(engine, range(40))) == expected(range(40))
            assert len(back.bodies) > 1


def test_without_any_server_the_rest_has_failed() -> None:
    with serving(seconds=0.02) as gone:
        engine = build_engine(gone)
        images = [paint(place) for place in range(50)]
        opened: list[int] = []
        openers = [lambda at=at, image=image: (opened.append(at), image)[1] for at, image in enumerate(images)]
        answers = engine.iter_answers(openers, sizes=[image.size for image in images])
        found = dict([next(answers) for _ in range(5)])
    found |= dict(answers)
    assert sorted(found) == [*range(50)]
    failed = [answer for answer in found.values() if isinstance(answer, DataError)]
    assert len(failed) >= 30 and all("no server is left" in error.what for error in failed[-20:])
    assert len(opened) < 30 and len(set(opened)) == len(opened)
    with pytest.raises(ConfigError, match="no server answers"):
        ask(engine, range(2))


def test_a_server_whose_key_is_withdrawn_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(key="secret") as server:
        engine = build_engine(server, key="secret")
        engine.require_served()
        server.behaviour.key = "another"
        (error,) = ask(engine, [1]).values()
        assert isinstance(error, DataError) and "no longer answers for 'tuned' (401: no)" in error.what


def test_nobody_waits_for_a_server_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boxtune.infer.http.GRACE_S", 0.2)
    begin = time.monotonic()
    with serving() as sound, serving(fails=lambda asked: "hang", hang_s=100.0) as hanging:
        engine = build_engine(hanging, sound, patience=replace(HURRIED, timeout_s=60.0))
        assert texts(ask(engine, range(20))) == expected(range(20))
        assert len(hanging.bodies) == 2 and not engine.servers[0].met
    assert time.monotonic() - begin < 30


def test_a_server_that_comes_back_as_another_is_left() -> None:
    """Behind a gateway, where nobody sees that it was gone."""
    with serving() as server:
        how = server.behaviour

        def fails(asked: Asked) -> Fault:
            if len(server.bodies) < 10:
                return None
            if len(server.bodies) > 30:
                how.strips, how.heeds_fields = True, False
                return None
            return 502

        how.fails = fails
        found = ask(build_engine(server, patience=replace(HURRIED, tries=20, lost_after_s=20.0)), range(30))
        failed = [answer for answer in found.values() if isinstance(answer, DataError)]
        assert len(failed) >= 20 and all("the tokens that mark boxes out of its answers" in e.what for e in failed)


def test_images_are_opened_as_they_are_wanted() -> None:
    opened: list[int] = []

    def opener(place: int) -> Callable[[], Any]:
        return lambda: (opened.append(place), paint(place))[1]

    with serving() as server:
        answers = build_engine(server).iter_answers([opener(i) for i in range(100)], sizes=[(112, 112)] * 100)
        next(answers)
        threading.Event().wait(0.5)
        assert len(opened) <= 10
        answers.close()  # type: ignore[attr-defined]
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("boxtune")]
        assert len(opened) <= 14


def test_an_error_of_ours_is_raised() -> None:
    def wrong() -> Any:
        raise ZeroDivisionError("a bug")

    with serving() as server, pytest.raises(ZeroDivisionError, match="a bug"):
        list(build_engine(server).iter_answers([wrong], sizes=[(112, 112)]))


def test_tiles_are_answered_without_scores() -> None:
    turn = build_turn(tiling=Tiling(size=112, overlap=0.2, min_visible=0.5))
    with serving() as server:
        answer = ask(build_engine(server, turn=turn), [4])[0]
        assert isinstance(answer, Answer) and answer.boxes.scores is None and len(answer.boxes) == 1


def test_behaviour_is_as_told() -> None:
    """The stand-in's own count of a prompt is that of training."""
    turn = build_turn()
    assert Behaviour(turn=turn).answer(1) == answer_of(1)
    with serving() as server, pytest.raises(ModelError, match="a prompt of"):
        server.behaviour.more_tokens = 1
        build_engine(server).require_served()
