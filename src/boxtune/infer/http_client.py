"""One request to an OpenAI-compatible server: what it answered, or in which way it failed."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from boxtune.errors import ConfigError

CONNECT_S = 10.0
LATER = (429, 503)
"""Statuses by which a server says that it has not taken a request up."""
MOST_SAID = 300
"""Letters of a server's own words that are repeated."""
FAILING = 3
"""Failures in a row from which a server is left alone for a while, and is then asked by one request at a time."""
LOST = 8
"""Failures in a row before a server is given up, if it has also been failing for long enough."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long one waits, and how often one asks again.

    `timeout_s` is for a whole request, `tries` are for an image that a server takes up and fails with; the wait before
    the next grows from `first_wait_s` to `most_wait_s`, doubled each time and shortened by chance by up to a half. A
    server that has answered nothing for `lost_after_s` is given up.
    """

    timeout_s: float = 300.0
    tries: int = 6
    first_wait_s: float = 0.5
    most_wait_s: float = 15.0
    lost_after_s: float = 120.0

    def wait_s(self, num_failed: int, chance: float) -> float:
        """The wait behind so many failures; `chance` is a number from 0 to 1."""
        # No power of two that large is ever waited for.
        longest = min(self.first_wait_s * 2.0 ** min(num_failed - 1, 30), self.most_wait_s)
        return longest * (0.5 + 0.5 * chance)


ORDINARY = Patience()


class Failed(Exception):
    """A request that may go well another time.

    `gone`: nobody listens there. `status` is that of the reply, if there was one, and `after_s` how long the server
    wants to be left alone.
    """

    def __init__(self, why: str, *, gone: bool = False, status: int = 0, after_s: float = 0.0) -> None:
        super().__init__(why)
        self.gone, self.status, self.after_s = gone, status, after_s

    @property
    def counts(self) -> bool:
        """Whether the server had taken it up, so that the image may be the reason."""
        return not self.gone and self.status not in LATER


class Denied(Exception):
    """A request that will not go well another time, with the server's own words. Status 0: a reply of another kind."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status

    @property
    def is_for_all(self) -> bool:
        """Whether it is about the address, the key or the model, and so about every request."""
        return self.status in (401, 403, 404, 405) or 300 <= self.status < 400


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A server's answer.

    `ended` if the model ended it; `tokens` are the records of `logprobs`, as they came; `num_prompt` tokens were in the
    prompt, where the server says so.
    """

    text: str
    ended: bool
    tokens: tuple[Mapping[str, Any], ...] | None = None
    num_prompt: int | None = None


@dataclass(kw_only=True, eq=False)
class Server:
    """One server, and how it has fared.

    `url` is what `/chat/completions` stands behind. Once it has been `met` (`http_meet`) its `model` and the optional
    `fields` that it takes are known, whether it `scores` tokens, and whether it `keeps` the box tokens (None: it could
    not be told). One that fails again and again must be met again: it may have been started anew as something else.
    """

    url: str
    model: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    scores: bool = False
    keeps: bool | None = None
    met: bool = False
    given_up: str = ""
    num_failed: int = 0
    num_waits: int = 0
    failing_since: float = 0.0
    retry_at: float = 0.0

    @property
    def name(self) -> str:
        """Its address as it may be shown: without a password in it."""
        return str(httpx2.URL(self.url).copy_with(userinfo=b""))

    @property
    def sound(self) -> bool:
        """Whether it can be asked by many requests at a time: it is known, and has answered since it was left alone."""
        return self.met and not self.num_waits

    def succeed(self) -> None:
        """It has answered."""
        self.num_failed = self.num_waits = 0
        self.retry_at = 0.0

    def fail(self, failure: Failed, patience: Patience, chance: float) -> None:
        """It has not; where it is failing it is left alone for a while, and in the end it is given up."""
        now = time.monotonic()
        if not self.num_failed:
            self.failing_since = now
        self.num_failed += 1
        if self.num_failed >= FAILING or failure.gone or failure.after_s:
            self.met = False
            if now >= self.retry_at:
                self.num_waits += 1
                self.retry_at = now + patience.wait_s(self.num_waits, chance)
            self.retry_at = max(self.retry_at, now + min(failure.after_s, patience.lost_after_s))
        if self.num_failed >= LOST and now - self.failing_since >= patience.lost_after_s:
            self.given_up = str(failure)


def read_url(url: str) -> str:
    """The address without slashes at its end; ConfigError where it is none of HTTP."""
    try:
        parsed = httpx2.URL(url.strip())
    except httpx2.InvalidURL as error:
        raise _no_url(url, str(error)) from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise _no_url(url, "it does not begin with http:// or https:// and a host")
    return str(parsed).rstrip("/")


