"""One data set -> the same in another format, images and all: COCO, YOLO, Pascal VOC or JSON lines."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from boxtune.data.broken import leave_out_broken
from boxtune.data.convert_formats import TARGETS, Placed
from boxtune.data.formats import read_dataset
from boxtune.data.frames import AskedFrame
from boxtune.data.images import open_image, read_header
from boxtune.data.sample import Dataset, Sample
from boxtune.errors import ConfigError, DataError, name_some

_AS_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")
_LOSSLESS = (".png", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What was written: the folder, the format, (images, boxes, negatives) of each split, and what there is to say."""

    path: Path
    to: str
    splits: Mapping[str, tuple[int, int, int]]
    lines: Sequence[str]

    def as_text(self) -> str:
        """What `boxtune convert` prints."""
        rows = [
            f"  {split}: {images:,} images, {boxes:,} boxes, {negatives:,} negatives"
            for split, (images, boxes, negatives) in self.splits.items()
        ]
        return "\n".join([f"{self.path}: {self.to}", *rows, *(f"  {line}" for line in self.lines)])


def convert(
    src: str | Path,
    dst: str | Path,
    *,
    to: str,
    format: str = "auto",
    images: str | Path | None = None,
    boxes: str | None = None,
    frame: AskedFrame = "auto",
    link: bool = False,
) -> Conversion:
    """The data set at `src` written to the folder `dst` as `coco`, `yolo`, `voc` or `jsonl`.

    `format`, `images`, `boxes` and `frame` say how `src` is to be read, as for `inspect`. Splits, class names and
    negatives are kept, and the order of classes where the format has one (COCO and YOLO). Crowd and ignored boxes keep
    their flags in COCO, are `difficult` in VOC, and are left out of YOLO and JSON lines, which cannot hold them; a line
    says how many.

    Image files are copied byte by byte, since some trainers mend images in place; `link=True` makes hard links instead
    where the file system can. A picture that EXIF turns is written upright, without EXIF (JPEG at quality 95): readers
    of these formats differ in whether they turn it, and its boxes are those of the upright one. Two images of one name
    get different ones. Everything is first written beside `dst`, so what is there is whole.

    Raises ConfigError for an unknown `to`, DataError if `dst` is not empty, and what reading and
    `leave_out_broken` raise.
    """
    if to not in TARGETS:
        raise ConfigError(f"cannot write {to!r}", where="to", fix=f"one of {', '.join(TARGETS)}")
    out, part = _require_empty(Path(dst).expanduser())
    source = read_dataset(src, format=format, images=None if images is None else Path(images), boxes=boxes)
    dataset = leave_out_broken(source, frame=frame)
    target = TARGETS[to]
    part.mkdir(parents=True)
    try:
        names = _name_images(dataset, across=target.names_across_splits)
        brought = _bring_images(dataset, names, {s: part / target.images(s) for s in dataset.splits}, link=link)
        placed = {split: _placed(samples, brought.names[split]) for split, samples in dataset.splits.items()}
        written = target.write(part, placed, dataset.classes)
        if out.exists():
            out.rmdir()
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return Conversion(
        path=out, to=to, splits=written.splits, lines=[*written.lines, *_tell(dataset, brought, names, link=link)]
    )


