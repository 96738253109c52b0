"""Resize rules and image texts equal those of the installed transformers, whose own functions are run without torch.

The functions are cut out of transformers' files, since importing them would import torch. What they are given in place
of images knows its size only.
"""

from __future__ import annotations

import ast
import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from boxtune.families import FAMILIES

SHAPES = [(1, 1), (4, 1), (1, 4), (3, 2), (16, 9), (9, 16), (1, 2.39), (7, 5)]
SIZES = sorted(
    {
        (max(20, round(long * min(1, a / b))), max(20, round(long * min(1, b / a))))
        for a, b in SHAPES
        for long in (20, 97, 640, 1920, 10_000)
    }
    | {(448, 448), (384, 384), (449, 447), (1000, 20), (20, 1000), (768, 1152)}
)


def cut_out(path: str, *names: str, extra: dict[str, Any] | None = None) -> SimpleNamespace:
    """Functions and methods of these names from a file of transformers, as plain functions, decorators apart."""
    spec = importlib.util.find_spec("transformers")
    assert spec is not None and spec.origin is not None
    tree = ast.parse((Path(spec.origin).parent / path).read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name in names]
    assert sorted({node.name for node in found}) == sorted(names), f"transformers has changed: {path}"
    for node in found:
        node.decorator_list, node.returns = [], None
        for argument in [*node.args.args, *node.args.kwonlyargs]:
            argument.annotation = None
    space: dict[str, Any] = {"math": math, **(extra or {})}
    exec(compile(ast.Module(body=found, type_ignores=[]), path, "exec"), space)
    return SimpleNamespace(**{name: space[name] for name in names})


def budget(name: str) -> tuple[int, int]:
    return FAMILIES[name].defaults.min_pixels, FAMILIES[name].defaults.max_pixels


def test_there_are_enough_sizes() -> None:
    assert len(SIZES) >= 30
    assert any(max(size) == 10_000 for size in SIZES) and any(min(size) == 20 for size in SIZES)
    assert any(w == 4 * h for w, h in SIZES)


@pytest.mark.parametrize(("name", "factor"), [("qwen2_vl", 28), ("qwen2_5_vl", 28), ("qwen3_vl", 32), ("qwen3_5", 32)])
@pytest.mark.parametrize("bounds", [None, (56 * 56, 28 * 28 * 1280), (200_704, 200_704)])
def test_qwen(name: str, factor: int, bounds: tuple[int, int] | None) -> None:
    own = cut_out("models/qwen2_vl/image_processing_qwen2_vl.py", "smart_resize")
    least, most = bounds or budget(name)
    for width, height in SIZES:
        high, wide = own.smart_resize(height, width, factor, min_pixels=least, max_pixels=most)
        assert FAMILIES[name].seen_wh((width, height), least, most) == (wide, high)
        assert FAMILIES[name].num_image_tokens((width, height), least, most) == wide * high // factor**2


def test_glm() -> None:
    own = cut_out("models/glm4v/image_processing_glm4v.py", "smart_resize")
    family, (least, most) = FAMILIES["glm4v"], budget("glm4v")
    size = family.image_settings(least, most)["size"]
    for width, height in SIZES:
        high, wide = own.smart_resize(2, height, width, 2, 28, size["shortest_edge"], size["longest_edge"])
        assert family.seen_wh((width, height), least, most) == (wide, high)


@pytest.mark.parametrize("tiles", [1, 6, 12])
def test_internvl(tiles: int) -> None:
    own = cut_out(
        "models/got_ocr2/image_processing_got_ocr2.py", "get_all_supported_aspect_ratios", "get_optimal_tiled_canvas"
    )
    family, least, most = FAMILIES["internvl"], 448**2, tiles * 448**2
    assert family.image_settings(least, most)["max_patches"] == tiles
    for width, height in SIZES:
        columns, rows = own.get_optimal_tiled_canvas((height, width), (448, 448), 1, tiles)
        assert family.seen_wh((width, height), least, most) == (columns * 448, rows * 448)
        views = columns * rows + (columns * rows > 1)
        assert family.num_image_tokens((width, height), least, most) == 256 * views


class Shaped:
    """An image of which only the size is known, height before width as in transformers."""

    def __init__(self, height: int, width: int) -> None:
        self.shape = (3, height, width)

    def size(self) -> tuple[int, ...]:
        return self.shape


