"""Tasks of Label Studio, made on the spot."""

from __future__ import annotations

from typing import Any

CORNERS = [16.0, 12.0, 48.0, 24.0]


def item(
    label: Any = "cat", x: Any = 25, y: Any = 25, width: Any = 50, height: Any = 25, **more: Any
) -> dict[str, Any]:
    """A rectangle; in a picture of 64 x 48 its corners are CORNERS."""
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": more.pop("rotation", 0)}
    labels = [label] if isinstance(label, str) else label
    start = {"id": f"r{x}{label}", "type": "rectanglelabels", "from_name": "label", "to_name": "image"}
    size = {"original_width": 64, "original_height": 48, "image_rotation": 0}
    return {**start, **size, "value": {**value, "rectanglelabels": labels}, **more}


def annotation(*items: Any, **more: Any) -> dict[str, Any]:
    return {"id": 1, "completed_by": 1, "was_cancelled": False, "ground_truth": False, "result": list(items), **more}


def task(number: int, image: Any, *annotations: Any, key: str = "image", **more: Any) -> dict[str, Any]:
    return {"id": number, "data": {key: image}, "annotations": list(annotations), "predictions": [], **more}
