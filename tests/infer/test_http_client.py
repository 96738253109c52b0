"""What a reply means, how long one waits, and when a server is given up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from boxtune.infer import http_client
from boxtune.infer.http_client import Denied, Failed, Patience, Server, _read_reply, _retry_after


def reply(**changed: Any) -> dict[str, Any]:
    choice = {"message": {"content": "a"}, "finish_reason": "stop", **changed}
    return {"choices": [choice], "usage": {"prompt_tokens": 7}}


def test_waits_grow_to_a_bound() -> None:
    patience = Patience(first_wait_s=1.0, most_wait_s=10.0)
    assert [patience.wait_s(number, 1.0) for number in (1, 2, 3, 4, 5, 100_000)] == [1, 2, 4, 8, 10, 10]
    assert patience.wait_s(3, 0.0) == 2


def test_when_to_ask_again() -> None:
    assert _retry_after("2.5") == 2.5
    assert _retry_after("") == _retry_after("soon") == _retry_after("-3") == _retry_after("nan") == 0
    assert 50 < _retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=60))) <= 60
    assert _retry_after("Thu, 01 Jan 1970 00:00:00 GMT") == 0


def test_a_reply_is_read() -> None:
    read = _read_reply(reply(logprobs={"content": [{"token": "a", "logprob": -1}]}))
    assert (read.text, read.ended, read.num_prompt) == ("a", True, 7)
    assert read.tokens is not None and len(read.tokens) == 1
    assert _read_reply({**reply(finish_reason="length"), "usage": None}).num_prompt is None
    assert not _read_reply(reply(finish_reason="length")).ended
    assert _read_reply(reply(message={"content": None})).text == ""


@pytest.mark.parametrize(
    "told",
    [
        [], {}, "text", {"choices": []}, {"choices": [{}]}, reply(finish_reason=None), reply(finish_reason="abort"),
        reply(message=None), reply(message={"content": 7}), reply(logprobs={"content": "a"}),
        {**reply(), "usage": {"prompt_tokens": "many"}}, {**reply(), "usage": [7]},
    ],
)  # fmt: skip
def test_what_is_no_reply_has_failed(told: Any) -> None:
    with pytest.raises(Failed, match="its reply is no chat completion"):
        _read_reply(told)


@pytest.mark.parametrize("reason", ["tool_calls", "content_filter"])
def test_an_answer_that_was_taken_for_something_else_is_denied(reason: str) -> None:
    with pytest.raises(Denied, match=reason):
        _read_reply(reply(finish_reason=reason))


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(http_client, "time", clock)
    return clock


def test_a_failing_server_is_asked_less_and_less_and_given_up(clock: Clock) -> None:
    server, patience = (
        Server(url="http://x/v1", met=True),
        Patience(first_wait_s=1.0, most_wait_s=8.0, lost_after_s=20.0),
    )
    waits = []
    for _ in range(20):
        if server.given_up:
            break
        server.fail(Failed("it failed"), patience, 1.0)
        waits.append(server.retry_at - clock.now)
        clock.now = max(clock.now, server.retry_at)
    assert waits[2:] == [1, 2, 4, 8, 8, 8] and server.given_up == "it failed"
    assert clock.now - 100 >= 20


def test_one_success_ends_the_waits(clock: Clock) -> None:
    server, patience = Server(url="http://x/v1", met=True), Patience()
    for _ in range(http_client.FAILING):
        assert server.met
        server.fail(Failed("it failed"), patience, 1.0)
    assert not server.met and server.num_failed == 3 and server.retry_at > clock.now
    server.succeed()
    assert server.num_failed == 0 and server.retry_at == 0


def test_many_failures_at_once_are_one_wait(clock: Clock) -> None:
    server, patience = Server(url="http://x/v1", met=True), Patience(first_wait_s=1.0)
    for _ in range(16):
        server.fail(Failed("the connection broke off"), patience, 1.0)
    assert server.num_waits == 1 and server.retry_at == clock.now + 1 and not server.given_up


def test_a_server_is_left_alone_as_long_as_it_says(clock: Clock) -> None:
    server, patience = Server(url="http://x/v1", met=True), Patience(lost_after_s=50.0)
    server.fail(Failed("later", status=429, after_s=30.0), patience, 1.0)
    assert not server.met and server.retry_at == clock.now + 30
    server.fail(Failed("later", status=429, after_s=1000.0), patience, 1.0)
    assert server.retry_at == clock.now + 50
