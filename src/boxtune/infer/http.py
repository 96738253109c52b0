"""Answers from servers behind HTTP: vLLM, SGLang, `transformers serve`, llama.cpp, or whatever speaks as OpenAI does.

A server writes freely, so its answers are read as they are, with their problems, and hold no further boxes. Scores are
made of the log-probabilities that a server gives, as they are of a model's own; where it gives none there are none.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from queue import SimpleQueue
from typing import Any

import numpy as np

from boxtune.boxes import Boxes
from boxtune.errors import ConfigError, DataError, Finding, ModelError
from boxtune.families import Frame
from boxtune.finetune.encode import Encoder
from boxtune.infer.answer import Answer
from boxtune.infer.confidence import POOLED, Calibration
from boxtune.infer.engine import OfEncoder, Opener
from boxtune.infer.guide import guides_of
from boxtune.infer.http_client import ORDINARY, Caller, Failed, Patience, Reply, Server, read_url
from boxtune.infer.http_meet import Need, meet, require_kept
from boxtune.infer.http_pool import Job, Pool, run_aside
from boxtune.infer.http_scores import TokenIds, read_served_signals
from boxtune.infer.http_turn import Turn
from boxtune.infer.selection import EVERYTHING, Selection

GRACE_S = 10.0
"""How long the first images wait for further servers once one is there."""
FIRST_TRIES, MOST_FIRST_S = 4, 5.0
"""How often a server is asked before the first image, and the longest wait between; later it is waited for as long as
`Patience` says."""


@dataclass(kw_only=True, eq=False)
class HttpEngine(OfEncoder):
    """An `Engine` of servers at `urls`, which all serve the tuned model, under the name `served`.

    `served` may be left out where each serves one model. `each` requests are on their way to each server at a time.
    `key` is sent as a bearer token; it is shown nowhere. `findings` say what the servers cannot do and which were left
    out, `tally` counts requests, retries, and answers without scores.
    """

    turn: Turn
    urls: Sequence[str]
    max_new_tokens: int
    served: str | None = None
    key: str | None = field(default=None, repr=False)
    each: int = 16
    patience: Patience = ORDINARY
    calibration: Calibration = POOLED
    selection: Selection = EVERYTHING
    findings: list[Finding] = field(default_factory=list)
    tally: Counter[str] = field(default_factory=Counter)
    servers: list[Server] = field(init=False)

    def __post_init__(self) -> None:
        urls = list(dict.fromkeys(read_url(url) for url in self.urls))
        if not urls:
            raise ConfigError("no server is named", where="server", fix="server=http://localhost:8000/v1")
        self.servers = [Server(url=url) for url in urls]

    @property
    def encoder(self) -> Encoder:  # type: ignore[override]
        """The model's words, without its weights."""
        return self.turn.encoder

    @property
    def at_once(self) -> int:
        """See `Engine`: what all servers answer at a time."""
        return self.each * len(self.servers)

    @cached_property
    def _need(self) -> Need:
        need = Need(turn=self.turn, served=self.served, max_new_tokens=self.max_new_tokens)
        # Worked out here, where answers are read: a tokenizer is for one thread at a time.
        _ = need.blank, need.bias
        return need

    @cached_property
    def _token_ids(self) -> TokenIds:
        seen_wh = self.family.seen_wh((224, 224), *self.budget)
        frame = Frame(original_wh=(224, 224), seen_wh=seen_wh)
        return TokenIds(guides_of(self.encoder).of(frame, self.classes).vocabulary)

    def summary(self) -> list[str]:
        """See `Engine`."""
        told = self.tally
        lines = [str(finding) for finding in self.findings if finding.level != "ok"]
        again, unscored = f"{told['retries']:,} of them again", f"answers without scores: {told['unscored']:,}"
        return [*lines, f"{told['requests']:,} requests, {again}{'; ' + unscored if told['unscored'] else ''}"]

    def require_served(self) -> None:
        """Ask every server that was never met, or was given up, for what it serves.

        Raises ConfigError for a wrong address or key and where no server can be reached, ModelError where one serves
        another model or not as it was trained. A server that cannot be reached is waited for while another answers.
        """
        unknown, need = [server for server in self.servers if server.given_up or not server.model], self._need
        if not unknown:
            return

        async def ask(queue: SimpleQueue[Any]) -> None:
            async with Caller(self.key, self.patience.timeout_s) as caller, asyncio.TaskGroup() as group:
                late = {group.create_task(self._meet(caller, server, need, queue)) for server in unknown}
                while late and not any(server.met and not server.given_up for server in self.servers):
                    _, late = await asyncio.wait(late, return_when=asyncio.FIRST_COMPLETED)
                if late:
                    _, late = await asyncio.wait(late, timeout=GRACE_S)
                for task in late:
                    task.cancel()

        with closing(run_aside(ask)) as found:
            refused = dict(found)
        if len(refused) == len(self.servers):
            raise ConfigError(
                "no server answers",
                where="; ".join(f"{server.name}: {why}" for server, why in refused.items()),
                fix="start the server, or give the address that /chat/completions stands behind as server=",
            )

    async def _meet(self, caller: Caller, server: Server, need: Need, queue: SimpleQueue[Any]) -> None:
        """Meet a server, or put it into the queue with the reason why it cannot be met.

        One that was given up before is asked once, and stays given up if that does not go well.
        """
        again = bool(server.given_up)
        for num_failed in range(1, FIRST_TRIES + 1):
            try:
                for finding in await meet(caller, server, need):
                    self._tell(finding)
                server.given_up = ""
                server.succeed()
                return
            except (ConfigError, ModelError) as error:
                if not again:
                    raise
                queue.put((server, error.what))
                return
            except Failed as failure:
                if again or num_failed == FIRST_TRIES:
                    queue.put((server, str(failure)))
                    return
                await asyncio.sleep(max(self.patience.wait_s(num_failed, 1.0), min(failure.after_s, MOST_FIRST_S)))

    def iter_answers(
        self,
        images: Sequence[Opener],
        *,
        sizes: Sequence[tuple[int, int]],
        classes: Sequence[Sequence[str]] | None = None,
        part: tuple[int, int] = (0, 1),
        freely: bool = False,
    ) -> Iterator[tuple[int, Answer | DataError]]:
        """See `Engine`: images come as they are answered. All are written without a guide; those that are asked for
        `freely` have no scores either.
        """
        self.require_served()
        number, num_parts = part
        jobs = [
            Job(
                place=place,
                name=f"{'image' if self.tiling is None else 'tile'} {place + 1} of {len(images)}",
                opener=images[place],
                classes=self.classes if classes is None else tuple(classes[place]),
            )
            for start in range(number * self.at_once, len(images), num_parts * self.at_once)
            for place in range(start, min(start + self.at_once, len(images)))
        ]

        async def work(settled: SimpleQueue[Any]) -> None:
            pool = Pool(
                jobs,
                self.servers,
                self._need,
                at_once=self.each,
                patience=self.patience,
                settled=settled,
                tally=self.tally,
                tell=self._tell,
                in_turn=self.tiling is not None,
            )
            async with Caller(self.key, self.patience.timeout_s) as caller:
                await pool.run(caller)

        with closing(run_aside(work)) as found:
            for job, server, outcome in found:
                read = outcome if isinstance(outcome, DataError) else self._read(job, server, outcome, freely=freely)
                yield job.place, read

    def _tell(self, finding: Finding) -> None:
        if finding not in self.findings:
            self.findings.append(finding)

    def _read(self, job: Job, server: Server, reply: Reply, *, freely: bool) -> Answer | DataError:
        assert job.frame is not None
        expected = self._need.num_prompt(job.frame.original_wh, job.classes)
        if reply.num_prompt not in (None, expected):
            return DataError(
                f"the server saw {job.name} in a prompt of {reply.num_prompt} tokens, the adapter was trained with "
                f"{expected}",
                where=job.name,
                fix="serve the model with the image processor files of its own folder, which hold the budget",
            )
        text, end, _ = reply.text.partition(self.family.end_of_turn)
        ended = reply.ended or bool(end)
        nothing = self.family.encode(Boxes.none(), job.frame, job.classes)
        require_kept(server, self._need, text, nothing)
        decoded = self.family.decode(text, job.frame, job.classes, ended=ended)
        answer = Answer(text=text, boxes=decoded.boxes, problems=decoded.problems, truncated=not ended)
        # Boxes of several tiles are joined by their scores, and an image's must have all of them or none.
        if freely or not server.scores or self.tiling is not None:
            return answer
        return self._scored(answer, job, reply)

    def _scored(self, answer: Answer, job: Job, reply: Reply) -> Answer:
        """The answer with scores, if its tokens tell them: all but one that was cut must be sound."""
        assert job.frame is not None
        sound = all(problem.kind == "truncated" for problem in answer.problems)
        signals = None
        if sound and reply.tokens is not None:
            signals = read_served_signals(
                self.encoder, self._token_ids, reply.tokens, answer.boxes, job.frame, job.classes
            )
        if signals is None:
            self.tally["unscored"] += 1
            return answer
        scores = np.array([self.calibration.score(signal) for signal in signals], dtype=np.float64)
        return replace(answer, boxes=replace(answer.boxes, scores=np.nan_to_num(scores, nan=0.0)), signals=signals)
