"""YOLO label files -> boxes: one row an object, numbers in shares of the image's sides.

    class cx cy w h                         detection
    class x1 y1 x2 y2 x3 y3 ...             a polygon, or the four corners of an oriented box: its hull is taken
    class cx cy w h px1 py1 v1 ...          with keypoints, as `kpt_shape` of a data.yaml announces them

Source: the dataset pages of ultralytics (detect, segment, obb, pose), and fill_truth_detection in darknet's data.c.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from boxtune.data.draft import Draft
from boxtune.data.formats.remarks import Remarks
from boxtune.errors import DataError, Level, name_some

REMARKS: dict[str, tuple[Level, str, str]] = {
    "yolo.hull": ("ok", "rows that are polygons or oriented boxes, taken by their upright hull", ""),
    "yolo.confidence": (
        "warn",
        "rows with a sixth number, which is left aside",
        "check that these are annotations: predictions are saved with their confidence there",
    ),
    "yolo.keypoints": ("ok", "rows with keypoints, of which only the box is taken", ""),
    "yolo.unlabelled": ("warn", "boxes of classes without a name, left out", "give every class a name"),
    "yolo.label_missing": (
        "warn",
        "images without a label file, kept as negatives",
        "take out what has not been annotated yet: such images teach that nothing is there",
    ),
    "yolo.negative": ("ok", "images without a label file, which are negatives", ""),
    "yolo.moved": ("ok", "listed images that lie in other folders than their list says", ""),
}
_FAR = 1.5  # a share beyond it is none: the row is most likely in pixels


class LabelReader:
    """Reads label files into drafts. `names` are the classes by id, None where ids are all there is."""

    def __init__(self, where: Path, names: Mapping[int, str] | None, *, keypoints: int = 0) -> None:
        self.where, self.names, self.keypoints = where, names, keypoints
        self.remarks = Remarks(where, REMARKS)
        self.read: set[Path] = set()
        self._num_rows = 0
        self._far: list[str] = []

    def read_into(self, draft: Draft, image: int, file: Path) -> None:
        """Add the boxes of a label file to the image; faults are kept for `require_sound`."""
        self.read.add(file)
        called = call_file(file, self.where)
        try:
            rows = file.read_bytes().decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            self.remarks.fault(f"{called}: no UTF-8 text")
            return
        except OSError as problem:
            self.remarks.fault(f"{called}: {problem.strerror}")
            return
        for number, row in enumerate(rows, start=1):
            if row.strip():
                self._read_row(draft, image, row, f"{called} line {number}")

    def require_sound(self) -> None:
        """Raises DataError, naming the first ones, if rows cannot be used, or most are no shares of the sides."""
        self.remarks.require_sound(
            "label rows that cannot be used", "a row is: class cx cy width height, in shares of the image's sides"
        )
        if len(self._far) > self._num_rows / 2:
            raise DataError(
                f"{len(self._far):,} of {self._num_rows:,} label rows go beyond the image: {name_some(self._far)}",
                where=str(self.where),
                fix="YOLO rows are shares of the image's sides (0..1): divide x by the width and y by the height",
            )

    def _read_row(self, draft: Draft, image: int, row: str, place: str) -> None:
        numbers = parse_row(row)
        if isinstance(numbers, str):
            self.remarks.fault(f"{place}: {numbers}")
            return
        class_id, rest = int(numbers[0]), numbers[1:]
        if self.names is not None and class_id not in self.names:
            known = f"{min(self.names)} to {max(self.names)}" if self.names else "none"
            self.remarks.fault(f"{place}: class {class_id}, where the names have {known}")
            return
        if len(rest) == 4 + self.keypoints or len(rest) in (4, 5):
            cx, cy, width, height = rest[:4]
            xyxy = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
            if len(rest) == 5 != 4 + self.keypoints:
                self.remarks.add("yolo.confidence", place)
            elif len(rest) > 4:
                self.remarks.add("yolo.keypoints", place)
        elif len(rest) % 2 == 0 and not self.keypoints:
            xs, ys = rest[0::2], rest[1::2]
            xyxy = (min(xs), min(ys), max(xs), max(ys))
            self.remarks.add("yolo.hull", place)
        else:
            expected = f"box and {self.keypoints} numbers of keypoints" if self.keypoints else "box nor points"
            self.remarks.fault(f"{place}: {len(numbers)} numbers, which are neither {expected}")
            return
        self._num_rows += 1
        if max(xyxy) > _FAR or min(xyxy) < 1 - _FAR:
            self._far.append(place)
        label = str(class_id) if self.names is None else self.names[class_id]
        if label:
            draft.add_box(image, label, xyxy)
        else:
            self.remarks.add("yolo.unlabelled", place)


def call_file(file: Path, where: Path) -> str:
    """A file for a message: relative to the folder `where`, or to that of the file `where`, if it lies below."""
    root = where if where.is_dir() else where.parent
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)


def parse_row(row: str) -> list[float] | str:
    """The numbers of a row, the class first; what is wrong with it, in words, where they cannot be a box."""
    numbers = []
    for word in row.split():
        try:
            value = float(word)
        except ValueError:
            return f"{word!r} is no number"
        if not math.isfinite(value):
            return f"{word} is no place"
        numbers.append(value)
    if len(numbers) < 5:
        return f"{len(numbers)} numbers, where a box has 5"
    if numbers[0] < 0 or numbers[0] != int(numbers[0]):
        return f"{numbers[0]:g} is no class"
    return numbers


def looks_like_row(row: str) -> bool:
    """Whether a line is a class id and at least four shares; for sniffing."""
    numbers = parse_row(row)
    return not isinstance(numbers, str) and all(1 - _FAR <= value <= _FAR for value in numbers[1:5])
