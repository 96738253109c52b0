"""Whatever stands in the place of a value, a reader of an annotation tool says what is wrong or reads the rest."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxtune.data.draft import Options
from boxtune.data.formats import FORMATS
from boxtune.errors import DataError

from . import test_supervisely, test_via, test_vott
from .labelstudio_cases import annotation, item, task
from .test_createml import box, entry
from .tool_cases import pictures, put

VALUES: tuple[Any, ...] = (None, True, "", "text", 0, -1.5, float("inf"), [], {}, [None], [[1]], {"a": 1}, [1, 2, 3, 4])
MISSING = object()
SIZE = {"width": 64, "height": 48}
POLYGON = test_via.SHAPES["polygon"][0]
DOCUMENTS: dict[str, tuple[str, str, Any]] = {
    "createml": ("createml", "a.json", [entry("a.png", box()), entry("b.png")]),
    "labelstudio": ("labelstudio", "a.json", [task(1, "a.png", annotation(item(rotation=9))), task(2, "b.png")]),
    "via project": ("via", "a.json", test_via.project(test_via.metadata(a_png=[test_via.region(POLYGON, label="c")]))),
    "via 3": ("via", "a.json", test_via.project_3(a_png=[[2, 1, 2, 3, 4], [7, 1, 2, 3, 4, 5, 6]], b_png=[])),
    "vott": ("vott", "a.json", test_vott.export(test_vott.asset("a.png", test_vott.region("cat")))),
    "supervisely": ("supervisely", "ds/ann/a.png.json", {"size": SIZE, "objects": [test_supervisely.one()]}),
    "supervisely meta": ("supervisely", "meta.json", test_supervisely.META),
}


def paths(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside."""
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in inner:
        yield (*path, key)
        yield from paths(value, (*path, key))


def changed(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    content = copy.deepcopy(content)
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    if value is MISSING:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return content


@pytest.mark.slow
@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_changed_value_is_refused_in_words_or_left_aside(tmp_path: Path, name: str) -> None:
    format, place, content = DOCUMENTS[name]
    pictures(tmp_path, "a.png", "b.png")
    pictures(tmp_path / "ds" / "img", "a.png")
    if format == "supervisely":
        put(tmp_path / "meta.json", test_supervisely.META)
        test_supervisely.write(tmp_path / "ds", "a.png", test_supervisely.one())
    read = refused = 0
    for path in paths(content):
        for value in (*VALUES, MISSING):
            put(tmp_path / place, json.dumps(changed(content, path, value)))
            FORMATS[format].sniff(tmp_path)
            try:
                raw = FORMATS[format].read(tmp_path if format == "supervisely" else tmp_path / place, Options())
            except DataError as problem:
                assert problem.where and problem.fix, (path, value, problem.what)
                refused += 1
            else:
                assert all(np.isfinite(draft.xyxy).all() for draft in raw.drafts), (path, value)
                assert all(label.strip() for draft in raw.drafts for label in draft.name_codes), (path, value)
                read += 1
    assert refused > 5 and read > 5
