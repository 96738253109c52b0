"""Samples of a batch one behind the other in one row, without padding, and all that the model would else count itself.

Lengths, borders and positions are worked out here, on the CPU and in the workers, so that a training step never has
to wait for the device to tell how long something is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from transformers.vision_utils import get_vision_cu_seqlens, get_vision_position_ids, get_vision_window_index

from boxtune.families import Family
from boxtune.finetune.collate import Example

PACKING = "packing"
"""Key of a batch under which `Packer.pack` stands; everything else in the batch is as for any trainer."""


GRIDS_ON_HOST = ("qwen2_vl", "qwen2_5_vl")
"""Families whose vision tower needs an image's grid for nothing but lengths, once what is counted here is given."""


@dataclass(frozen=True, kw_only=True)
class Packer:
    """How samples of one model lie in one row.

    `grid`: image tokens count by frame, row and column as Qwen2-VL has it (arXiv 2409.12191, section 2.1), `merge`
    patches a side being one token; else every token counts by one. `window` is the area in pixels that some layers of
    the vision tower see at once (side, patch side), None where there are none. `on_host`: the grids stay on the host.
    `longest` and `most_patches` are lengths of samples and images that most batches keep below: told the same bound
    for every batch, what is compiled for one fits all. (The enlarged images of a narrow budget are rounded beyond it.)
    """

    image_token_id: int
    grid: bool
    merge: int
    window: tuple[int, int] | None
    on_host: bool
    longest: int = 0
    most_patches: int = 0

    def pack(self, examples: Sequence[Example]) -> dict[str, Any]:
        """What `boxtune.finetune.scoring` reads beside the padded batch of the same examples; see `lay`."""
        lengths = [(len(example.prompt_ids), len(example.answer_ids)) for example in examples]
        grids = [grid.tolist() for example in examples for grid in example.inputs.get("image_grid_thw", ())]
        return self.lay(lengths, [self.positions(example) for example in examples], grids)

    def lay(
        self, lengths: Sequence[tuple[int, int]], rows: Sequence[torch.Tensor], grids: Sequence[Sequence[int]]
    ) -> dict[str, Any]:
        """Samples with so many tokens of prompt and answer, with their `positions` and the grids of their images.

        `keep` (tokens): places of the tokens in the flattened padded batch. `scored` (answer tokens): places in the row
        whose next token is supervised. `position_ids` (3, 1, tokens) or (1, tokens). `borders` (samples + 1) int32 and
        `longest` of the samples; `text_evenly`: all are of one length; `image_*`: the same for patches of images.
        """
        totals = [sum(pair) for pair in lengths]
        width, borders, places = max(totals), list(accumulate(totals, initial=0)), torch.cat(list(rows), dim=1)
        packed: dict[str, Any] = {
            "keep": torch.cat([torch.arange(row * width, row * width + n) for row, n in enumerate(totals)]),
            "scored": torch.cat(
                [
                    torch.arange(start + prompt, start + prompt + answer) - 1
                    for start, (prompt, answer) in zip(borders, lengths, strict=False)
                ]
            ),
            "position_ids": places[:, None] if self.grid else places,
            "borders": torch.tensor(borders, dtype=torch.int32),
            "longest": max(self.longest, power_of_two(width)),
            "text_evenly": min(totals) == width,
            "lengths": list(lengths),
            "packer": self,
        }
        if self.grid and grids:
            packed |= self._see(torch.tensor(grids))
        return packed

    def positions(self, example: Example) -> torch.Tensor:
        """Positions of the sample's tokens, (3, tokens) for frame, row and column, or (1, tokens).

        Text counts on; an image's tokens share a frame and span rows and columns from the next number on; the text
        behind goes on after the longer side. Raises ValueError where the grids make other numbers of tokens.
        """
        ids = torch.tensor((*example.prompt_ids, *example.answer_ids))
        if not self.grid:
            return torch.arange(len(ids))[None]
        is_image = ids == self.image_token_id
        parts, at, begin = [], 0, 0
        for grid in example.inputs.get("image_grid_thw", ()):
            frames, high, wide = (int(side) for side in grid)
            rows, columns = high // self.merge, wide // self.merge
            num = frames * rows * columns
            text = int(is_image[at:].int().argmax())
            if not bool(is_image[at + text : at + text + num].all()) or at + text + num > len(ids):
                raise ValueError(f"an image of {rows} x {columns} tokens has other places in its prompt")
            parts.append(torch.arange(begin, begin + text).expand(3, -1))
            begin, at = begin + text, at + text + num
            parts.append(torch.cartesian_prod(*(torch.arange(n) for n in (frames, rows, columns))).t() + begin)
            begin += max(rows, columns)
        if bool(is_image[at:].any()):
            raise ValueError("a prompt has more places for images than images")
        parts.append(torch.arange(begin, begin + len(ids) - at).expand(3, -1))
        return torch.cat(parts, dim=1)

    def _see(self, grids: torch.Tensor) -> dict[str, Any]:
        """Borders and positions of the patches of all images, in transformers' own functions."""
        borders = get_vision_cu_seqlens(grids)
        sizes = borders.diff()
        seen: dict[str, Any] = {
            "image_cu_seqlens": borders,
            "image_max_seqlen": max(self.most_patches, power_of_two(int(sizes.max()))),
            # Said to all layers of the tower: those that see windows have borders of their own, of other lengths.
            "image_evenly": self.window is None and bool((sizes == sizes[0]).all()),
            "image_position_ids": get_vision_position_ids(grids, self.merge),
        }
        if self.window is not None:
            index, window_borders = get_vision_window_index(grids, self.merge, *self.window)
            seen |= {
                "image_window_index": index,
                "image_cu_window_seqlens": window_borders,
                "image_max_window_seqlen": (self.window[0] // self.window[1]) ** 2,
            }
        if self.on_host:
            # As plain numbers, which no trainer moves to the device.
            seen["grids"] = grids.tolist()
        return seen


def power_of_two(number: int) -> int:
    """The least one that is not below `number`: a bound that many lengths share."""
    return 1 << max(0, number - 1).bit_length()


def build_packer(
    family: Family, config: Any, image_token_id: int, *, longest: int = 0, max_pixels: int = 0
) -> Packer | None:
    """How this model's samples are packed; None where the family cannot do it."""
    if family.packing is None:
        return None
    vision: Any = getattr(config, "vision_config", None)
    window = getattr(vision, "window_size", None)
    patch = getattr(vision, "patch_size", 1)
    return Packer(
        image_token_id=image_token_id,
        grid=family.packing == "grid",
        merge=getattr(vision, "spatial_merge_size", 1),
        window=None if window is None else (window, patch),
        on_host=family.name in GRIDS_ON_HOST,
        longest=power_of_two(longest),
        most_patches=power_of_two(max_pixels // patch**2) if family.packing == "grid" else 0,
    )
