"""The edit of the user's own script that mends a known fault, as a diff."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Sequence
from pathlib import Path

from boxtune.guard.trace import Frame


def suggest_edit(chain: Sequence[Frame]) -> str:
    """A unified diff of the user's file, empty where no edit is known for this chain.

    Known: a model that was prepared for k-bit training a second time. Where the script attaches the adapter itself and
    hands the result to a trainer, the config goes to the trainer instead; else the second call is taken out.
    """
    own = next((frame for frame in chain if not frame.package), None)
    if own is None or "prepare_model_for_kbit_training" not in [frame.function for frame in chain]:
        return ""
    path = Path(own.file)
    try:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
    except (OSError, SyntaxError, UnicodeDecodeError):
        return ""
    edited = _peft_config_to_trainer(text, tree) if any(f.package == "trl" for f in chain) else None
    if edited is None:
        edited = _without_second_prepare(text, tree, own.line)
    if edited is None or edited == text:
        return ""
    name = str(own).split(":")[0]
    diff = difflib.unified_diff(text.splitlines(), edited.splitlines(), name, name, n=0, lineterm="")
    return "\n".join(diff)


def _calls(tree: ast.AST, name: str) -> list[ast.Call]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called == name:
                found.append(node)
    return sorted(found, key=lambda call: call.lineno)


def _statement(tree: ast.AST, call: ast.Call) -> ast.stmt | None:
    """The innermost statement that holds the call."""
    inside = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt)
        and node.lineno <= call.lineno
        and (node.end_lineno or 0) >= (call.end_lineno or 0)
    ]
    return max(inside, key=lambda node: node.lineno, default=None)


def _renames_only(tree: ast.AST, call: ast.Call) -> tuple[int, int] | None:
    """First and last line of `model = f(model, ...)` or `f(model)`, which can be taken out; else None."""
    statement = _statement(tree, call)
    if isinstance(statement, ast.Assign) and statement.value is call and len(statement.targets) == 1:
        target, given = statement.targets[0], call.args[0] if call.args else None
        if isinstance(target, ast.Name) and isinstance(given, ast.Name) and target.id == given.id:
            return statement.lineno, statement.end_lineno or statement.lineno
    if isinstance(statement, ast.Expr) and statement.value is call:
        return statement.lineno, statement.end_lineno or statement.lineno
    return None


def _peft_config_to_trainer(text: str, tree: ast.AST) -> str | None:
    attach = _calls(tree, "get_peft_model")
    trainers = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and (node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")).endswith(
            "Trainer"
        )
    ]
    if len(attach) != 1 or len(trainers) != 1 or not trainers[0].keywords:
        return None
    config = attach[0].args[1] if len(attach[0].args) > 1 else None
    config = config or next((k.value for k in attach[0].keywords if k.arg == "peft_config"), None)
    if config is None or any(k.arg == "peft_config" for k in trainers[0].keywords):
        return None
    drop: set[int] = set()
    for call in (attach[0], *_calls(tree, "prepare_model_for_kbit_training")):
        lines = _renames_only(tree, call)
        if lines is None:
            return None
        drop.update(range(lines[0], lines[1] + 1))
    lines_out = text.splitlines(keepends=True)
    last = trainers[0].keywords[-1].value
    row, column = (last.end_lineno or last.lineno) - 1, last.end_col_offset or 0
    # Columns of the syntax tree count bytes.
    raw = lines_out[row].encode()
    lines_out[row] = (raw[:column] + f", peft_config={ast.unparse(config)}".encode() + raw[column:]).decode()
    return "".join(line for number, line in enumerate(lines_out, 1) if number not in drop)


def _without_second_prepare(text: str, tree: ast.AST, line: int) -> str | None:
    for call in _calls(tree, "prepare_model_for_kbit_training"):
        if call.lineno <= line <= (call.end_lineno or call.lineno) and (lines := _renames_only(tree, call)):
            kept = text.splitlines(keepends=True)
            return "".join(kept[: lines[0] - 1] + kept[lines[1] :])
    return None
