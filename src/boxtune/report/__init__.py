"""A finished run -> something to look at."""

from boxtune.report.gallery import write_gallery
from boxtune.report.table import score_table

__all__ = ["score_table", "write_gallery"]
