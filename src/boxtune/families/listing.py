"""What people are told of all families: a table and a paragraph each, for the terminal and for docs/families.md."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from boxtune.boxes import Boxes
from boxtune.families import FAMILIES
from boxtune.families.family import Family, Frame

WIDTH = 120
EXAMPLE_WH = (640, 480)
EXAMPLE_CLASSES = ("cat", "dog")
HEAD = ("family", "models", "coordinates", "r", "learning rate")


def list_families() -> str:
    """The table and a paragraph for each family, in lines of at most 120 columns."""
    rows = [HEAD, *(_row(family) for family in FAMILIES.values())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    table.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*table, *(line for family in FAMILIES.values() for line in ("", *describe_family(family)))])


def families_page() -> str:
    """docs/families.md: the same in Markdown."""
    table = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    # Code spans, since Markdown would take <loc0000> for HTML.
    table += [f"| {' | '.join(f'`{cell}`' for cell in _row(family))} |" for family in FAMILIES.values()]
    lines = [INTRODUCTION, *table]
    for family in FAMILIES.values():
        lines += ["", f"## {family.about.title}", "", "````text", *describe_family(family), "````"]
    return "\n".join([*lines, ""])


INTRODUCTION = """\
# Model families

How each family is asked for boxes and how it writes them. `boxtune families` prints the same. This page is written by
`python -m boxtune.families.listing`; a test keeps it equal.

- A description of a class stands in brackets behind its name in the question, in every family: `cat (a small animal)`.
  The name itself stays as it is, since the answer repeats it letter by letter.
- Boxes are written by class in the order asked for, then from top to bottom, then from left to right.
- A corner moves by half a step of the numbers at most. A side thinner than a step is made a step wide. Qwen2.5-VL
  cannot name the last pixel of a side; Kosmos-2 reads a box inside one row or column of cells as those cells.
- Where something could not be verified, the line `source` says `unsure`.
- A model of another type is refused. The way out is `family=json1000`, a grammar that the model must first learn.
"""


def describe_family(family: Family) -> list[str]:
    """The paragraph of a family, as lines."""
    about, defaults = family.about, family.defaults
    budget = defaults.min_pixels, defaults.max_pixels
    frame = Frame(original_wh=EXAMPLE_WH, seen_wh=family.seen_wh(EXAMPLE_WH, *budget))
    seen = f"{EXAMPLE_WH[0]}x{EXAMPLE_WH[1]} is seen as {frame.seen_wh[0]}x{frame.seen_wh[1]}"
    tokens = f", {family.num_image_tokens(EXAMPLE_WH, *budget)} visual tokens" if family.knows_processor else ""
    nothing = family.encode(Boxes.none(), frame, EXAMPLE_CLASSES)
    pixels = f"{budget[0]} pixels" if budget[0] == budget[1] else f"{budget[0]} to {budget[1]} pixels"
    settings = f"learning rate {defaults.learning_rate:g}, r {defaults.r}, alpha {defaults.alpha}, {pixels}"
    return [
        f"{family.name}: {about.title} (model_type {', '.join(family.model_types) or 'of any other kind'})",
        *_lines("prompt", _shown(family.prompt(EXAMPLE_CLASSES, family.image_token))),
        *_lines("answer", about.grammar),
        *_lines("nothing", _shown(nothing) if nothing else "an empty answer, the end at once"),
        *_lines("numbers", f"{about.coordinates}; {about.rounding}"),
        *_lines("image", f"{about.resize}; {seen}{tokens}"),
        *_lines("defaults", settings),
        *_lines("from", defaults.source),
        *_lines("source", about.source),
    ]


def _row(family: Family) -> tuple[str, ...]:
    defaults = family.defaults
    return family.name, family.about.title, family.about.coordinates, str(defaults.r), f"{defaults.learning_rate:g}"


def _shown(text: str) -> str:
    """Text with its line ends as they would stand in a program."""
    return text.replace("\n", "\\n").replace("\t", "\\t")


def _lines(what: str, text: str) -> Sequence[str]:
    """`what` and the text beside it, wrapped."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=f"  {what:<9}",
        subsequent_indent=" " * 11,
        break_on_hyphens=False,
    )


if __name__ == "__main__":
    print(families_page(), end="")
