"""Images answered by a real server that fails in every way: each once, in its place, or said to have failed.

    pip install --target FOLDER fastapi uvicorn openai       # what `transformers serve` needs besides transformers
    python bench/serving.py packages=FOLDER [images=1000] [at_once=4] [faults=0.15] [restart=true]

`transformers serve` serves a tiny Idefics3 with random weights on a CPU. Between it and boxtune stands a proxy of ours,
which does harm to a share of the requests, each time anew: it answers too late, drops the connection, answers 500 or
429, cuts the reply or sends a page of HTML; some images it answers with 500 for ever. With `restart` the server is
killed when half the images are there, and started again 25 s later. Every image has a pattern of its own. Afterwards a
sample of the answers is compared with what the model says in memory, greedily, of the same image.

`packages` may be left out where they are installed. The table says how many images came once, how many requests were
repeats, how many images were reported as failed, and how fast it went; without faults it says what the server can do.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from architectures import write_architecture

from boxtune.artifacts import RUN_CARD, write_json
from boxtune.errors import DataError
from boxtune.families import FAMILIES
from boxtune.infer.http import HttpEngine
from boxtune.infer.http_client import Patience
from boxtune.infer.served import build_reader, load_served

NEEDED = ("fastapi", "uvicorn", "openai")
TILE, CLASSES, MOST_TOKENS = 364, ("red", "blue"), 12
TEMPLATE = (
    "<|begin_of_text|>{% for message in messages %}{{ message.role | capitalize }}:{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
KINDS = ("late", "dropped", "500", "429", "cut", "html")
POISONED = 97
"""Every so-manieth image is answered with 500 for ever."""
DOWN_S = 25.0
WAIT = Patience(timeout_s=4.0, first_wait_s=0.2, most_wait_s=5.0, lost_after_s=90.0, tries=6)


def write_model(folder: Path) -> Path:
    """The tiny model, for images of one tile, and beside it an adapter folder without weights."""
    model = write_architecture("idefics3", folder / "model")
    (model / "chat_template.jinja").write_text(TEMPLATE)
    path = model / "preprocessor_config.json"
    write_json(path, {**json.loads(path.read_text()), "size": {"longest_edge": TILE}})
    _make_answers_differ(model)
    adapter = folder / "adapter"
    adapter.mkdir()
    for file in model.glob("*"):
        if file.name != "config.json" and file.suffix != ".safetensors":
            (adapter / file.name).write_bytes(file.read_bytes())
    card = {
        "model": str(model), "family": "idefics3", "prompt": FAMILIES["idefics3"].prompt(CLASSES, ""),
        "classes": list(CLASSES), "min_pixels": TILE**2, "max_pixels": TILE**2, "max_new_tokens": MOST_TOKENS,
        "versions": {"boxtune": "0"},
    }  # fmt: skip
    write_json(adapter / RUN_CARD, card)
    return adapter


def _make_answers_differ(model: Path) -> None:
    """Let random weights attend to something, so that no two images are answered alike."""
    from safetensors.torch import load_file, save_file

    weights = load_file(model / "model.safetensors")
    more = {"modality_projection": 150, "q_proj": 20, "text_model.layers.0.self_attn.k_proj": 20}
    changed = {
        name: tensor * next((times for part, times in more.items() if part in name), 1)
        for name, tensor in weights.items()
    }
    save_file(changed, model / "model.safetensors", metadata={"format": "pt"})


def paint(place: int) -> Image.Image:
    """A pattern of 7 x 7 colours; that of the first corner says which one."""
    pattern = Image.frombytes("RGB", (7, 7), random.Random(place).randbytes(147))
    pattern.putpixel((0, 0), (place % 256, place // 256, 77))
    return pattern.resize((91, 91), Image.Resampling.NEAREST)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class RealServer:
    """`transformers serve` as a process that can be killed and started again."""

    def __init__(self, model: Path, packages: str | None, log: Path) -> None:
        self.model, self.port, self.log = model, free_port(), log
        paths = [packages, os.environ.get("PYTHONPATH")]
        hub = log.parent / "hub"
        hub.mkdir(exist_ok=True)
        self.env = {
            **os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path), "HF_HUB_OFFLINE": "1",
            "HF_HUB_CACHE": str(hub), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None
        self.down_s = 0.0

    def start(self) -> None:
        """Start it, and do not wait."""
        program = Path(sys.executable).parent / "transformers"
        command = [sys.executable, str(program), "serve", str(self.model), "--port", str(self.port), "--device", "cpu"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=self.env, stdout=log, stderr=log, start_new_session=True)

    def kill(self) -> None:
        """End it at once, as a machine that fails does."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def start_later(self) -> None:
        """Start it after a while, and wait until it answers."""
        begin = time.monotonic()
        time.sleep(DOWN_S)
        self.start()
        self.wait()
        self.down_s = time.monotonic() - begin

    def wait(self, seconds: float = 180.0) -> float:
        """Wait until it answers; how long that took."""
        begin = time.monotonic()
        while time.monotonic() - begin < seconds:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return time.monotonic() - begin
            assert self.process is not None and self.process.poll() is None, self.log.read_text()[-2000:]
            time.sleep(0.2)
        raise TimeoutError(self.log.read_text()[-2000:])


