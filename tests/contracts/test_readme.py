"""The README's tree equals the disk, and its first two commands are the demo and the tests.

The tree is a block fenced as ```tree: one entry a line, a folder with a slash at its end, depth in steps of four
characters of box drawing, a comment after two spaces.

    src/boxtune/
    ├── boxes.py            Boxes
    └── data/               files on disk
        └── coco.py         COCO
    tests/                  mirrors src
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

UNNAMED = {"src/boxtune/__init__.py", "src/boxtune/__main__.py"}  # may be left out: every package has them
_FENCE = re.compile(r"^```(?P<tag>\S*)[^\n]*\n(?P<body>.*?)^```\s*$", re.MULTILINE | re.DOTALL)
_ENTRY = re.compile(r"^(?P<lead>[│├└─ ]*)(?P<name>\S+)(?:  +.*)?$")


def find_blocks(text: str) -> list[tuple[str, str]]:
    """Tag and text of every fenced block, in order."""
    return [(block["tag"], block["body"]) for block in _FENCE.finditer(text)]


def parse_tree(body: str) -> list[str]:
    """The paths that a tree block names, relative to the root; folders end in a slash.

    Raises ValueError on a line that is no entry, or that stands deeper than the folder above it.
    """
    paths: list[str] = []
    above: list[str] = []
    for line in filter(str.strip, body.splitlines()):
        entry = _ENTRY.match(line)
        depth = len(entry["lead"]) // 4 if entry else 0
        if entry is None or len(entry["lead"]) % 4 or depth > len(above):
            raise ValueError(f"not an entry of a tree: {line!r}")
        path = "".join(above[:depth]) + entry["name"]
        paths.append(path)
        above = [*above[:depth], *([entry["name"]] if path.endswith("/") else [])]
    return paths


def check_tree(named: list[str], files: tuple[Path, ...]) -> list[str]:
    """What the tree names and the disk does not hold, what it must name and does not, and what it names twice.

    It must name every folder at the top whose name does not begin with a dot, and every module and folder directly
    in src/boxtune.
    """
    on_disk = {path.as_posix() for path in files} | {
        folder.as_posix() + "/" for path in files for folder in path.parents if folder.parts
    }
    wanted = {path for path in on_disk if re.fullmatch(r"(?!\.|src/)[^/]+/|src/boxtune/[^/]+(/|\.py)", path)} - UNNAMED
    faults = [f"{path} is named and does not exist" for path in named if path not in on_disk]
    faults += [f"{path} exists and is not named" for path in sorted(wanted - set(named))]
    return faults + [f"{path} is named twice" for path in sorted(set(named)) if named.count(path) > 1]


def find_commands(text: str) -> list[str]:
    """The command lines of every block but trees, in order; empty lines, comments and prompts are taken off."""
    lines = [line for tag, body in find_blocks(text) if tag != "tree" for line in body.splitlines()]
    bare = [re.sub(r"(^|\s+)#.*$", "", line).strip().removeprefix("$ ") for line in lines]
    return [line for line in bare if line]


@pytest.fixture(scope="module")
def readme(root: Path) -> str:
    return (root / "README.md").read_text(encoding="utf-8")


def test_tree_equals_disk(readme: str, checkout: tuple[Path, ...]) -> None:
    trees = [body for tag, body in find_blocks(readme) if tag == "tree"]
    assert len(trees) == 1, "the README holds one block fenced as ```tree"
    faults = check_tree(parse_tree(trees[0]), checkout)
    assert not faults, "\n".join(faults)


def test_the_table_of_the_embedded_model_is_the_measured_one(readme: str, root: Path) -> None:
    page = (root / "docs" / "embedded.md").read_text(encoding="utf-8")
    table = page.split("```text\n")[1].split("```")[0]
    assert table.count("\n") > 10
    assert f"<!-- embedded -->\n```text\n{table}```" in readme


def test_first_commands(readme: str) -> None:
    assert find_commands(readme)[:2] == ["make demo", "make test"]


FILES = tuple(
    Path(name)
    for name in (
        "README.md .ci/run bench/startup.py src/boxtune/__init__.py src/boxtune/boxes.py src/boxtune/py.typed "
        "src/boxtune/data/coco.py tests/contracts/test_readme.py"
    ).split()
)
TREE = """
bench/                  how fast
tests/                  mirrors src
src/boxtune/
├── boxes.py            Boxes: a comment with  two spaces
└── data/
    └── coco.py         COCO
"""


def test_parse_tree() -> None:
    assert parse_tree(TREE) == [
        "bench/",
        "tests/",
        "src/boxtune/",
        "src/boxtune/boxes.py",
        "src/boxtune/data/",
        "src/boxtune/data/coco.py",
    ]
    assert parse_tree("src/\n└── boxtune/\n    └── data/\ntests/\n")[-2:] == ["src/boxtune/data/", "tests/"]


@pytest.mark.parametrize("line", ["two words", "        └── deep.py", "  odd.py"])
def test_parse_tree_refuses(line: str) -> None:
    with pytest.raises(ValueError, match="not an entry"):
        parse_tree(f"tests/\n{line}\n")


def test_sound_tree_has_no_faults() -> None:
    assert check_tree(parse_tree(TREE), FILES) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("bench/                  how fast\n", "", "bench/ exists and is not named"),
        ("bench/ ", "benches/ ", "benches/ is named and does not exist"),
        ("├── boxes.py            Boxes: a comment with  two spaces\n", "", "src/boxtune/boxes.py exists and is not"),
        ("boxes.py ", "boxes/ ", "src/boxtune/boxes/ is named and does not exist"),
        ("└── data/\n    └── coco.py         COCO\n", "", "src/boxtune/data/ exists and is not named"),
        ("coco.py ", "yolo.py ", "src/boxtune/data/yolo.py is named and does not exist"),
        ("tests/ ", "bench/ ", "bench/ is named twice"),
    ],
)
def test_wrong_tree_is_reported(old: str, new: str, fault: str) -> None:
    assert old in TREE
    assert any(found.startswith(fault) for found in check_tree(parse_tree(TREE.replace(old, new)), FILES))


def test_find_commands() -> None:
    text = "words\n```tree\ntests/\n```\n```bash\n# first\n$ make demo   # a minute\n\nmake test\n```\n`make x`\n"
    assert find_commands(text) == ["make demo", "make test"]
    assert find_commands("```\npip install boxtune\n```\n" + text)[0] == "pip install boxtune"


def test_formats_and_families_are_counted_and_listed(readme: str, root: Path) -> None:
    from boxtune.data import FORMATS
    from boxtune.families import FAMILIES

    known = [name for name, family in FAMILIES.items() if family.knows_processor]
    assert f"any of {len(FORMATS)} formats" in readme and f"; {len(known)}\nfamilies are known" in readme
    table = (root / "docs" / "data.md").read_text(encoding="utf-8").partition("| `format=` |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines()[2:]]
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(FORMATS)
