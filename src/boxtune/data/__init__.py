"""Files on disk -> Dataset of Samples, in pixels of the upright original images."""

from __future__ import annotations

from boxtune.data.augment import augment_image
from boxtune.data.broken import MAX_LEFT_OUT, leave_out_broken
from boxtune.data.formats import FORMATS, Format, read_dataset
from boxtune.data.images import MAX_PIXELS, open_image, read_size
from boxtune.data.inspect import Inspection, inspect_dataset, inspect_path
from boxtune.data.sample import Dataset, Sample
from boxtune.data.split import image_name, limit_split, require_validation, write_split

__all__ = [
    "FORMATS",
    "MAX_LEFT_OUT",
    "MAX_PIXELS",
    "Dataset",
    "Format",
    "Inspection",
    "Sample",
    "augment_image",
    "image_name",
    "inspect_dataset",
    "inspect_path",
    "leave_out_broken",
    "limit_split",
    "open_image",
    "read_dataset",
    "read_size",
    "require_validation",
    "write_split",
]
