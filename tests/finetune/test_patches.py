"""Patches made in few passes are those of the real processors, bit for bit; where they are not, that is said."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from architectures import write_architecture
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from boxtune.finetune.patches import CHECK, accept_bytes, check_patches, find_fast_way
from boxtune.finetune.pixels import load_image_processor, see_image
from boxtune.finetune.processors import build_processor
from boxtune.finetune.source import find_model

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5")
SIZES = ((1, 60), (20, 20), (37, 50), (28, 28), (112, 112), (400, 100), (97, 203), (640, 480), (1000, 31), (1600, 1200))
BUDGETS = ((4 * 28 * 28, 16 * 28 * 28), (256 * 28 * 28, 1280 * 28 * 28))


def noise(size: tuple[int, int], seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def build(**settings: Any) -> Any:
    """Qwen2-VL's image processor from Pillow, with other settings."""
    return Qwen2VLImageProcessorPil(**{"size": {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 64}, **settings})


def require_equal(images: Any, sizes: tuple[tuple[int, int], ...] = SIZES) -> None:
    """Of every size the same tensors, of the same type, as the processor's own call makes them."""
    way = find_fast_way(images)
    assert way is not None and check_patches(images) == []
    for seed, size in enumerate(sizes):
        image = noise(size, seed)
        theirs = images(images=[image], return_tensors="pt")
        patches, grid = way.see(images, image)
        assert patches.dtype == torch.uint8
        made = way.as_floats(patches)
        assert torch.equal(made, theirs["pixel_values"]) and made.dtype == theirs["pixel_values"].dtype
        assert torch.equal(grid, theirs["image_grid_thw"]) and grid.dtype == theirs["image_grid_thw"].dtype


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("family", FAMILIES)
def test_images_are_seen_as_the_real_processor_sees_them(family: str, budget: tuple[int, int], tmp_path: Path) -> None:
    source = find_model(write_architecture(family, tmp_path), family=family)
    images = load_image_processor(source, *budget)
    processor = build_processor(source, AutoTokenizer.from_pretrained(tmp_path), images)
    require_equal(images)
    for seed, size in enumerate(SIZES):
        image = noise(size, seed)
        seen = see_image(processor, image)
        theirs = processor(images=[image], text=[source.family.image_token], return_tensors="pt")
        assert set(seen.inputs) == {"pixel_values", "image_grid_thw"}
        for name, tensor in seen.inputs.items():
            assert torch.equal(tensor, theirs[name]), (name, size)
        assert seen.size_wh == source.family.seen_wh(size, *budget)
        assert seen.text == source.family.image_text(size, *budget)


@pytest.mark.parametrize(
    "settings",
    [
        {"resample": Image.Resampling.BILINEAR},
        {"resample": Image.Resampling.LANCZOS},
        {"patch_size": 16},
        {"patch_size": 7, "merge_size": 1},
        {"temporal_patch_size": 1},
        {"image_mean": [0.1, 0.5, 0.9], "image_std": [0.2, 0.3, 1.0]},
        {"rescale_factor": 1 / 127.5},
    ],
)
def test_other_settings_of_the_processor_are_kept(settings: dict[str, Any]) -> None:
    require_equal(build(**settings), SIZES[:8])


def test_a_budget_changed_later_is_the_one_that_counts() -> None:
    images = build()
    require_equal(images, SIZES[:3])
    images.size = {"shortest_edge": 28 * 28 * 100, "longest_edge": 28 * 28 * 200}
    require_equal(images, SIZES[4:])


def test_the_torchvision_processor_is_met_too() -> None:
    pytest.importorskip("torchvision")
    from transformers import Qwen2VLImageProcessor

    require_equal(Qwen2VLImageProcessor(size={"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}))


def test_bytes_become_the_same_numbers_later() -> None:
    images = build()
    processor = SimpleNamespace(
        image_processor=images,
        model_input_names=["pixel_values", "image_grid_thw"],
        image_token_divisor=4,
        replace_image_token=lambda made, image_idx: "x" * int(made["image_grid_thw"].prod()),
    )
    image, way = noise((200, 130)), find_fast_way(images)
    assert way is not None
    floats, small = see_image(processor, image), see_image(processor, image, as_bytes=True)
    assert small.inputs["pixel_values"].dtype == torch.uint8
    assert small.inputs["pixel_values"].nbytes * 8 == floats.inputs["pixel_values"].nbytes
    assert torch.equal(way.as_floats(small.inputs["pixel_values"]), floats.inputs["pixel_values"])
    assert (small.text, small.size_wh) == (floats.text, floats.size_wh)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_tower_takes_bytes_for_the_same_features(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    folder = write_architecture(family, tmp_path)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype)
    images = load_image_processor(find_model(folder, family=family), *BUDGETS[0])
    way = find_fast_way(images)
    assert way is not None
    patches, grid = way.see(images, noise((130, 90)))

    def features(pixels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            made = model.get_image_features(pixels, grid).pooler_output
        return torch.cat(list(made))

    before = features(way.as_floats(patches))
    assert accept_bytes(model, images) and accept_bytes(model, images)
    assert len(model.model.visual._forward_pre_hooks) == 1
    assert torch.equal(features(way.as_floats(patches)), before)
    assert torch.equal(features(patches), before)
    assert not torch.equal(features(patches // 2), before)


def test_other_models_and_slow_processors_take_no_bytes() -> None:
    tower = torch.nn.Identity()
    model = torch.nn.ModuleDict({"visual": tower})
    for kind, images in (("glm4v", build()), ("qwen2_vl", build(do_resize=False))):
        model.config = SimpleNamespace(model_type=kind)
        assert not accept_bytes(model, images) and not tower._forward_pre_hooks
    model.config = SimpleNamespace(model_type="qwen2_vl")
    assert accept_bytes(model, build()) and tower._forward_pre_hooks


@pytest.mark.gpu
def test_bytes_become_the_same_numbers_on_a_gpu() -> None:
    images = build()
    way = find_fast_way(images)
    assert way is not None
    patches, _ = way.see(images, noise((640, 480)))
    assert torch.equal(way.as_floats(patches.cuda()).cpu(), way.as_floats(patches))


def test_the_tower_that_is_not_resized_for_goes_through_the_processor() -> None:
    images = build(do_resize=False)
    assert find_fast_way(images) is None
    (finding,) = check_patches(images)
    assert (finding.check, finding.level) == (CHECK, "warn") and "do_resize" in finding.seen


def test_a_processor_that_makes_other_numbers_goes_through_itself() -> None:
    class Qwen2VLImageProcessorPil(type(build())):  # type: ignore[misc]
        """Named as the real one, but brighter where it has resized."""

        def resize(self, image: np.ndarray, *args: Any, **more: Any) -> np.ndarray:
            return super().resize(image, *args, **more) | 1

    images = Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 64})
    assert find_fast_way(build()) is not None and find_fast_way(images) is None
    (finding,) = check_patches(images)
    assert finding.check == CHECK and "other numbers" in finding.seen


def test_other_processors_are_left_alone() -> None:
    from transformers import Glm4vImageProcessorPil

    assert find_fast_way(Glm4vImageProcessorPil()) is None and check_patches(Glm4vImageProcessorPil()) == []