def _no_url(url: str, why: str) -> ConfigError:
    fix = "give the address that /chat/completions stands behind, such as http://localhost:8000/v1"
    return ConfigError(f"{url!r} is no address of a server: {why}", where="server", fix=fix)


class Caller:
    """Sends requests; use it as an async context. `key` is sent with each, and stands in no message."""

    def __init__(self, key: str | None, timeout_s: float) -> None:
        self._key, self._timeout_s = key, timeout_s
        self._client = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s)),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),
        )

    async def __aenter__(self) -> Caller:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._client.__aexit__(*error)

    async def names(self, url: str) -> list[str]:
        """The models that a server lists. Raises Failed and Denied."""
        listed = await self._send("GET", f"{url}/models")
        try:
            return [str(row["id"]) for row in listed["data"]]
        except (KeyError, TypeError) as error:
            raise Failed(f"its list of models cannot be read: {str(listed)[:MOST_SAID]}") from error

    async def ask(self, server: Server, body: Mapping[str, Any]) -> Reply:
        """The answer to a chat request. Raises Failed and Denied."""
        return _read_reply(await self._send("POST", f"{server.url}/chat/completions", body))

    async def _send(self, method: str, url: str, body: Mapping[str, Any] | None = None) -> Any:
        try:
            # httpx bounds the silence between two pieces; a reply that trickles in must end too.
            async with asyncio.timeout(self._timeout_s + CONNECT_S):
                response = await self._client.request(method, url, json=body)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
            raise Failed(f"it cannot be reached: {self._hide(error)}", gone=True) from error
        except (httpx2.TimeoutException, TimeoutError) as error:
            raise Failed(f"it did not answer within {self._timeout_s:g} s") from error
        except httpx2.RequestError as error:
            raise Failed(f"the connection broke off: {self._hide(error)}") from error
        return self._read(response)

    def _read(self, response: httpx2.Response) -> Any:
        status = response.status_code
        if status in LATER:
            after = _retry_after(response.headers.get("retry-after", ""))
            raise Failed(f"it wants to be asked later ({status}: {self._said(response)})", status=status, after_s=after)
        if status == 408 or status >= 500:
            raise Failed(f"it failed ({status}: {self._said(response)})", status=status)
        if status >= 300:
            raise Denied(status, f"{status}: {self._said(response)}")
        try:
            return response.json()
        except ValueError as error:
            raise Failed(f"its reply is no JSON: {self._hide(response.text[:MOST_SAID])!r}") from error

    def _said(self, response: httpx2.Response) -> str:
        """The server's own words for an error, as the known servers put them."""
        said: Any = response.headers.get("location") or response.text
        try:
            told = response.json()
        except ValueError:
            pass  # plain text is words too
        else:
            while isinstance(told, dict) and (inner := _first(told, "error", "detail", "message")) is not None:
                told = inner
            said = told
        return self._hide(str(said)[:MOST_SAID]) or "without a word"

    def _hide(self, said: object) -> str:
        """Words without the key, which a server may repeat."""
        return str(said).replace(self._key, "***") if self._key else str(said)


def _first(told: Mapping[str, Any], *names: str) -> Any:
    return next((told[name] for name in names if told.get(name)), None)


def _retry_after(told: str) -> float:
    """Seconds from now on, of a header that holds seconds or a date; 0 where it holds neither."""
    try:
        seconds = float(told)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def _read_reply(told: Any) -> Reply:
    """The reply in a chat completion's JSON; Failed where it is none, Denied where the server took it for more than
    text."""
    try:
        choice = told["choices"][0]
        message, reason = choice["message"], choice["finish_reason"]
        text = message.get("content")
        for name in ("reasoning_content", "reasoning", "tool_calls"):
            if message.get(name):
                why = f"it takes a part of the answer for {name}: start it without a parser for that"
                raise Denied(0, why)
        if reason in ("tool_calls", "content_filter", "function_call"):
            raise Denied(0, f"it ended the answer by {reason}")
        usage = told.get("usage") or {}
        num_prompt = usage.get("prompt_tokens")
        tokens = (choice.get("logprobs") or {}).get("content")
        known = isinstance(text, str | None) and isinstance(tokens, list | None) and isinstance(num_prompt, int | None)
        if not known or reason not in ("stop", "length"):
            raise ValueError(f"finish_reason {reason!r}")
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise Failed(f"its reply is no chat completion: {str(told)[:MOST_SAID]}") from error
    return Reply(
        text=text or "",
        ended=reason == "stop",
        # An empty list is that of an answer without a token.
        tokens=None if tokens is None else tuple(tokens),
        num_prompt=num_prompt,
    )
