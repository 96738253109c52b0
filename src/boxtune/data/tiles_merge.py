"""What was found in the tiles of one image -> what is in the image.

Two tiles see their overlap both, and there they should say the same. So two boxes of one label, of different tiles,
are the same thing if their parts inside the overlap agree (IoU of at least SAME), or if one is cut by the border of
its tile and at least INSIDE of its part lies in that of the other. The surest pairs are joined first, and a thing has
at most one box from each tile: boxes that one tile tells apart are never merged.

Of the boxes of one thing:

- one that no tile border cuts stands for all, and the cut ones are dropped; of several such the one with the highest
  score, else the first;
- where every one is cut the thing is larger than the overlap, and the hull of its parts is taken, with their highest
  score.

A box is cut if it comes within AT_BORDER of a border of its tile that is not the image's own. A part that no other
tile has a box for is kept. Without overlap nothing can be compared, and a thing on a border stays in parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from boxtune.boxes import Boxes, box_areas, iou_matrix
from boxtune.data.tiles import Tile

SAME = 0.5
"""IoU of the parts in the overlap from which on they are the same thing."""
INSIDE = 0.8
"""Share of a cut box's part in the overlap that lies in the other's, from which on they are the same thing."""
AT_BORDER = 0.01
"""Distance to the tile's border, as a share of its side, up to which a box counts as cut: answers are not exact."""


@dataclass(frozen=True, kw_only=True)
class _Found:
    """The boxes of one tile in pixels of the image; `first` is the place of the first among those of all tiles."""

    window: Tile
    boxes: Boxes
    cut: Bool[np.ndarray, " n"]
    first: int


def merge_tiles(found: Sequence[tuple[Tile, Boxes]]) -> Boxes:
    """The boxes of an image, in its pixels, from those of its tiles, each in pixels of its tile.

    The tiles must be all those of the image: its size is taken from them. Boxes come in the order of the tiles, a
    thing where its first box stood. Scores are kept; ValueError if some tiles with boxes have them and others not.
    """
    width, height = (max((window[side] for window, _ in found), default=0) for side in (2, 3))
    tiles, num = [], 0
    for window, boxes in found:
        moved = Boxes(
            xyxy_px=boxes.xyxy_px + np.tile(window[:2], 2).astype(np.float64), labels=boxes.labels, scores=boxes.scores
        )
        cut = _is_cut(moved.xyxy_px, window, (width, height))
        tiles.append(_Found(window=window, boxes=moved, cut=cut, first=num))
        num += len(boxes)
    all_cut = np.concatenate([np.zeros(0, dtype=bool), *(tile.cut for tile in tiles)])
    return _choose(_join([tile.boxes for tile in tiles]), all_cut, _things(tiles, num))


def _is_cut(xyxy_px: Float[np.ndarray, "n 4"], window: Tile, image_wh: tuple[int, int]) -> Bool[np.ndarray, " n"]:
    left, top, right, bottom = window
    near = np.tile([AT_BORDER * (right - left), AT_BORDER * (bottom - top)], 2)
    inner = np.array([left > 0, top > 0, right < image_wh[0], bottom < image_wh[1]])
    return ((np.abs(xyxy_px - np.array(window)) <= near) & inner).any(axis=1)


def _join(parts: Sequence[Boxes]) -> Boxes:
    parts = [boxes for boxes in parts if len(boxes)]
    scores = [boxes.scores for boxes in parts if boxes.scores is not None]
    if 0 < len(scores) < len(parts):
        raise ValueError("some tiles have boxes with scores, others without")
    return Boxes(
        xyxy_px=np.concatenate([np.zeros((0, 4)), *(boxes.xyxy_px for boxes in parts)]),
        labels=tuple(label for boxes in parts for label in boxes.labels),
        scores=np.concatenate(scores) if scores else None,
    )


def _things(tiles: Sequence[_Found], num: int) -> list[list[int]]:
    """The places of all boxes in groups, one for each thing."""
    pairs = []
    for i, one in enumerate(tiles):
        for j in range(i + 1, len(tiles)):
            pairs += [(-sure, one.first + a, tiles[j].first + b) for sure, a, b in _same(one, tiles[j])]
    tile_of = [i for i, tile in enumerate(tiles) for _ in range(len(tile.boxes))]
    thing = [[place] for place in range(num)]
    for _, a, b in sorted(pairs):
        ours, theirs = thing[a], thing[b]
        if {tile_of[place] for place in ours}.isdisjoint(tile_of[place] for place in theirs):
            both = sorted(ours + theirs)
            for place in both:
                thing[place] = both
    return [group for place, group in enumerate(thing) if group[0] == place]


def _same(one: _Found, other: _Found) -> list[tuple[float, int, int]]:
    """Pairs of boxes that are the same thing: how sure, place in one, place in other. Agreement beats inclusion."""
    left, top = (max(one.window[side], other.window[side]) for side in (0, 1))
    right, bottom = (min(one.window[side], other.window[side]) for side in (2, 3))
    if left >= right or top >= bottom or not len(one.boxes) or not len(other.boxes):
        return []
    low, high = np.tile([left, top], 2).astype(np.float64), np.tile([right, bottom], 2).astype(np.float64)
    ours, theirs = (np.clip(tile.boxes.xyxy_px, low, high) for tile in (one, other))
    iou = iou_matrix(ours, theirs)
    # The common area a from iou = a / (s + t - a).
    common = iou / (1 + iou) * (box_areas(ours)[:, None] + box_areas(theirs)[None, :])
    inside_ours = np.where(other.cut[None, :], _share(common, box_areas(theirs)[None, :]), 0.0)
    inside_theirs = np.where(one.cut[:, None], _share(common, box_areas(ours)[:, None]), 0.0)
    inside = np.maximum(inside_ours, inside_theirs)
    alike = np.array(one.boxes.labels, dtype=object)[:, None] == np.array(other.boxes.labels, dtype=object)[None, :]
    sure = np.where(iou >= SAME, 1 + iou, np.where(inside >= INSIDE, inside, 0.0)) * alike
    return [(round(float(sure[a, b]), 9), int(a), int(b)) for a, b in zip(*np.nonzero(sure), strict=True)]


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _choose(every: Boxes, cut: Bool[np.ndarray, " n"], things: Sequence[Sequence[int]]) -> Boxes:
    xyxy, scores, labels = [np.zeros((0, 4))], [], []
    for places in things:
        at = np.array(places)
        whole = at[~cut[at]]
        if len(whole):
            # argmax takes the first of equal ones.
            kept = whole[0] if every.scores is None else whole[int(np.argmax(every.scores[whole]))]
            hull, score = every.xyxy_px[kept], 0.0 if every.scores is None else every.scores[kept]
        else:
            hull = np.concatenate([every.xyxy_px[at, :2].min(axis=0), every.xyxy_px[at, 2:].max(axis=0)])
            score = 0.0 if every.scores is None else every.scores[at].max()
        xyxy.append(hull[None])
        scores.append(float(score))
        labels.append(every.labels[places[0]])
    return Boxes(
        xyxy_px=np.concatenate(xyxy),
        labels=tuple(labels),
        scores=None if every.scores is None else np.array(scores),
    )
