"""A server that speaks as OpenAI does and has no model: what it answers, and how it fails, is told to it."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

from models import BUDGET
from PIL import Image
from squares import CLASSES

from boxtune.families import FAMILIES
from boxtune.infer.http_client import Patience
from boxtune.infer.http_turn import Turn, find_turn

TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message.role != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen2-VL's chat template, without what it has for videos."""
HURRIED = Patience(timeout_s=0.5, tries=4, first_wait_s=0.01, most_wait_s=0.1, lost_after_s=1.0)
BOX = "<|object_ref_start|>{}<|object_ref_end|><|box_start|>({},{}),({},{})<|box_end|>"


@cache
def build_turn(template: str | None = TEMPLATE, family: str = "qwen2_vl", **more: Any) -> Turn:
    """The user's turn of the embedded model under a chat template, without its weights, as if of a family."""
    from transformers import AutoTokenizer

    from boxtune.finetune import Encoder
    from boxtune.finetune.pixels import load_image_processor
    from boxtune.finetune.processors import build_processor
    from boxtune.run import find_source

    source = find_source("tiny")
    tokenizer = AutoTokenizer.from_pretrained(source.folder, padding_side="right")
    processor = build_processor(source, tokenizer, load_image_processor(source, *BUDGET.values()))
    processor.chat_template = template
    given = {"family": FAMILIES[family], "tokenizer": tokenizer, "processor": processor, "classes": CLASSES}
    return find_turn(Encoder(**{**given, **BUDGET, **more}), "tiny")


