"""Who may import whom, where torch may stand, how long a file may be, and what it must not be called."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

LEAVES = "artifacts boxes config errors pictures settings"
STAGES = "families data finetune guard infer measure report serve ship tiny"

# Part of src/boxtune -> the parts of ours that it may import, itself apart.
MAY_IMPORT = {
    "artifacts": LEAVES,
    "boxes": LEAVES,
    "config": LEAVES,
    "errors": LEAVES,
    "pictures": LEAVES,
    "settings": LEAVES,
    "families": LEAVES,
    "data": f"{LEAVES} families",
    "launch": LEAVES,
    "finetune": f"{LEAVES} launch families data __init__",  # the version, for the run card
    "guard": "",
    "infer": f"{LEAVES} families data finetune",
    "measure": f"{LEAVES} families data",
    "report": f"{LEAVES} families data measure",
    "serve": f"{LEAVES} families infer",
    "ship": f"{LEAVES} families data finetune infer measure",
    "tiny": f"{LEAVES} families data",
    "journal": f"{LEAVES} {STAGES}",
    "answers": f"{LEAVES} {STAGES} journal",
    "run": f"{LEAVES} {STAGES} launch journal answers",
    "check": f"{LEAVES} {STAGES} run",
    "evaluate": f"{LEAVES} {STAGES} answers run",
    "cli": f"{LEAVES} {STAGES} launch run check evaluate __init__",
    "__main__": f"{LEAVES} {STAGES} run cli",
    "__init__": f"{LEAVES} {STAGES} run",
}
TORCH_FREE = f"{LEAVES} families data measure report".split()
TORCH_STAGES = "finetune guard infer serve ship tiny".split()
LATE = "launch journal answers run check evaluate cli __main__ __init__".split()
TORCH = "torch torchvision transformers trl peft accelerate bitsandbytes safetensors.torch".split()

MOST_LINES = 400
SAYS_NOTHING = "utils util misc helpers helper common core base".split()

Rule = Callable[[Path, str], list[str]]


@dataclass(frozen=True, kw_only=True)
class Import:
    """One imported name, absolute and dotted; `at_import` if it is loaded when its file is."""

    name: str
    line: int
    at_import: bool

    def is_of(self, package: str) -> bool:
        return self.name == package or self.name.startswith(package + ".")

    @property
    def part(self) -> str | None:
        """The part of ours that it belongs to, `__init__` for what the package itself exports; None if not ours."""
        first, *rest = self.name.split(".")
        if first != "boxtune":
            return None
        return rest[0] if rest and rest[0] in MAY_IMPORT else "__init__"


def find_imports(path: Path, source: str) -> list[Import]:
    """Every import in the source, those inside functions and by `import_module("...")` too.

    `path` is relative to src; relative imports are resolved with it.
    """
    return list(_walk(ast.parse(source), path, at_import=True))


def _walk(node: ast.AST, path: Path, *, at_import: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(name=alias.name, line=node.lineno, at_import=at_import)
    elif isinstance(node, ast.ImportFrom):
        above = path.parts[: len(path.parts) - node.level] if node.level else ()
        module = ".".join([*above, *([node.module] if node.module else [])])
        for alias in node.names:
            yield Import(name=f"{module}.{alias.name}", line=node.lineno, at_import=at_import)
    elif isinstance(node, ast.Call) and node.args:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        first = node.args[0]
        if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
            yield Import(name=str(first.value), line=node.lineno, at_import=at_import)
    late = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for name, value in ast.iter_fields(node):
        # Decorators, defaults and what stands under `else` of `if TYPE_CHECKING` do run when the file is loaded.
        inside = (late and name == "body") or (_only_for_types(node) and name == "body")
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _walk(child, path, at_import=at_import and not inside)


def _only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def part_of(path: Path) -> str:
    """The part a file belongs to: `data` for boxtune/data/coco.py, `run` for boxtune/run.py."""
    return path.with_suffix("").parts[1]


def check_known(path: Path, source: str) -> list[str]:
    part = part_of(path)
    return [] if part in MAY_IMPORT else [f"{path}: the part {part!r} does not stand in the table"]


def check_table(path: Path, source: str) -> list[str]:
    part = part_of(path)
    allowed = {part, *MAY_IMPORT.get(part, "").split()}
    return [
        f"{path}:{found.line}: {part} imports {found.name}; it may import {MAY_IMPORT.get(part) or 'nothing of ours'}"
        for found in find_imports(path, source)
        if found.part is not None and found.part not in allowed
    ]


def check_torch_free(path: Path, source: str) -> list[str]:
    if part_of(path) not in TORCH_FREE:
        return []
    return [
        f"{path}:{found.line}: {part_of(path)} imports {found.name}, and stays free of torch"
        for found in find_imports(path, source)
        if any(found.is_of(package) for package in TORCH)
    ]


def check_torch_late(path: Path, source: str) -> list[str]:
    if part_of(path) not in LATE:
        return []
    return [
        f"{path}:{found.line}: {part_of(path)} imports {found.name} outside a function"
        for found in find_imports(path, source)
        if found.at_import and (found.part in TORCH_STAGES or any(found.is_of(package) for package in TORCH))
    ]


def check_length(path: Path, source: str) -> list[str]:
    lines = len(source.splitlines())
    return [f"{path}: {lines} lines, more than {MOST_LINES}"] if lines > MOST_LINES else []


def check_name(path: Path, source: str) -> list[str]:
    names = path.with_suffix("").parts
    return [f"{path}: {name!r} does not say what is inside" for name in names if name in SAYS_NOTHING]


@pytest.mark.slow
@pytest.mark.parametrize("rule", [check_known, check_table, check_torch_free, check_torch_late])
def test_package_keeps(rule: Rule, root: Path) -> None:
    src = root / "src"
    paths = sorted((src / "boxtune").rglob("*.py"))
    assert len(paths) >= 10
    faults = [fault for path in paths for fault in rule(path.relative_to(src), path.read_text(encoding="utf-8"))]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("rule", [check_length, check_name])
def test_every_file_keeps(rule: Rule, root: Path) -> None:
    faults = []
    for folder in ("src", "tests", "bench", "compat"):
        paths = sorted((root / folder).rglob("*.py"))
        assert paths, folder
        faults += [f for path in paths for f in rule(path.relative_to(root), path.read_text(encoding="utf-8"))]
    assert not faults, "\n".join(faults)


BROKEN: list[tuple[Rule, str, str, str]] = [
    (check_known, "boxtune/plugins/one.py", "", "'plugins'"),
    (check_table, "boxtune/measure/scores.py", "from boxtune.finetune.load import load_model", "boxtune.finetune"),
    (check_table, "boxtune/measure/scores.py", "from boxtune import report", "boxtune.report"),
    (check_table, "boxtune/measure/scores.py", "import boxtune.infer.model", "boxtune.infer.model"),
    (check_table, "boxtune/measure/scores.py", "def f():\n    from boxtune import run", "measure/scores.py:2"),
    (check_table, "boxtune/data/coco.py", "from ..measure import scores", "boxtune.measure"),
    (check_table, "boxtune/data/__init__.py", "from ..tiny import scenes", "boxtune.tiny"),
    (check_table, "boxtune/data/__init__.py", "from .. import tiny", "boxtune.tiny"),
    (check_table, "boxtune/boxes.py", "from boxtune.data import sample", "boxtune.data"),
    (check_table, "boxtune/guard/watch.py", "from boxtune.errors import Finding", "nothing of ours"),
    (check_table, "boxtune/tiny/model.py", "from boxtune import load", "boxtune.load"),
    (check_table, "boxtune/tiny/model.py", "import boxtune", "boxtune;"),
    (check_table, "boxtune/tiny/model.py", "import importlib\nimportlib.import_module('boxtune.run')", "boxtune.run"),
    (check_table, "boxtune/run.py", "import boxtune.cli", "boxtune.cli"),
    (check_torch_free, "boxtune/data/coco.py", "def f():\n    import torch", "coco.py:2"),
    (check_torch_free, "boxtune/families/one.py", "from transformers import AutoProcessor", "transformers"),
    (check_torch_free, "boxtune/report/page.py", "if TYPE_CHECKING:\n    import peft", "peft"),
    (check_torch_free, "boxtune/config.py", "from safetensors.torch import load_file", "safetensors.torch"),
    (check_torch_late, "boxtune/run.py", "from boxtune.finetune import train", "boxtune.finetune"),
    (check_torch_late, "boxtune/cli.py", "class A:\n    import torch", "torch"),
    (check_torch_late, "boxtune/__init__.py", "from . import guard", "boxtune.guard"),
    (check_torch_late, "boxtune/__main__.py", "if not TYPE_CHECKING:\n    import boxtune.infer", "boxtune.infer"),
    (check_torch_late, "boxtune/run.py", "if TYPE_CHECKING:\n    pass\nelse:\n    import trl", "trl"),
    (check_length, "tests/test_long.py", "x = 1\n" * 401, "401 lines"),
    (check_name, "src/boxtune/data/utils.py", "", "'utils'"),
    (check_name, "tests/helpers/files.py", "", "'helpers'"),
]


@pytest.mark.parametrize(("rule", "path", "source", "words"), BROKEN)
def test_breach_is_reported(rule: Rule, path: str, source: str, words: str) -> None:
    faults = rule(Path(path), source)
    assert len(faults) == 1 and words in faults[0], faults


SOUND: list[tuple[Rule, str, str]] = [
    (check_known, "boxtune/data/coco.py", ""),
    (check_table, "boxtune/data/coco.py", "from boxtune.data.sample import Sample\nfrom . import images\nimport json"),
    (
        check_table,
        "boxtune/guard/watch.py",
        "from boxtune.guard import found\nfrom .found import Seen\nimport torch",
    ),
    (check_table, "boxtune/boxes.py", "from boxtune import errors"),
    (check_table, "boxtune/boxes.py", "import boxtune_extras"),
    (check_torch_free, "boxtune/finetune/load.py", "import torch"),
    (check_torch_free, "boxtune/data/coco.py", "import torchlight\nimport safetensors"),
    (check_torch_late, "boxtune/run.py", "import boxtune.data\ndef f():\n    import torch\n    import boxtune.infer"),
    (check_torch_late, "boxtune/__init__.py", "if TYPE_CHECKING:\n    from boxtune.infer import Model"),
    (check_torch_late, "boxtune/tiny/model.py", "import torch"),
    (check_length, "tests/test_long.py", "x = 1\n" * 400),
    (check_name, "src/boxtune/data/common_objects.py", ""),
]


@pytest.mark.parametrize(("rule", "path", "source"), SOUND)
def test_sound_file_is_not_reported(rule: Rule, path: str, source: str) -> None:
    assert rule(Path(path), source) == []


def test_table_names_only_its_own_parts() -> None:
    named = {part for allowed in MAY_IMPORT.values() for part in allowed.split()}
    assert named | set(TORCH_FREE) | set(TORCH_STAGES) | set(LATE) == set(MAY_IMPORT)


def test_every_part_has_one_place_for_torch() -> None:
    assert sorted([*TORCH_FREE, *TORCH_STAGES, *LATE]) == sorted(MAY_IMPORT)
