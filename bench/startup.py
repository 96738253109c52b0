"""Seconds from a typed command to its end, for the commands that must not wait for torch.

    python bench/startup.py

Each command runs once to warm the disk up and then five times; the table shows the median, the fastest and the
slowest. `python -c pass` is what Python itself takes.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

TIMES = 5
NUM_IMAGES = {"train": 40, "valid": 10}


def write_coco(folder: Path) -> None:
    """Write a small COCO data set: plain images of 640 x 480 with one box each."""
    for split, count in NUM_IMAGES.items():
        (folder / split).mkdir(parents=True)
        images, boxes = [], []
        for number in range(count):
            name = f"{number:03}.jpg"
            Image.new("RGB", (640, 480), (5 * number, 90, 120)).save(folder / split / name)
            images.append({"id": number, "file_name": name, "width": 640, "height": 480})
            bbox = [20 + number, 30, 200, 150]
            boxes.append(
                {"id": number, "image_id": number, "category_id": 1, "bbox": bbox, "area": 30000, "iscrowd": 0}
            )
        truth = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "label"}]}
        (folder / split / "_annotations.coco.json").write_text(json.dumps(truth), encoding="utf-8")


def time_command(command: list[str]) -> list[float]:
    """Wall seconds of each run after the first; stops at a command that fails."""
    seconds = []
    for _ in range(TIMES + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "data"
        write_coco(data)
        boxtune = [sys.executable, "-m", "boxtune"]
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "boxtune --help": [*boxtune, "--help"],
            f"boxtune inspect DATA ({sum(NUM_IMAGES.values())} images)": [*boxtune, "inspect", str(data)],
        }
        print(f"{'command':<40} {'median s':>9} {'min s':>9} {'max s':>9}")
        for title, command in commands.items():
            seconds = time_command(command)
            print(f"{title:<40} {statistics.median(seconds):9.2f} {min(seconds):9.2f} {max(seconds):9.2f}")


if __name__ == "__main__":
    main()
