"""No file of the repository names a path of one machine or the host of a package index."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

# Written in pieces, so that this file does not hold them.
SLASH = "/"
MACHINE = [
    *(re.escape(SLASH + name + SLASH) for name in ("work", "root", "opt" + SLASH + "pypi")),
    re.escape(SLASH + "opt" + SLASH + "wheels"),
    "pypi" + r"\.org",
    "files" + r"\.pythonhosted",
    "download" + r"\.pytorch\.org",
    "--(extra-)?index" + "-url",
]
# A path begins after white space, a quote or the like: `a/work/b` names a folder of anybody's.
_MACHINE = re.compile("|".join(rf"(?<![\w.\-/]){found}" if found[0] == SLASH else found for found in MACHINE))
_SHARED = re.compile(re.escape("..") + SLASH + "shared")
MAY_NAME_SHARED = {Path("tests/conftest.py"), Path("tests/contracts/test_words.py")}


def check_words(path: Path, text: str) -> list[str]:
    """Every line that names this machine; in src, tests and bench also one that names the shared data."""
    faults = []
    for number, line in enumerate(text.splitlines(), start=1):
        found = _MACHINE.search(line)
        if found is None and path.parts[0] in ("src", "tests", "bench") and path not in MAY_NAME_SHARED:
            found = _SHARED.search(line)
        if found is not None:
            faults.append(f"{path}:{number}: names {found[0]!r}")
    return faults


def test_no_file_names_a_machine(root: Path, checkout: tuple[Path, ...]) -> None:
    faults, num_read = [], 0
    for path in checkout:
        content = (root / path).read_bytes()
        if b"\0" in content:  # an image, a weight file
            continue
        faults += check_words(path, content.decode("utf-8"))
        num_read += 1
    assert num_read > 20
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    "line",
    [
        'open("' + SLASH + 'work/main/x")',
        "cd " + SLASH + "root/x",
        "find-links = " + SLASH + "opt/wheels",
        "https://" + "pypi" + ".org/simple",
        "--extra-index" + "-url x",
    ],
)
def test_machine_is_reported(line: str) -> None:
    assert len(check_words(Path("docs/page.md"), f"one\n{line}\n")) == 1
    assert check_words(Path("docs/page.md"), f"one\n{line}\n")[0].startswith("docs/page.md:2")


def test_shared_data_is_reported_in_code_only() -> None:
    line = 'Path(".."' + " / 'x') # .." + SLASH + "shared/data"
    assert len(check_words(Path("tests/data/test_coco.py"), line)) == 1
    assert check_words(Path("README.md"), line) == []


@pytest.mark.parametrize("line", ["src/work/x.py", "https://example.com/root/", "works / root", "index of urls"])
def test_other_words_are_quiet(line: str) -> None:
    assert check_words(Path("src/boxtune/x.py"), line) == []