class Proxy(ThreadingHTTPServer):
    """Hands requests on to the server, and does harm to some."""

    daemon_threads = True

    def __init__(self, upstream: int, share: float, num_images: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.share, self.random = upstream, share, random.Random(0)
        self.harm: Counter[str] = Counter()
        self.poisoned = {paint(place).getpixel((0, 0)) for place in range(POISONED - 1, num_images, POISONED)}

    def handle_error(self, *error: Any) -> None:
        """A client that gave up is nothing to tell."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *said: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        self._reply(*self._hand_on(None))

    def do_POST(self) -> None:
        body, proxy = self.rfile.read(int(self.headers["Content-Length"])), self.server
        if proxy.share and _colour(body) in proxy.poisoned:
            proxy.harm["poisoned"] += 1
            return self._reply(500, b'{"error": "CUDA error"}')
        kind = proxy.random.choice(KINDS) if proxy.random.random() < proxy.share else ""
        proxy.harm.update([kind] if kind else [])
        match kind:
            case "dropped":
                self.close_connection = True
                return self.connection.shutdown(socket.SHUT_RDWR)
            case "500" | "429":
                return self._reply(int(kind), b'{"error": {"message": "try again"}}', {"Retry-After": "1"})
            case "html":
                return self._reply(200, b"<html>Bad gateway</html>")
        status, said = self._hand_on(body)
        if kind == "late":
            time.sleep(WAIT.timeout_s + 1)
        return self._reply(status, said, cut=kind == "cut")

    def _hand_on(self, body: bytes | None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=60)
        try:
            connection.request(self.command, self.path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        except OSError:
            self.server.harm["server down"] += 1
            return 502, b"<html>502 Bad Gateway</html>"
        except http.client.HTTPException:
            self.server.harm["server died"] += 1
            return 502, b"<html>502 Bad Gateway</html>"
        finally:
            connection.close()

    def _reply(self, status: int, said: bytes, headers: dict[str, str] | None = None, *, cut: bool = False) -> None:
        with suppress(OSError):  # the client waits no more
            self.send_response(status)
            for name, value in {"Content-Length": str(len(said)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said[: len(said) // 2] if cut else said)
            if cut:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)


def _colour(body: bytes) -> Any:
    import base64
    from io import BytesIO

    url = json.loads(body)["messages"][0]["content"][0]["image_url"]["url"]
    return Image.open(BytesIO(base64.b64decode(url.partition("base64,")[2]))).getpixel((0, 0))


@contextmanager
def proxying(upstream: int, share: float, num_images: int) -> Iterator[Proxy]:
    proxy = Proxy(upstream, share, num_images)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()


def run(
    server: RealServer, adapter: Path, *, num_images: int, at_once: int, share: float, restart: bool
) -> tuple[dict[str, Any], dict[int, str]]:
    """One row of the table, and the answers' texts by place. The server is running."""

    def find_source(model: str, family: str) -> Any:
        raise AssertionError("the adapter's folder is whole")

    with proxying(server.port, 0.0, num_images) as proxy:
        url = f"http://127.0.0.1:{proxy.server_address[1]}/v1"
        predictor = load_served(adapter, find_source, urls=url, served=str(server.model), at_once=at_once)
        engine = predictor.engine
        assert isinstance(engine, HttpEngine)
        engine.patience, proxy.share = WAIT, share
        openers = [partial(paint, place) for place in range(num_images)]
        came: Counter[int] = Counter()
        texts, reported, starting = {}, {}, None
        begin = time.monotonic()
        for place, answer in engine.iter_answers(openers, sizes=[(91, 91)] * num_images):
            came[place] += 1
            if isinstance(answer, DataError):
                reported[place] = answer.what
            else:
                texts[place] = answer.text
            if restart and len(came) == num_images // 2:
                restart = False
                server.kill()
                starting = threading.Thread(target=server.start_later)
                starting.start()
        seconds = time.monotonic() - begin
        if starting is not None:
            starting.join()
    right = {place for place in range(POISONED - 1, num_images, POISONED)} if share else set()
    return {
        "images": num_images,
        "different texts": len(set(texts.values())),
        "came once": sum(count == 1 for count in came.values()),
        "answered": len(texts),
        "reported": len(reported),
        "reported rightly": len(right & set(reported)),
        "requests": engine.tally["requests"],
        "repeats": engine.tally["retries"],
        "harm": dict(sorted(proxy.harm.items())),
        "seconds": round(seconds, 1),
        "images/s": round(num_images / seconds, 1),
        "server down, s": round(server.down_s, 1) if starting else 0,
        "a reason": next(iter(reported.values()), ""),
    }, texts


def say_in_memory(adapter: Path, model: Path, places: Sequence[int]) -> dict[int, str]:
    """What the model says in memory, alone and greedily, of the images at these places, special tokens left out."""
    import torch
    from transformers import AutoModelForImageTextToText, GenerationConfig

    from boxtune.artifacts import read_json
    from boxtune.finetune.collate import answers_begin, collate_for_prediction

    encoder, _ = build_reader(adapter, read_json(adapter / RUN_CARD), lambda name, family: None)  # type: ignore[arg-type, return-value]
    loaded = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32).eval()
    config = GenerationConfig(
        do_sample=False, max_new_tokens=MOST_TOKENS, eos_token_id=loaded.generation_config.eos_token_id,
        pad_token_id=encoder.layout.pad_id,
    )  # fmt: skip
    said = {}
    for place in places:
        batch = collate_for_prediction([encoder.encode_image(paint(place))], encoder.layout)
        with torch.no_grad():
            ids = loaded.generate(**batch, generation_config=config)[0, answers_begin(batch) :]
        said[place] = encoder.tokenizer.decode(ids, skip_special_tokens=True)
    return said


