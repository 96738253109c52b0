"""How long a large COCO file takes to read and audit without opening an image, and how much memory.

    python bench/coco_scale.py [out=DIR] [images=10000,100000,1000000] [keep=true]

Writes COCO files with ten boxes an image (and an empty file in place of each image, since files are looked for), reads
each in a process of its own, and prints seconds and peak memory. `keep` rewrites docs/scale.md.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

BOXES = 10
CHILD = """
import resource, sys, time
from pathlib import Path
start = time.perf_counter()
from boxtune.data import inspect_dataset, read_dataset
dataset = read_dataset(Path(sys.argv[1]))
read = time.perf_counter()
text = inspect_dataset(dataset).as_text()
done = time.perf_counter()
boxes = sum(len(table.xyxy_px) for table in dataset.splits.values())
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(read - start, done - read, peak, boxes)
print(text, file=sys.stderr)
"""


def write_file(folder: Path, num_images: int) -> Path:
    """A COCO folder with that many images, written as it goes."""
    rng = random.Random(0)
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    path = folder / "annotations" / "instances_train.json"
    with path.open("w", encoding="utf-8") as file:
        file.write('{"info": {"year": 2017}, "images": [')
        for i in range(num_images):
            entry = {"id": i + 1, "width": 640, "height": 480, "file_name": f"{i:012d}.jpg", "license": 3}
            file.write((", " if i else "") + json.dumps(entry))
            (folder / "images" / f"{i:012d}.jpg").touch()
        file.write('], "annotations": [')
        for i in range(num_images * BOXES):
            w, h = round(rng.uniform(5, 200), 2), round(rng.uniform(5, 200), 2)
            box = [round(rng.uniform(0, 640 - w), 2), round(rng.uniform(0, 480 - h), 2), w, h]
            entry = {"id": i, "image_id": i // BOXES + 1, "category_id": i % 80 + 1, "bbox": box, "iscrowd": 0}
            entry["area"] = round(w * h, 2)
            file.write((", " if i else "") + json.dumps(entry))
        names = [{"id": i, "name": f"thing {i}", "supercategory": "things"} for i in range(1, 81)]
        file.write(f'], "categories": {json.dumps(names)}}}')
    return path


def measure(folder: Path) -> list[float]:
    """Seconds to read and to inspect; peak GB; boxes."""
    ran = subprocess.run([sys.executable, "-c", CHILD, str(folder)], capture_output=True, text=True, check=True)
    return [float(word) for word in ran.stdout.split()]


def main() -> None:
    asked = dict(word.split("=", 1) for word in sys.argv[1:])
    if asked.get("keep") == "true" and "images" in asked:
        sys.exit("keep=true rewrites the whole table: leave images= away")
    counts = [int(word) for word in asked.get("images", "10000,100000,1000000").split(",")]
    rows = [f"{'images':>9}  {'boxes':>10}  {'file, MB':>8}  {'read, s':>7}  {'inspect, s':>10}  {'peak, GB':>8}"]
    with tempfile.TemporaryDirectory(dir=asked.get("out")) as scratch:
        for count in counts:
            folder = Path(scratch) / str(count)
            size = write_file(folder, count).stat().st_size / 1e6
            read, inspected, peak, boxes = measure(folder)
            rows.append(f"{count:9,}  {int(boxes):10,}  {size:8.0f}  {read:7.1f}  {inspected:10.1f}  {peak:8.2f}")
            print(rows[-1], flush=True)
    print("\n".join(rows))
    if asked.get("keep") == "true":
        page = Path(__file__).parents[1] / "docs" / "scale.md"
        head = (
            "# A large COCO file, read and inspected without opening an image\n\n`python bench/coco_scale.py keep=true`"
        )
        page.write_text(f"{head}\n\n```text\n" + "\n".join(rows) + "\n```\n", encoding="utf-8")


if __name__ == "__main__":
    main()