def _require_empty(out: Path) -> tuple[Path, Path]:
    """The folder to write to, and the one beside it for the work; DataError if there is something in either."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        what = f"{out} is there already" if not out.is_dir() else f"{out} is not empty"
        raise DataError(what, where=str(out), fix="give a folder that is new or empty: nothing is overwritten")
    part = out.with_name(f".{out.name}.part")
    if part.exists():
        raise DataError(f"{part} is left from a conversion that was cut off", where=str(part), fix="remove that folder")
    return out, part


def _name_images(dataset: Dataset, *, across: bool) -> dict[str, list[str]]:
    """The file name of each image of each split: its own, or its own with a number where another has it.

    Names are told apart without their suffix and the case of letters, as label files and some file systems do.
    """
    names: dict[str, list[str]] = {}
    taken: set[str] = set()
    for split, samples in dataset.splits.items():
        taken = taken if across else set()
        names[split] = []
        for file in _files(samples):
            stem, number = file.stem, 1
            while stem.casefold() in taken:
                number += 1
                stem = f"{file.stem}-{number}"
            taken.add(stem.casefold())
            names[split].append(stem + file.suffix)
    return names


def _files(samples: Sequence[Sample]) -> Iterator[Path]:
    return (sample.image for sample in samples)


@dataclass(frozen=True, kw_only=True)
class _Brought:
    """The names under which the images were brought, and how many were turned, linked and copied."""

    names: Mapping[str, Sequence[str]]
    turned: int
    linked: int
    copied: int


def _bring_images(
    dataset: Dataset, names: Mapping[str, Sequence[str]], folders: Mapping[str, Path], *, link: bool
) -> _Brought:
    brought: dict[str, list[str]] = {}
    counts = {"turned": 0, "linked": 0, "copied": 0}
    with ThreadPoolExecutor(max_workers=min(8, 2 * (os.cpu_count() or 1))) as pool:
        for split, samples in dataset.splits.items():
            folders[split].mkdir(parents=True, exist_ok=True)
            wanted = (folders[split] / name for name in names[split])
            brought[split] = []
            for name, how in pool.map(lambda file, to: _bring(file, to, link), _files(samples), wanted):
                brought[split].append(name)
                counts[how] += 1
    return _Brought(names=brought, **counts)


def _bring(file: Path, to: Path, link: bool) -> tuple[str, str]:
    """The name of the new file, and whether it was turned, linked or copied."""
    if read_header(file)[1] != 1:
        to = to.with_name(upright_name(to.name))
        write_upright(file, to)
        return to.name, "turned"
    if link:
        try:
            os.link(os.path.realpath(file), to)
            return to.name, "linked"
        except OSError:
            pass  # another disk, or a file system without links: copied below, and counted as such
    shutil.copyfile(file, to)
    return to.name, "copied"


def upright_name(name: str) -> str:
    """The name under which a picture is written upright: its own, or that of a PNG where its format is not written."""
    suffix = Path(name).suffix
    return name if suffix.lower() in (*_AS_JPEG, *_LOSSLESS) else f"{name.removesuffix(suffix)}.png"


def write_upright(file: Path, to: Path) -> None:
    """The picture of an image file written upright and without EXIF, as its `upright_name` says; JPEG at quality 95."""
    upright = open_image(file)
    if to.suffix.lower() in _AS_JPEG:
        upright.save(to, format="JPEG", quality=95, subsampling=0)
    else:
        upright.save(to)


def _placed(samples: Sequence[Sample], names: Sequence[str]) -> Iterator[Placed]:
    return (Placed(name=name, sample=sample) for name, sample in zip(names, samples, strict=True))


def _tell(dataset: Dataset, brought: _Brought, names: Mapping[str, Sequence[str]], *, link: bool) -> Iterator[str]:
    if brought.turned:
        yield f"{brought.turned:,} images that EXIF turns were written upright"
    if link:
        yield f"{brought.linked:,} images linked, {brought.copied:,} copied"
    pairs = (
        (file.name, name)
        for split, rows in dataset.splits.items()
        for file, name in zip(_files(rows), names[split], strict=True)
    )
    if renamed := [f"{old} -> {new}" for old, new in pairs if old != new]:
        yield f"images with another name, since two had the same: {len(renamed):,} ({name_some(renamed)})"
    levels = [finding.level for finding in dataset.findings]
    if told := [f"{levels.count(level)} {level}" for level in ("fail", "warn") if level in levels]:
        yield f"reading {dataset.path} had remarks: {', '.join(told)} (boxtune inspect shows them)"
