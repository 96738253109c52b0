"""Images spread over servers: each is answered once, or said to have failed, whatever the servers do meanwhile.

Every server takes images by itself, so many at a time, so that a fast one takes more. An image that a server fails with
waits and goes to another one if there is one; after a number of tries it is given up. A server that fails several times
in a row is tried on a blank image, then on one of them, with longer and longer waits, until it answers or has been
failing for too long. Once no server is left all images that are not answered have failed.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import Any

from boxtune.errors import ConfigError, DataError, Finding, ModelError
from boxtune.families import Frame
from boxtune.infer.engine import Opener
from boxtune.infer.http_client import Caller, Denied, Failed, Patience, Reply, Server
from boxtune.infer.http_meet import Need, meet
from boxtune.infer.http_turn import show

THREADS = 8
"""Images that are opened, resized and packed at the same time, at most."""
LOOK_S = 0.05
"""How often it is looked whether somebody has taken the answers that are there."""


@dataclass(kw_only=True, eq=False)
class Job:
    """One image: its place, and what has been made of it so far. `name` stands for it in messages."""

    place: int
    name: str
    opener: Opener
    classes: tuple[str, ...]
    url: str = ""
    frame: Frame | None = None
    num_tries: int = 0
    ready_at: float = 0.0
    failed_at: Server | None = None


class Pool:
    """The work of one call: jobs that are new, that wait for another try, and that are on their way.

    `num_open` replies at most are waited for or wait to be taken from `settled`, which holds (job, server, reply), or
    (job, server or None, DataError). `tally` counts requests and retries.
    """

    def __init__(
        self,
        jobs: Iterable[Job],
        servers: Iterable[Server],
        need: Need,
        *,
        at_once: int,
        patience: Patience,
        settled: SimpleQueue[Any],
        tally: Counter[str],
        tell: Callable[[Finding], None],
        in_turn: bool,
    ) -> None:
        self._new, self._waiting, self._num_running = deque(jobs), list[Job](), 0
        self._servers, self._need, self._at_once, self._patience = tuple(servers), need, at_once, patience
        self._settled, self._tally, self._tell = settled, tally, tell
        self._num_open = 2 * at_once * len(self._servers)
        self._changed = asyncio.Condition()
        self._alone = {server: asyncio.Lock() for server in self._servers}
        self._opening = asyncio.Lock() if in_turn else None
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="boxtune-image")

    async def run(self, caller: Caller) -> None:
        """Put every job into `settled` once."""
        with self._threads:
            async with asyncio.TaskGroup() as group:
                takers = [self._serve(server, caller) for server in self._servers for _ in range(self._at_once)]
                group.create_task(self._end([group.create_task(taker) for taker in takers]))
            for job in (*self._waiting, *self._new):
                why = "; ".join(f"{server.name}: {server.given_up}" for server in self._servers)
                self._settled.put((job, None, _failed(job, f"no server is left ({why})")))

    async def _end(self, takers: list[asyncio.Task[None]]) -> None:
        """Wait until all is done, and for no server that has not even been met by then."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._is_done or all(server.given_up for server in self._servers))
        if self._is_done:
            for taker in takers:
                taker.cancel()

    async def _serve(self, server: Server, caller: Caller) -> None:
        """What one of a server's takers does until nothing is left to do, or the server is given up."""
        go_on = True
        while go_on and not server.given_up:
            if server.sound:
                go_on = await self._answer_one(server, caller)
                continue
            async with self._alone[server]:
                if not server.sound and not server.given_up and await self._rest(server.retry_at):
                    if not server.met:
                        await self._meet(server, caller)
                    if server.met and not server.sound:
                        await self._answer_one(server, caller)
            go_on = not self._is_done

    async def _meet(self, server: Server, caller: Caller) -> None:
        try:
            for finding in await meet(caller, server, self._need):
                self._tell(finding)
        except Failed as failure:
            server.fail(failure, self._patience, random.random())
        except (ConfigError, ModelError) as error:
            server.given_up = error.what
        if server.given_up:
            self._leave_out(server)
            async with self._changed:  # others need not wait for it any more
                self._changed.notify_all()

    async def _answer_one(self, server: Server, caller: Caller) -> bool:
        """Whether there was something left to do."""
        job = await self._take(server)
        if job is None:
            return False
        outcome: Reply | DataError | None = None
        try:
            if job.frame is None:
                await self._prepare(job)
            self._tally["requests"] += 1
            self._tally["retries"] += job.failed_at is not None
            body = self._need.body(server.model, server.fields, job.url, job.classes)
            outcome = await caller.ask(server, body)
            server.succeed()
        except DataError as error:  # the image cannot be opened
            outcome = error
        except Failed as failure:
            outcome = self._judge(job, server, failure)
        except Denied as denied:
            if denied.is_for_all:
                server.given_up = f"it no longer answers for {server.model!r} ({denied})"
                self._leave_out(server)
            else:
                server.succeed()
                outcome = _failed(job, f"the server refuses it ({denied})", server)
        finally:
            await self._put(job, server, outcome)
        return True

    def _judge(self, job: Job, server: Server, failure: Failed) -> DataError | None:
        """What has become of a job that failed; None where it is to be tried again."""
        server.fail(failure, self._patience, random.random())
        if server.given_up:
            self._leave_out(server)
        job.failed_at = server
        if failure.counts:
            job.num_tries += 1
            job.ready_at = time.monotonic() + self._patience.wait_s(job.num_tries, random.random())
        if job.num_tries < self._patience.tries:
            return None
        return _failed(job, f"{job.num_tries} requests failed, the last: {failure}", server)

    def _leave_out(self, server: Server) -> None:
        seen = f"the server is left out: {server.given_up}"
        self._tell(Finding(check="served.left_out", level="warn", seen=seen, where=server.name))

    async def _prepare(self, job: Job) -> None:
        """Open the image and pack it, beside the loop; where it is a tile of one that others share, in turn."""
        loop = asyncio.get_running_loop()
        if self._opening is None:
            image = await loop.run_in_executor(self._threads, job.opener)
        else:
            async with self._opening:
                image = await loop.run_in_executor(self._threads, job.opener)
        job.url, job.frame = await loop.run_in_executor(self._threads, show, image, self._need.encoder)

    @property
    def _is_done(self) -> bool:
        return not (self._new or self._waiting or self._num_running)

    async def _take(self, server: Server) -> Job | None:
        """The next job for a server, once there is one; None if there will be none."""
        async with self._changed:
            while True:
                job, wait_s = self._find(server)
                if job is not None:
                    self._num_running += 1
                    return job
                if self._is_done:
                    return None
                await self._wait(wait_s)

    def _find(self, server: Server) -> tuple[Job | None, float | None]:
        """A job for a server, or how long to wait for one, if that is known."""
        now = time.monotonic()
        others = any(other is not server and other.sound and not other.given_up for other in self._servers)
        mine = [job for job in self._waiting if not (others and job.failed_at is server)]
        first = min(mine, key=lambda job: job.ready_at, default=None)
        if first is not None and first.ready_at <= now:
            self._waiting.remove(first)
            return first, None
        if self._new:
            if self._num_running + len(self._waiting) + self._settled.qsize() < self._num_open:
                return self._new.popleft(), None
            return None, LOOK_S
        return None, None if first is None else first.ready_at - now

    async def _put(self, job: Job, server: Server, outcome: Reply | DataError | None) -> None:
        async with self._changed:
            self._num_running -= 1
            if outcome is None:
                self._waiting.append(job)
            else:
                job.url = ""
                self._settled.put((job, server, outcome))
            self._changed.notify_all()

    async def _wait(self, wait_s: float | None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._changed.wait()

    async def _rest(self, until: float) -> bool:
        """Wait until then; False, and at once, where nothing is left to do."""
        async with self._changed:
            while not self._is_done and (left := until - time.monotonic()) > 0:
                await self._wait(left)
            return not self._is_done


def _failed(job: Job, why: str, server: Server | None = None) -> DataError:
    at = f" at {server.name}" if server is not None else ""
    return DataError(f"{job.name} has no answer: {why}{at}", where=job.name, fix="ask for it again")


@dataclass(frozen=True)
class _Raised:
    error: BaseException


_END = object()


def run_aside(work: Callable[[SimpleQueue[Any]], Coroutine[Any, Any, None]]) -> Generator[Any, None, None]:
    """What a coroutine puts into a queue, as it comes; what it raises is raised.

    It runs in a thread of its own, since a notebook has a loop running already and would not go on while somebody looks
    at an answer. It is cancelled, and waited for, where nobody wants more.
    """
    queue: SimpleQueue[Any] = SimpleQueue()
    loop = asyncio.new_event_loop()
    task = loop.create_task(work(queue))

    def run() -> None:
        try:
            loop.run_until_complete(task)
        except BaseException as error:  # handed to whoever asks for more
            queue.put(_Raised(error))
        finally:
            loop.close()
            queue.put(_END)

    thread = Thread(target=run, name="boxtune-http", daemon=True)
    thread.start()
    try:
        while (found := queue.get()) is not _END:
            if isinstance(found, _Raised):
                raise _alone(found.error)
            yield found
    finally:
        with suppress(RuntimeError):  # the loop is closed: it has ended already
            loop.call_soon_threadsafe(task.cancel)
        thread.join()


def _alone(error: BaseException) -> BaseException:
    """The error, out of the group that tasks put it in."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