@pytest.mark.parametrize(("name", "tile"), [("idefics3", 364), ("smolvlm", 512), ("smolvlm", 384)])
@pytest.mark.parametrize("along", [1, 2, 4])
def test_idefics3(name: str, tile: int, along: int) -> None:
    path = "models/idefics3/image_processing_idefics3.py"
    steps = "_resize_output_size_rescale_to_max_len _resize_output_size_scale_below_upper_bound"
    own = cut_out(
        path,
        *steps.split(),
        "get_resize_output_image_size",
        "resize_for_vision_encoder",
        extra={"MAX_IMAGE_SIZE": 4096, "SizeDict": lambda **sides: Shaped(sides["height"], sides["width"])},
    )
    text = cut_out("models/idefics3/processing_idefics3.py", "replace_image_token")
    family, least, most = FAMILIES[name], tile**2, (along * tile) ** 2
    edge = family.image_settings(least, most)["size"]["longest_edge"]
    assert edge == along * tile
    processor = SimpleNamespace(
        fake_image_token="<fake_token_around_image>",
        global_image_tag="<global-img>",
        image_token="<image>",
        image_seq_len={364: 169, 384: 81, 512: 64}[tile],
        resize=lambda image, size, resample: size,
    )
    for width, height in SIZES:
        high, wide = own.get_resize_output_image_size(Shaped(height, width), edge)
        _, high, wide = own.resize_for_vision_encoder(processor, Shaped(high, wide), tile).shape
        assert family.seen_wh((width, height), least, most) == (wide, high), (width, height)
        split = high > tile or wide > tile
        made = {"rows": [[high // tile if split else 0]], "cols": [[wide // tile if split else 0]]}
        assert family.image_text((width, height), least, most) == text.replace_image_token(processor, made, 0)


def test_llava_onevision() -> None:
    own = cut_out(
        "image_processing_utils.py",
        "select_best_resolution",
        "get_patch_output_size",
        extra={"get_image_size": lambda image, channel_dim: image.shape[-2:]},
    )
    counts = cut_out(
        "models/llava_onevision/processing_llava_onevision.py",
        "_get_number_of_features",
        "_get_unpadded_features",
        extra={"select_best_resolution": own.select_best_resolution},
    )
    grids = [[rows * 384, columns * 384] for rows in range(1, 7) for columns in range(1, 7)]
    processor = SimpleNamespace(
        image_processor=SimpleNamespace(image_grid_pinpoints=grids),
        num_image_tokens=729,
        vision_aspect_ratio="anyres_max_9",
    )
    processor._get_unpadded_features = lambda *sizes: counts._get_unpadded_features(processor, *sizes)
    family, (least, most) = FAMILIES["llava_onevision"], budget("llava_onevision")
    for width, height in SIZES:
        best = own.select_best_resolution((height, width), grids)
        high, wide = own.get_patch_output_size(Shaped(height, width), best, None)
        assert family.seen_wh((width, height), least, most) == (wide, high)
        number = counts._get_number_of_features(processor, height, width, 384, 384)
        assert family.num_image_tokens((width, height), least, most) == number, (width, height)


@pytest.mark.parametrize("slices", [1, 4, 9])
def test_minicpm_v(slices: int) -> None:
    names = "ensure_divide find_best_resize get_refine_size get_sliced_grid"
    own = cut_out("models/minicpmv4_6/image_processing_minicpmv4_6.py", *names.split())
    text = cut_out("models/minicpmv4_6/processing_minicpmv4_6.py", "replace_image_token", extra={"np": FakeNumpy})
    images = SimpleNamespace(find_best_resize=lambda **told: own.find_best_resize(None, **told))
    processor = SimpleNamespace(
        image_start_token="<image>",
        image_end_token="</image>",
        slice_start_token="<slice>",
        slice_end_token="</slice>",
        image_token="<|image_pad|>",
        slice_mode=True,
    )
    family, least, most = FAMILIES["minicpm_v"], 448**2, slices * 448**2
    for width, height in SIZES:
        grid = own.get_sliced_grid(images, (height, width), slices, 448)
        high, wide = own.find_best_resize(images, (height, width), 448, 14, "16x", allow_upscale=grid is None)
        targets = [(high // 14, wide // 14)]
        if grid is not None:
            high, wide = own.get_refine_size(images, (height, width), grid, 448, 14, "16x", allow_upscale=True)
            targets += [(high // grid[0] // 14, wide // grid[1] // 14)] * (grid[0] * grid[1])
        assert family.seen_wh((width, height), least, most) == (wide, high), (width, height)
        made = {"grids": [grid or [0, 0]], "num_patches_per_image": [len(targets)], "target_sizes": Targets(targets)}
        written = text.replace_image_token(processor, made, 0, image_token_divisor=16)
        assert family.image_text((width, height), least, most) == written


class FakeNumpy:
    """What the processor asks of numpy, for a single image."""

    @staticmethod
    def cumsum(numbers: list[int]) -> list[int]:
        return numbers


class Targets(list[tuple[int, int]]):
    """Rows and columns of patches that can be sliced and multiplied, as the processor's tensor can."""

    def __getitem__(self, place: Any) -> Any:
        return Targets(super().__getitem__(place))

    def prod(self, axis: int) -> Any:
        return Counts([rows * columns for rows, columns in self])


class Counts(list[int]):
    """Numbers that can be divided as one."""

    def __floordiv__(self, by: int) -> list[int]:
        return [number // by for number in self]


@pytest.mark.parametrize(
    ("name", "own_side"),
    [("paligemma", 224), ("paligemma", 896), ("florence2", 768), ("gemma3", 896), ("kosmos2", 224)],
)
def test_squares(name: str, own_side: int) -> None:
    family, area = FAMILIES[name], own_side**2
    check: Callable[[tuple[int, int]], tuple[int, int]] = lambda size: family.seen_wh(size, area, area)  # noqa: E731
    assert {check(size) for size in SIZES} == {(own_side, own_side)}
    assert family.image_settings(area, area)["size"] == {"height": own_side, "width": own_side}
    with pytest.raises(ValueError, match="one size"):
        family.seen_wh((640, 480), area, area + 1)


def test_deepseek_vl() -> None:
    own = cut_out(
        "models/deepseek_vl/image_processing_deepseek_vl.py",
        "resize",
        extra={
            "SizeDict": lambda **sides: SimpleNamespace(**sides),
            "super": lambda: SimpleNamespace(resize=lambda image, size, **_: size),
        },
    )
    family, area = FAMILIES["deepseek_vl"], 384**2
    for width, height in SIZES:
        made = own.resize(None, Shaped(height, width), SimpleNamespace(height=384, width=384), 14, None)
        assert family.seen_wh((width, height), area, area) == (made.width, made.height)
    assert family.num_image_tokens((640, 480), area, area) == 576
