"""The embedded model's forward pass for a batch of images of one grid: the same weights, the same numbers, no loops.

transformers' forward splits the vision attention by image and computes positions sample by sample, which at this
size costs more than the arithmetic. Here every image of a batch has the same grid, so attention is one call and
positions are made once. tests/tiny/test_fast.py holds it equal to transformers'.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

PATCH, MERGE = 14, 2


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A grid of patches, rows by columns (both even), with what depends on it alone, on one device."""

    rows: int
    columns: int
    vision_cos: torch.Tensor
    vision_sin: torch.Tensor

    @property
    def num_tokens(self) -> int:
        """Visual tokens after the merge."""
        return self.rows * self.columns // MERGE**2


def build_grid(model: Any, rows: int, columns: int, device: torch.device) -> Grid:
    """Rotary cosines and sines of the vision tower for this grid, in the order of merged windows."""
    place = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"))
    place = place.reshape(2, rows // MERGE, MERGE, columns // MERGE, MERGE).permute(0, 1, 3, 2, 4).reshape(2, -1)
    inv_freq = model.model.visual.rotary_pos_emb.inv_freq.float().cpu()
    angles = (place[..., None].float() * inv_freq).permute(1, 0, 2).flatten(1)
    angles = torch.cat([angles, angles], dim=-1).to(device)
    return Grid(rows=rows, columns=columns, vision_cos=angles.cos(), vision_sin=angles.sin())


def build_rope(
    model: Any, grid: Grid, before: int, after: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotary cosines and sines of the language tower, (length, head size), for `before` text tokens, the image,
    `after` text tokens: text counts on, the image spans height and width, the next text begins behind the longer side.
    """
    rows, columns = grid.rows // MERGE, grid.columns // MERGE
    text = torch.arange(before)
    image = torch.stack(
        [
            torch.full((rows * columns,), before),
            torch.arange(rows).repeat_interleave(columns) + before,
            torch.arange(columns).repeat(rows) + before,
        ]
    )
    later = torch.arange(after) + before + max(rows, columns)
    positions = torch.cat([text.expand(3, -1), image, later.expand(3, -1)], dim=1)
    config = model.config.text_config
    head = config.hidden_size // config.num_attention_heads
    inv_freq = 1.0 / config.rope_parameters["rope_theta"] ** (torch.arange(0, head, 2).float() / head)
    angles = positions[..., None].float() * inv_freq
    # The sections of the head's frequencies that follow time, height and width.
    sections = config.rope_parameters["mrope_section"]
    mixed = torch.cat([part[i] for i, part in enumerate(angles.split(sections, dim=-1))], dim=-1)
    mixed = torch.cat([mixed, mixed], dim=-1).to(device)
    return mixed.cos(), mixed.sin()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of (batch, heads, length, head size)."""
    left, right = x.chunk(2, dim=-1)
    return x * cos.to(x.dtype) + torch.cat([-right, left], dim=-1) * sin.to(x.dtype)


def patchify(images: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """uint8 images (batch, 3, height, width) -> normalised patches (batch, patches, 3 * 14 * 14), windows together."""
    batch, _, height, width = images.shape
    rows, columns = height // PATCH // MERGE, width // PATCH // MERGE
    x = (images.float() / 255 - mean[:, None, None]) / std[:, None, None]
    x = x.reshape(batch, 3, rows, MERGE, PATCH, columns, MERGE, PATCH).permute(0, 2, 5, 3, 6, 1, 4, 7)
    return x.reshape(batch, rows * columns * MERGE**2, 3 * PATCH * PATCH)


def vision_block(block: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """One layer of the vision tower on (batch, patches, width)."""
    batch, length, width = x.shape
    heads = block.attn.num_heads
    qkv = block.attn.qkv(block.norm1(x)).view(batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(rotate(qkv[0], cos, sin), rotate(qkv[1], cos, sin), qkv[2])
    x = x + block.attn.proj(mixed.transpose(1, 2).reshape(batch, length, width))
    return x + block.mlp(block.norm2(x))


def language_layer(layer: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """One layer of the language tower on (batch, length, width), causal; padding on the right needs no mask."""
    batch, length, _ = x.shape
    attention = layer.self_attn
    hidden = layer.input_layernorm(x)
    q, k, v = (
        projection(hidden).view(batch, length, -1, attention.head_dim).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    mixed = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True, enable_gqa=True)
    x = x + attention.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))
    return x + layer.mlp(layer.post_attention_layernorm(x))


class FastForward:
    """The forward pass over a transformers Qwen2-VL model's own modules; `compiled` wraps its layers once."""

    def __init__(self, model: Any, *, compiled: bool = False) -> None:
        self.model = model
        self.vision_block, self.language_layer = vision_block, language_layer
        if compiled:
            # One compilation for every grid and length.
            self.vision_block = torch.compile(vision_block, dynamic=True)
            self.language_layer = torch.compile(language_layer, dynamic=True)

    def see(self, patches: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Patches (batch, patches, values) -> visual tokens (batch, tokens, width of the language tower)."""
        visual = self.model.model.visual
        # An image is two equal frames to the patch embedding: the sum of its two kernels sees one of them.
        weight = visual.patch_embed.proj.weight.sum(dim=2).flatten(1)
        x = F.linear(patches, weight)
        for block in visual.blocks:
            x = self.vision_block(block, x, grid.vision_cos, grid.vision_sin)
        merger = visual.merger
        return merger.mlp(merger.ln_q(x).reshape(len(x), grid.num_tokens, -1))

    def read(
        self,
        tokens: torch.Tensor,
        before: torch.Tensor,
        after: torch.Tensor,
        rope: tuple[torch.Tensor, torch.Tensor],
        *,
        tap: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Visual tokens between text ids (batch, before) and (batch, after) -> hidden states behind the image.

        The second result is the image's hidden states after layer `tap`, for an auxiliary loss.
        """
        language = self.model.model.language_model
        embed = language.embed_tokens
        x = torch.cat([embed(before).to(tokens.dtype), tokens, embed(after).to(tokens.dtype)], dim=1)
        tapped = None
        start, stop = before.shape[1], before.shape[1] + tokens.shape[1]
        for number, layer in enumerate(language.layers):
            x = self.language_layer(layer, x, *rope)
            if number == tap:
                tapped = x[:, start:stop]
        return language.norm(x[:, stop:]), tapped
