"""The first contact with a server: what it serves, which fields it takes, and that it is what the adapter needs.

One request on a blank image tells most: how many tokens its prompt has, whether it gives log-probabilities, and what it
makes of a box token. That one it is made to write by `logit_bias`: a server that strips special tokens then answers
with nothing, one that keeps them with the token's text. One that does not heed the bias leaves it open, and then every
answer must show a box token or be the one for nothing (`require_kept`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from PIL import Image

from boxtune.boxes import Boxes
from boxtune.errors import ConfigError, Finding, ModelError, name_some
from boxtune.families import Frame
from boxtune.finetune.encode import Encoder
from boxtune.infer.http_client import FAILING, Caller, Denied, Failed, Reply, Server
from boxtune.infer.http_turn import TRIED_WH, Turn, show

KEEP = {"skip_special_tokens": False, "spaces_between_special_tokens": False}
PLAIN = {"repetition_penalty": 1.0}
"""vLLM and SGLang take the checkpoint's own penalty where none is asked for; the answer is then not the likeliest."""
LOGS = {"logprobs": True, "top_logprobs": 20}
"""Twenty is the most that OpenAI and vLLM, as it is started, give."""
IDS = {"return_tokens_as_token_ids": True}
WISHES: tuple[Mapping[str, Any], ...] = (
    {**KEEP, **PLAIN, **LOGS, **IDS},
    {**KEEP, **PLAIN, **LOGS},
    {**KEEP, **PLAIN},
    LOGS,
    {},
)
"""Optional fields, the most first: some servers refuse a request with a field that they do not know."""
FORCED = 100.0


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a model needs of a server."""

    turn: Turn
    served: str | None
    max_new_tokens: int

    @property
    def encoder(self) -> Encoder:
        """The model's."""
        return self.turn.encoder

    def num_prompt(self, size_wh: tuple[int, int], classes: Sequence[str]) -> int:
        """Tokens of the prompt for an image of that size."""
        encoder = self.encoder
        return len(encoder.prompt_ids(encoder.prompt(classes, encoder.image_text(size_wh))))

    def body(self, model: str, fields: Mapping[str, Any], url: str, classes: Sequence[str]) -> dict[str, Any]:
        """A chat request with these optional fields: the likeliest answer, token by token, and nothing drawn."""
        told = {"chat_template_kwargs": dict(self.turn.told)} if self.turn.told else {}
        return {
            "model": model,
            "messages": self.turn.messages(url, classes),
            "max_tokens": self.max_new_tokens,
            "temperature": 0.0,
            # In `transformers serve` this is the repetition penalty.
            "frequency_penalty": 0.0,
            **told,
            **fields,
        }

    @cached_property
    def box_tokens(self) -> tuple[str, ...]:
        """Special tokens of answers without which they would be read as something else; () where that changes nothing.

        GLM's, for one, stand around a list that is read without them too.
        """
        encoder, classes = self.encoder, self.encoder.classes
        frame = Frame(original_wh=TRIED_WH, seen_wh=encoder.family.seen_wh(TRIED_WH, *_budget(encoder)))
        specials = [token for token in encoder.tokenizer.all_special_tokens if token]
        specials += [str(token) for token in encoder.tokenizer.added_tokens_decoder.values() if token.special]
        lost = set()
        for boxes in _samples(classes):
            text = encoder.family.encode(boxes, frame, classes)
            bare = encoder.tokenizer.decode(
                list(encoder.ids(text)), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
            whole, read = (encoder.family.decode(one, frame, classes) for one in (text, bare))
            same = read.boxes.labels == whole.boxes.labels and np.array_equal(read.boxes.xyxy_px, whole.boxes.xyxy_px)
            if read.problems or not same:
                lost |= {token for token in specials if token in text}
        return tuple(sorted(lost))

    @cached_property
    def bias(self) -> Mapping[str, Any]:
        """The field that makes a server write the first of the box tokens; nothing where none is needed."""
        if not self.box_tokens:
            return {}
        return {"logit_bias": {str(self.encoder.ids(self.box_tokens[0])[0]): FORCED}}

    @cached_property
    def blank(self) -> tuple[str, int]:
        """A blank image as it is sent, and the tokens of its prompt."""
        url, _ = show(Image.new("RGB", TRIED_WH, (128, 128, 128)), self.encoder)
        return url, self.num_prompt(TRIED_WH, self.encoder.classes)


def _budget(encoder: Encoder) -> tuple[int, int]:
    return encoder.min_pixels, encoder.max_pixels


def _samples(classes: Sequence[str]) -> Iterator[Boxes]:
    """Answers of every form: none, one, several boxes of one name and of several."""
    corners = np.array([[50.0, 40, 200, 180], [210.0, 40, 300, 180], [210.0, 200, 300, 300]])
    for names in ((), classes[:1], (classes[0], classes[0], classes[-1])):
        yield Boxes(xyxy_px=corners[: len(names)], labels=tuple(names))


async def meet(caller: Caller, server: Server, need: Need) -> list[Finding]:
    """Everything about a server that is known only once it has been asked; findings of what it cannot do.

    Raises ConfigError for a wrong address or key, ModelError where it serves another model, or not as it was trained,
    and Failed where it may go well another time. One that was met before is not asked for its models again.
    """
    names = None if server.model else await _names(caller, server)
    model = server.model or need.served or _only(names, server)
    url, num_prompt = need.blank
    more: Mapping[str, Any]
    for more, fields in product([need.bias, {}] if need.bias else [{}], WISHES):
        body = {**need.body(model, fields, url, need.encoder.classes), **more, "max_tokens": 1}
        try:
            reply = await caller.ask(server, body)
            break
        except Denied as denied:
            if denied.status not in (400, 422) or not (more or fields):
                raise _refused(server, denied, model, names) from denied
    _require_prompt(server, reply, num_prompt)
    server.model, server.fields, server.scores = model, fields, bool(reply.tokens)
    server.keeps = True if not need.bias else _keeps(server, reply, need.box_tokens[0], biased=bool(more))
    # What it did before is not forgotten until it has answered for an image.
    server.met, server.num_failed = True, min(server.num_failed, FAILING - 1)
    return list(_tell(server, reply))


async def _names(caller: Caller, server: Server) -> list[str] | None:
    """The models that the server lists; None where it lists none. An address without its /v1 is put right."""
    try:
        try:
            return await caller.names(server.url)
        except Denied as denied:
            if denied.status != 404 or server.url.endswith("/v1"):
                raise
            names = await caller.names(f"{server.url}/v1")
            server.url += "/v1"
            return names
    except Denied as denied:
        if denied.status in (401, 403):
            raise _refused(server, denied, "", None) from denied
        return None
    except Failed as failure:
        # `transformers serve` fails here (500) on a machine that has no cache of the hub.
        if failure.status != 500:
            raise
        return None


def _only(names: list[str] | None, server: Server) -> str:
    if names is not None and len(names) == 1:
        return names[0]
    what = "does not list its models" if names is None else f"serves {len(names)} models: {name_some(names, 10)}"
    raise ConfigError(f"{server.name} {what}", where="served", fix="say which one is the tuned one: served=NAME")


def _refused(server: Server, denied: Denied, model: str, names: list[str] | None) -> ConfigError | ModelError:
    """The error for a request that was denied, with the server's own words."""
    if denied.status in (401, 403):
        fix = "set the environment variable BOXTUNE_API_KEY to the server's key"
        return ConfigError(f"the server wants another key ({denied})", where=server.name, fix=fix)
    if 300 <= denied.status < 400:
        fix = "give the address that it names"
        return ConfigError(f"the server has moved ({denied})", where=server.name, fix=fix)
    if not denied.status:
        fix = "start the server so that it gives answers as they are"
        return ModelError(f"the server's answers cannot be used: {denied}", where=server.name, fix=fix)
    listed = f"; it lists {name_some(names, 10)}" if names else ""
    return ModelError(
        f"the server does not answer for the model {model!r} ({denied}){listed}",
        where=server.name,
        fix="give the address up to /v1 and the name that the model is served under (served=NAME), a model with vision",
    )


def _require_prompt(server: Server, reply: Reply, num_prompt: int) -> None:
    if reply.num_prompt not in (None, num_prompt):
        raise ModelError(
            f"the server makes a prompt of {reply.num_prompt} tokens where the adapter was trained with {num_prompt}: "
            "it has another chat template, or sees images at another size",
            where=server.name,
            fix="serve the exported model with the processor and tokenizer files of its folder",
        )


def _keeps(server: Server, reply: Reply, token: str, *, biased: bool) -> bool | None:
    """Whether a token that the server was made to write is in its answer; ModelError where it has been stripped."""
    if token in reply.text:
        return True
    # An answer that the model has ended at once is empty too, where the bias was not heeded.
    if biased and not reply.text.strip() and not reply.ended:
        raise stripped(server, f"asked for {token!r} it answered with nothing")
    return None


def stripped(server: Server, seen: str) -> ModelError:
    """The error where box tokens do not come back."""
    return ModelError(
        f"the server takes the tokens that mark boxes out of its answers, so that no box could be read: {seen}",
        where=server.name,
        fix="use a server that heeds skip_special_tokens=false (vLLM, SGLang), or predict with the model in memory",
    )


def require_kept(server: Server, need: Need, text: str, nothing: str) -> None:
    """Raises ModelError at an answer without any box token, where it could not be told before whether they come back.

    The answer for nothing shows nothing, and is the same with and without them.
    """
    if server.keeps is not None:
        return
    if any(token in text for token in need.box_tokens):
        server.keeps = True
    elif text.strip() != nothing.strip():
        raise stripped(server, f"{text[:100]!r} holds none of {name_some(need.box_tokens)}")


def _tell(server: Server, reply: Reply) -> Iterator[Finding]:
    if not server.scores:
        yield Finding(
            check="served.scores",
            level="warn",
            seen="the server gives no log-probabilities: its boxes have no scores",
            where=server.name,
            fix="vLLM and SGLang give them; a threshold keeps all boxes without",
        )
    if server.keeps is None:
        yield Finding(
            check="served.box_tokens",
            level="cannot_tell",
            seen="the server did not write the token that it was asked for: each answer must show that it keeps them",
            where=server.name,
        )
    if reply.num_prompt is None:
        yield Finding(
            check="served.prompt",
            level="cannot_tell",
            seen="the server does not say how many tokens a prompt has: whether it is the trained one is not known",
            where=server.name,
        )