def main(arguments: Sequence[str]) -> None:
    asked = dict(argument.split("=", 1) for argument in arguments)
    num_images, at_once = int(asked.get("images", 1000)), int(asked.get("at_once", 4))
    share, restart = float(asked.get("faults", 0.15)), asked.get("restart", "true") == "true"
    packages = [asked["packages"]] if "packages" in asked else None
    versions = {
        dist.name: dist.version
        for name in NEEDED
        for dist in metadata.distributions(name=name, **({"path": packages} if packages else {}))
    }
    print(f"transformers {metadata.version('transformers')}, torch {metadata.version('torch')}, {versions}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        adapter = write_model(Path(folder))
        model = Path(folder) / "model"
        server = RealServer(model, asked.get("packages"), Path(folder) / "serve.log")
        server.start()
        try:
            print(f"server up after {server.wait():.0f} s", flush=True)
            rows = []
            for one, again in ((0.0, False), (share, restart)):
                row, texts = run(server, adapter, num_images=num_images, at_once=at_once, share=one, restart=again)
                rows.append(row)
                places = sorted(texts)[:: max(1, len(texts) // 50)]
                said = say_in_memory(adapter, model, places)
                row["as in memory"] = f"{sum(said[place] == texts[place] for place in places)} of {len(places)}"
        finally:
            server.kill()
    for name in rows[0]:
        print(f"{name:<18}" + "".join(f"  {row[name]!s:<60}" for row in rows))


if __name__ == "__main__":
    main(sys.argv[1:])
