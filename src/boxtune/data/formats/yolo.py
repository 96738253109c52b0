"""YOLO data sets (ultralytics, Roboflow, CVAT, Label Studio, labelImg) -> drafts.

Which images there are is said by a data.yaml (`yolo_yaml`) or by the folders (`yolo_folders`); the boxes of an image
are in the file of the same name with .txt, in `labels/` where the image lies in `images/`, else beside it.
"""

from __future__ import annotations

from pathlib import Path

from boxtune.data.draft import Options, Raw
from boxtune.data.formats.yolo_folders import plan_of_folders, sniff_folders
from boxtune.data.formats.yolo_names import data_yamls, is_data_yaml
from boxtune.data.formats.yolo_plan import read_plan
from boxtune.data.formats.yolo_yaml import plan_of_yaml
from boxtune.errors import DataError, name_some


def sniff_yolo(path: Path) -> str | None:
    """Why `path` looks like YOLO: a data.yaml, images/ with labels/, or label rows beside the images."""
    if path.is_file():
        return "a .yaml with names and splits" if is_data_yaml(path) else None
    if not path.is_dir():
        return None
    if yamls := data_yamls(path):
        return f"{yamls[0].name} with names and splits"
    return sniff_folders(path)


def read_yolo(path: Path, options: Options) -> Raw:
    """The splits of a YOLO data set: a data.yaml, or a folder that holds one, or images with label files.

    Boxes are centre and size in shares of the image's sides. An image without a label file is a negative, as in
    ultralytics. Polygons and oriented boxes are taken by their hull, keypoints left out; findings count both. Without
    a file of class names their numbers are the names. Raises DataError on a broken data.yaml or label row, on a class
    that the names do not have, if no image is found, and if not one image has a label file.
    Source: https://docs.ultralytics.com/datasets/detect/
    """
    if options.images is not None and not options.images.is_dir():
        what = f"the image folder {options.images} is not there"
        raise DataError(what, where=str(options.images), fix="give an existing folder")
    if path.is_file():
        return read_plan(plan_of_yaml(path, options))
    yamls = data_yamls(path)
    if len(yamls) > 1 and yamls[0].stem.lower() not in ("data", "dataset"):
        what = f"there are {len(yamls)} data sets: {name_some(file.name for file in yamls)}"
        raise DataError(what, where=str(path), fix="give the one .yaml that you mean")
    return read_plan(plan_of_yaml(yamls[0], options) if yamls else plan_of_folders(path, options))
