"""A finished run, or an inspected data set -> something to look at."""

from boxtune.report.changed import write_changed
from boxtune.report.gallery import write_gallery
from boxtune.report.samples import choose_samples, write_samples
from boxtune.report.sheet import write_sheets
from boxtune.report.table import score_table

__all__ = [
    "choose_samples",
    "score_table",
    "write_changed",
    "write_gallery",
    "write_samples",
    "write_sheets",
]