def paint(place: int) -> Image.Image:
    """An image that is known again by its colour, however it is resized."""
    return Image.new("RGB", (112 + place % 3, 112), (place % 256, place // 256, 77))


def answer_of(place: int) -> str:
    """What is answered for `paint(place)`."""
    x, y = place % 800, place // 800 * 10
    return BOX.format(CLASSES[place % 2], x, y, x + 100, y + 200)


@dataclass(kw_only=True)
class Asked:
    """One chat request: its JSON, the place that its image stands for, how often that was asked before."""

    body: Mapping[str, Any]
    place: int
    before: int

    @property
    def is_probe(self) -> bool:
        """Whether it is the request on a blank image, by which a server is met."""
        return self.place == 128 * 257 and self.body["max_tokens"] == 1


Fault = int | str | tuple[int, Mapping[str, str]] | None
"""A status, with headers or without; `hang`, `drop`, `half` of the reply, `garbage`, or JSON of another kind."""


@dataclass(kw_only=True)
class Behaviour:
    """What the server does. `fails` is asked for each request on an image."""

    turn: Turn
    answer: Callable[[int], str] = answer_of
    fails: Callable[[Asked], Fault] = lambda asked: None
    models: tuple[str, ...] | None = ("tuned",)
    key: str | None = None
    strips: bool = False
    heeds_fields: bool = True
    heeds_bias: bool = True
    refuses: tuple[str, ...] = ()
    gives_logs: bool = False
    logs: Callable[[int, int], Mapping[int, float]] | None = None
    as_ids: bool = True
    more_tokens: int = 0
    seconds: float = 0.0
    hang_s: float = 2 * HURRIED.timeout_s
    message: Mapping[str, Any] = field(default_factory=dict)


class StandIn(ThreadingHTTPServer):
    """The server, and what it was asked. Its errors are not printed."""

    daemon_threads = True
    # A test may start it anew on its port at once.
    allow_reuse_address = True

    def __init__(self, behaviour: Behaviour, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.behaviour, self.lock = behaviour, threading.Lock()
        self.seen: Counter[int] = Counter()
        self.bodies: list[Mapping[str, Any]] = []
        self.open, self.most_open = 0, 0

    @property
    def url(self) -> str:
        """What requests are sent to."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, *error: Any) -> None:
        """A client that gave up is nothing to tell."""


@contextmanager
def serving(behaviour: Behaviour | None = None, port: int = 0, **how: Any) -> Iterator[StandIn]:
    """A server in a thread; `how` it behaves. All its connections are closed in the end."""
    server = StandIn(behaviour or Behaviour(**{"turn": build_turn(), **how}), port)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"  # a connection for each request, so that nothing outlives the server
    server: StandIn

    def log_message(self, *said: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        how = self.server.behaviour
        if how.key is not None and self.headers["Authorization"] != f"Bearer {how.key}":
            return self._reply(401, {"error": {"message": f"wrong key {self.headers['Authorization']}"}})
        if self.path != "/v1/models" or how.models is None:
            return self._reply(404, {"detail": "Not Found"})
        return self._reply(200, {"object": "list", "data": [{"id": name} for name in how.models]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        place = _place(body)
        with self.server.lock:
            asked = Asked(body=body, place=place, before=self.server.seen[place])
            self.server.seen[place] += 1
            self.server.bodies.append(body)
            self.server.open += 1
            self.server.most_open = max(self.server.open, self.server.most_open)
        try:
            self._answer(asked)
        finally:
            with self.server.lock:
                self.server.open -= 1

    def _answer(self, asked: Asked) -> None:
        how, body = self.server.behaviour, asked.body
        if how.key is not None and self.headers["Authorization"] != f"Bearer {how.key}":
            return self._reply(401, {"error": "no"})
        if how.models is not None and body["model"] not in how.models:
            return self._reply(404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
        if unknown := [name for name in how.refuses if name in body]:
            return self._reply(422, {"detail": f"Unexpected fields in the request: {unknown}"})
        time.sleep(how.seconds)
        match how.fails(asked):
            case None:
                return self._reply(200, _complete(how, asked))
            case "hang":
                return time.sleep(how.hang_s)
            case "drop":
                return self.connection.close()
            case "half":
                return self._reply(200, _complete(how, asked), cut=True)
            case "garbage":
                return self._reply(200, "<html>nginx</html>")
            case "other":
                return self._reply(200, {"choices": []})
            case (status, headers):
                return self._reply(status, {"error": {"message": "told so"}}, headers)
            case status:
                return self._reply(int(status), {"error": {"message": "told so"}})

    def _reply(self, status: int, told: Any, headers: Mapping[str, str] = {}, *, cut: bool = False) -> None:
        said = told.encode() if isinstance(told, str) else json.dumps(told).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(said)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(said[: len(said) // 2] if cut else said)


def _place(body: Mapping[str, Any]) -> int:
    red, green, _ = _image(body).getpixel((0, 0))
    return int(red + 256 * green)


def _image(body: Mapping[str, Any]) -> Image.Image:
    url = body["messages"][0]["content"][0]["image_url"]["url"]
    return Image.open(BytesIO(base64.b64decode(url.partition("base64,")[2])))


def _complete(how: Behaviour, asked: Asked) -> dict[str, Any]:
    """The chat completion, with usage and tokens as a server counts them."""
    encoder, body = how.turn.encoder, asked.body
    content = [{"type": "image"}, body["messages"][0]["content"][1]]
    prompt = encoder.processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    prompt = prompt.replace(encoder.family.image_token, encoder.image_text(_image(body).size))
    ids = [*encoder.ids("There are none." if asked.is_probe else how.answer(asked.place)), encoder.end_id]
    if how.heeds_bias and "logit_bias" in body:
        ids = [int(next(iter(body["logit_bias"])))] * 2
    ended, ids = len(ids) <= body["max_tokens"], ids[: body["max_tokens"]]
    shown = ids[:-1] if ended else ids
    keeps = not how.strips or (how.heeds_fields and body.get("skip_special_tokens") is False)
    choice: dict[str, Any] = {
        "index": 0,
        "finish_reason": "stop" if ended else "length",
        "message": {
            "role": "assistant",
            "content": encoder.tokenizer.decode(shown, skip_special_tokens=not keeps),
            **how.message,
        },
    }
    if how.gives_logs and body.get("logprobs"):
        choice["logprobs"] = {"content": [_record(how, asked, at, number) for at, number in enumerate(ids)]}
    return {
        "object": "chat.completion",
        "choices": [choice],
        "usage": {"prompt_tokens": len(encoder.ids(prompt)) + how.more_tokens, "completion_tokens": len(ids)},
    }


def _record(how: Behaviour, asked: Asked, at: int, number: int) -> dict[str, Any]:
    logs = {number: -0.1} if how.logs is None or asked.is_probe else how.logs(asked.place, at)
    rows = [{**_named(how, one), "logprob": log} for one, log in logs.items()]
    return {**_named(how, number), "logprob": logs[number], "top_logprobs": rows}


def _named(how: Behaviour, number: int) -> dict[str, Any]:
    if how.as_ids:
        return {"token": f"token_id:{number}", "bytes": None}
    text = how.turn.encoder.tokenizer.decode([number])
    return {"token": text, "bytes": list(text.encode())}
