"""Files on disk -> Dataset of Samples, in pixels of the upright original images."""

from __future__ import annotations

from boxtune.data.augment import augment_image
from boxtune.data.broken import MAX_LEFT_OUT, leave_out_broken
from boxtune.data.epoch import Epochs, build_epochs
from boxtune.data.formats import FORMATS, Format, read_dataset
from boxtune.data.images import MAX_PIXELS, open_image, read_size
from boxtune.data.inspect import inspect_dataset, inspect_path
from boxtune.data.inspection import Inspection
from boxtune.data.prepare import build_samples, build_tiling, choose_valid, prepare_data
from boxtune.data.sample import Dataset, Sample
from boxtune.data.split import (
    HELD_OUT,
    find_by_name,
    hold_out,
    image_name,
    limit_split,
    require_validation,
    write_split,
)
from boxtune.data.table import SampleTable, as_table, take_samples
from boxtune.data.target import Target, build_target

__all__ = [
    "FORMATS",
    "HELD_OUT",
    "MAX_LEFT_OUT",
    "MAX_PIXELS",
    "Dataset",
    "Epochs",
    "Format",
    "Inspection",
    "Sample",
    "SampleTable",
    "Target",
    "as_table",
    "augment_image",
    "build_epochs",
    "build_samples",
    "build_target",
    "build_tiling",
    "choose_valid",
    "find_by_name",
    "hold_out",
    "image_name",
    "inspect_dataset",
    "inspect_path",
    "leave_out_broken",
    "limit_split",
    "open_image",
    "prepare_data",
    "read_dataset",
    "read_size",
    "require_validation",
    "take_samples",
    "write_split",
]
