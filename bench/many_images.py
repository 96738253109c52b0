"""What prediction over many images costs beside the model: listing, finding answers again, writing the files.

    python bench/many_images.py [num=1000000] [formats=json]

Makes `num` empty files and an answer of one box for each (no image is opened, no model asked), then goes the steps of
`boxtune predict` when it is started again. Prints seconds and the peak memory of the process so far.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from boxtune.infer.shards import Part, PartFile, find_answers, share_out, stamp_of
from boxtune.infer.sources import list_images
from boxtune.infer.writers import About
from boxtune.infer.written import write_all

MADE_BY = {"adapter": "none"}
BOX = {"label": "thing", "xyxy_px": [10.0, 20.0, 30.5, 40.25], "score": 0.5}
ANSWER = {"width": 640, "height": 480, "boxes": [BOX], "answer": "thing", "problems": [], "truncated": False}


def make_files(folder: Path, num: int) -> None:
    """A thousand empty files in each sub-folder."""
    for number in range(num):
        if number % 1000 == 0:
            (folder / f"{number // 1000:04d}").mkdir(parents=True)
        (folder / f"{number // 1000:04d}" / f"{number:07d}.jpg").touch()


def main(num: int, formats: list[str]) -> None:
    """Go the steps, and print a line for each."""

    def timed(what: str, step: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        found = step()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{what:<40}{time.perf_counter() - began:8.1f} s{memory:8.2f} GB", flush=True)
        return found

    def answer() -> None:
        with PartFile(answers, Part(), MADE_BY) as file:
            for name in listing.files:
                file.add({"file": name, "stamp": stamp_of(name), **ANSWER})

    print(f"{num:,} images", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "images", Path(folder) / "out"
        answers = out / "answers"
        answers.mkdir(parents=True)
        timed("files made", lambda: make_files(source, num))
        listing = timed("listed", lambda: list_images(source))
        timed("answers written", answer)
        timed("shared out", lambda: share_out(listing.files, 8))
        found = timed("answers found again", lambda: find_answers(answers, listing.files, MADE_BY))
        timed("images looked at for changes", lambda: [stamp_of(name) for name in listing.files])
        about = About(split="train", classes=("thing",), model="none", confidence=False)
        for name in formats:
            timed(f"{name} written", lambda name=name: write_all(out, [name], listing, found, about, None))


if __name__ == "__main__":
    asked = dict(word.split("=", 1) for word in sys.argv[1:])
    main(int(asked.get("num", 1_000_000)), asked.get("formats", "json").split(","))
