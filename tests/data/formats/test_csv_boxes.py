"""Tables of boxes: every shape that is around, read by names or by what stands in the columns."""

from __future__ import annotations

from pathlib import Path

import pytest

from boxtune.data import read_dataset
from boxtune.data.formats.csv_boxes import sniff_csv
from boxtune.errors import DataError

from .tool_cases import boxes, finding, pictures, put, raw_of, raw_rows, read

CORNERS = [16.0, 12.0, 48.0, 36.0]
# The boxes of b.jpg rule out every reading but the right one.
SHAPES = {
    "tensorflow": "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,64,48,cat,16,12,48,36\n",
    "vott": '"image","xmin","ymin","xmax","ymax","label"\n"a.jpg",16.0,12.0,48.0,36.0,"cat"\n',
    "other order": "class;x2;x1;y2;y1;image_path\ncat;48;16;36;12;a.jpg\n",
    "tabs": "file\tleft\ttop\tright\tbottom\tlabel\na.jpg\t16\t12\t48\t36\tcat\n",
    "excel": "sep=;\nfile;left;top;right;bottom;label\na.jpg;16,0;12,0;48,0;36,0;cat\n",
    "svhn": "img_name,label,left,top,width,height\na.jpg,cat,16,12,32,24\n",
    "traffic signs": "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\na.jpg;64;48;16;12;48;36;cat\n",
    "lisa": "Filename;Annotation tag;Upper left corner X;Upper left corner Y;Lower right corner X;"
    "Lower right corner Y;Occluded\na.jpg;cat;16;12;48;36;0\n",
    "make sense": "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height\n"
    "cat,16,12,32,24,a.jpg,64,48\n",
    "make sense, no header": "cat,16,12,32,24,a.jpg,64,48\ncat,2,3,60,44,b.jpg,64,48\ncat,40,20,20,25,b.jpg,64,48\n",
    "counted from nought": "image,x0,y0,x1,y1,category\na.jpg,16,12,48,36,cat\n",
    "centre": "filename,x_center,y_center,width,height,class\na.jpg,32,24,32,24,cat\n",
    "centre in shares": "filename,x_center,y_center,width,height,class\na.jpg,0.5,0.5,0.5,0.5,cat\n",
    "shares": "filename,xmin,ymin,xmax,ymax,class\na.jpg,0.25,0.25,0.75,0.75,cat\n",
    "box and image size": "id,file_name,w,h,x,y,width,height,name\n1,a.jpg,32,24,16,12,64,48,cat\n"
    "2,b.jpg,60,44,2,3,64,48,cat\n",
    "chest": "Image Index,Finding Label,Bbox [x,y,w,h],,,\na.jpg,cat,16,12,32,24,,,\n",
    "retinanet": "images/a.jpg,16,12,48,36,cat\nimages/b.jpg,,,,,\nimages/a.jpg,40,30,60,47,cat\n",
    "sku110k": "a.jpg,16,12,48,36,cat,64,48\nb.jpg,40,30,60,47,cat,64,48\n",
    "sizes before": "a.jpg,64,48,16,12,48,36,cat\nb.jpg,64,48,40,30,60,47,cat\n",
    "tensorflow, no header": "a.jpg,64,48,cat,16,12,48,36\nb.jpg,64,48,cat,40,30,60,47\n",
    "class numbers": "a.jpg,16,12,48,36,0\nb.jpg,40,30,60,47,3\n",
    "wheat": 'image_id,width,height,bbox,source\na,64,48,"[16.0, 12.0, 32.0, 24.0]",s\n',
    "wheat 2021": "image_name,BoxesString,domain\na.jpg,16 12 48 36;40 30 60 47,x\nb.jpg,no_box,x\n",
    "lists": "image,bboxes,labels\na.jpg,\"[[16, 12, 48, 36], [40, 30, 60, 47]]\",\"['cat', 'dog']\"\n",
    "objects": "image,annotations\na.jpg,\"[{'x': 16, 'y': 12, 'width': 32, 'height': 24}, "
    "{'x': 2, 'y': 3, 'width': 60, 'height': 44}]\"\n",
    "objects with corners": 'image,bbox,class\na.jpg,"{""xmin"": 16, ""ymin"": 12, ""xmax"": 48, ""ymax"": 36}",cat\n',
    "submission": "image_id,PredictionString\na,cat 1.0 16 12 48 36 dog 0.5 40 30 60 47\nb,\n",
    "submission of one class": "image_id,PredictionString\na,1.0 16 12 32 24 0.5 2 3 60 44 0.5 40 20 20 25\nb,\n",
    "characters": "image_id,labels\na,U+306F 16 12 32 24 U+304C 2 3 60 44 U+304C 40 20 20 25\nb,\n",
    "automl": "TRAIN,gs://bucket/a.jpg,cat,0.25,0.25,,,0.75,0.75,,\nTRAIN,gs://bucket/b.jpg,cat,0.1,0.1,,,0.2,0.2,,\n",
    "automl, four corners": "UNASSIGNED,gs://bucket/a.jpg,cat,0.25,0.25,0.75,0.25,0.75,0.75,0.25,0.75\n",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(tmp_path: Path, shape: str) -> None:
    pictures(tmp_path, "a.jpg", "b.jpg")
    pictures(tmp_path / "images", "a.jpg", "b.jpg")
    file = put(tmp_path / "train.csv", SHAPES[shape])
    for path in (tmp_path, file):
        label, corners = boxes(read(path, "csv"))["a.jpg"][0]
        assert corners == CORNERS and label in ("cat", "object", "U+306F", "0")


@pytest.mark.parametrize("shape", ["retinanet", "wheat 2021", "submission", "characters"])
def test_a_row_without_a_box_is_a_negative(tmp_path: Path, shape: str) -> None:
    pictures(tmp_path / "images", "a.jpg", "b.jpg", "unlisted.jpg")
    put(tmp_path / "train.csv", SHAPES[shape])
    dataset = read(tmp_path, "csv")
    assert list(boxes(dataset)) == ["a.jpg", "b.jpg"] and boxes(dataset)["b.jpg"] == []


def test_names_decide_and_say_so(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg")
    put(tmp_path / "a.csv", "filename,xmin,ymin,xmax,ymax,class,pose\na.jpg,16,12,48,36,cat,left\n")
    why = read(tmp_path, "csv").why
    assert "by the columns xmin, ymin, xmax, ymax" in why and "columns not read: pose" in why
    assert boxes(read(tmp_path, "csv", boxes="xywh_px"))["a.jpg"] == [("cat", [16, 12, 64, 48])]


def test_a_corner_or_a_centre_is_asked_where_both_fit(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg")
    put(tmp_path / "a.csv", "filename,x,y,w,h,class\na.jpg,20,20,10,10,cat\n")
    with pytest.raises(DataError, match="can be read in 2 ways") as caught:
        read_dataset(tmp_path)
    assert caught.value.fix.startswith("say which: boxes=xywh_px or boxes=cxcywh_px")
    assert boxes(read(tmp_path, "csv", boxes="cxcywh_px"))["a.jpg"] == [("cat", [15, 15, 25, 25])]


def test_the_whole_set_decides_together(tmp_path: Path) -> None:
    pictures(tmp_path / "images", "a.jpg", "b.jpg")
    put(tmp_path / "train.csv", "filename,x,y,w,h,class\na.jpg,20,20,10,10,cat\n")
    put(tmp_path / "valid.csv", "filename,x,y,w,h,class\nb.jpg,2,2,60,40,cat\n")
    dataset = read(tmp_path, "csv")
    assert boxes(dataset)["a.jpg"] == [("cat", [20, 20, 30, 30])] and "cxcywh_px 50.0%" in dataset.why


def test_splits_by_names_of_files_and_folders(tmp_path: Path) -> None:
    pictures(tmp_path / "images", "a.jpg", "b.jpg", "c.jpg")
    head = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    put(tmp_path / "train_labels.csv", f"{head}a.jpg,64,48,cat,1,2,3,4\n")
    put(tmp_path / "test_labels.csv", f"{head}b.jpg,64,48,cat,1,2,3,4\n")
    put(tmp_path / "sample_submission.csv", f"{head}c.jpg,64,48,cat,1,2,3,4\n")
    assert list(read(tmp_path, "csv").splits) == ["train", "test"]
    for split in ("train", "valid"):
        pictures(tmp_path / "roboflow" / split, "a.jpg")
        put(tmp_path / "roboflow" / split / "_annotations.csv", f"{head}a.jpg,64,48,cat,1,2,3,4\n")
    assert list(read(tmp_path / "roboflow", "csv").splits) == ["train", "valid"]


def test_the_files_of_keras_retinanet(tmp_path: Path) -> None:
    pictures(tmp_path / "images", "a.jpg", "b.jpg")
    put(tmp_path / "annotations.csv", "images/a.jpg,20,20,30,30,cat\n")
    put(tmp_path / "val_annotations.csv", "images/b.jpg,20,20,30,30,dog\n")
    put(tmp_path / "classes.csv", "dog,0\ncat,1\nunseen,2\n")
    dataset = read(tmp_path, "csv")
    assert list(dataset.splits) == ["train", "valid"] and dataset.classes == ("dog", "cat")
    assert "annotations.csv taken as train" in dataset.why and "class file beside it" in dataset.why
    put(tmp_path / "train.csv", "images/a.jpg,20,20,30,30,cat\n")
    with pytest.raises(DataError, match=r"the split of annotations\.csv cannot be told"):
        read_dataset(tmp_path)


def test_two_tables_of_one_split(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg")
    for name in ("train_1.csv", "train_2.csv"):
        put(tmp_path / name, "filename,xmin,ymin,xmax,ymax,class\na.jpg,1,2,3,4,cat\n")
    with pytest.raises(DataError, match=r"train_1\.csv, train_2\.csv are 2 tables of one `train` split"):
        read_dataset(tmp_path)


def test_a_column_that_names_the_split(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg", "b.jpg")
    text = "split,filename,xmin,ymin,xmax,ymax,class\ntrain,a.jpg,1,2,3,4,cat\nvalidation,b.jpg,1,2,3,4,cat\n"
    put(tmp_path / "boxes.csv", text)
    dataset = read(tmp_path, "csv")
    assert {split: list(boxes(dataset, split)) for split in dataset.splits} == {"train": ["a.jpg"], "valid": ["b.jpg"]}
    put(tmp_path / "valid.csv", "filename,xmin,ymin,xmax,ymax,class\nb.jpg,1,2,3,4,cat\n")
    with pytest.raises(DataError, match="both hold rows of the valid split"):
        read_dataset(tmp_path)


def test_class_files_give_names_to_ids(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg")
    put(tmp_path / "classes.csv", "id,name\n0,dog\n1,cat\n")
    file = put(tmp_path / "boxes.csv", "filename,xmin,ymin,xmax,ymax,class_id\na.jpg,1,2,3,4,1\n")
    assert raw_rows(tmp_path, "csv") == [("a.jpg", "cat", [1, 2, 3, 4])]
    put(file, "filename,xmin,ymin,xmax,ymax,class_id\na.jpg,1,2,3,4,7\n")
    with pytest.raises(DataError, match=r"line 2: class 7 is not in classes\.csv"):
        read_dataset(tmp_path)
    put(file, "filename,xmin,ymin,xmax,ymax,class\na.jpg,1,2,3,4,cow\n")
    found = finding(read(tmp_path, "csv"), "csv.class_unlisted")
    assert found is not None and "cow on line 2" in found.seen
    put(tmp_path / "classes.csv", "dog,0\ncat\n")
    with pytest.raises(DataError, match=r"classes\.csv has a row that is no class"):
        read_dataset(tmp_path)


def test_ids_of_images_without_a_suffix(tmp_path: Path) -> None:
    pictures(tmp_path / "train", "007.png", "b.v2.jpg")
    text = 'image_id,bbox\n007,"[1, 2, 60, 40]"\nb.v2,"[40, 20, 20, 25]"\ngone,"[1, 2, 60, 40]"\n'
    put(tmp_path / "train.csv", text)
    dataset = read(tmp_path, "csv")
    assert list(boxes(dataset)) == ["007.png", "b.v2.jpg", "gone.jpg"]
    missing = finding(dataset, "image.missing")
    assert missing is not None and ": 1 (gone.jpg)" in missing.seen


@pytest.mark.parametrize("name", ["ä ö.jpg", "a#1 50%.jpg", "a%20b.jpg", "a, b.jpg"])
def test_awkward_names(tmp_path: Path, name: str) -> None:
    pictures(tmp_path / "sub", name)
    put(tmp_path / "a.csv", f'filename,xmin,ymin,xmax,ymax,class\n"sub\\{name}",1,2,3,4,cat\n')
    assert list(boxes(read(tmp_path, "csv"))) == [name]


@pytest.mark.parametrize(
    "cell",
    ["[[16, 12], [48, 12], [48, 36], [16, 36]]", "[(16, 12), (48, 20), (30, 36)]", "[[[16. 12.] [48 30] [9 36]]]"],
)
def test_outlines_are_taken_by_their_hull(tmp_path: Path, cell: str) -> None:
    pictures(tmp_path, "a.jpg")
    file = put(tmp_path / "a.csv", f'image,bbox,class\na.jpg,"{cell}",cat\n')
    dataset = read(tmp_path, "csv")
    assert boxes(dataset)["a.jpg"] == [("cat", [9 if " 9" in cell or "[9" in cell else 16, 12, 48, 36])]
    (seen,) = [one.seen for one in dataset.findings if one.check == "csv.hull"]
    assert "outlines of points, taken by their upright hull: 1 (line 2)" in seen
    put(file, f'image,bbox,class\na.jpg,"[16, 12, 32, 24]",cat\na.jpg,"[2, 3, 60, 44]",cat\na.jpg,"{cell}",cat\n')
    with pytest.raises(DataError, match="an outline of points stands among"):
        read_dataset(file, format="csv", boxes="xywh_px")


def test_flags(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg")
    text = "filename,xmin,ymin,xmax,ymax,class,IsGroupOf,difficult\na.jpg,1,2,3,4,cat,1,0\na.jpg,5,6,7,8,cat,0,True\n"
    put(tmp_path / "a.csv", text)
    sample = read(tmp_path, "csv").splits["train"][0]
    assert sample.crowd.tolist() == [True, False] and sample.ignore.tolist() == [False, True]


def test_findings_of_classes_and_sizes(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg")
    head = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    put(tmp_path / "a.csv", f"{head}a.jpg,64,48,,1,2,3,4\na.jpg,48,64,cat,1,2,3,4\n")
    dataset = read(tmp_path, "csv")
    unlabelled, differs = finding(dataset, "csv.unlabelled"), finding(dataset, "csv.size_differs")
    assert unlabelled is not None and "(line 2)" in unlabelled.seen
    assert differs is not None and "a.jpg on line 3" in differs.seen
    put(tmp_path / "a.csv", f"{head}a.jpg,64,48,cat,1,2,3,4\n")
    assert not [one for one in read(tmp_path, "csv").findings if one.check.startswith("csv")]
    put(tmp_path / "a.csv", "filename,xmin,ymin,xmax,ymax\na.jpg,1,2,3,4\n")
    found = finding(read(tmp_path, "csv"), "csv.no_class")
    assert found is not None and "object: NAME" in found.fix


def test_broken_rows_are_named(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg")
    head = "filename,xmin,ymin,xmax,ymax,class\n"
    rows = "a.jpg,1,2,3,4,cat\na.jpg,1,,3,4,cat\na.jpg,1,2\n,1,2,3,4,cat\na.jpg,1,2,nan,4,cat\n"
    file = put(tmp_path / "a.csv", head + rows)
    with pytest.raises(DataError) as caught:
        read_dataset(file)
    told = "cannot be read: 4 (line 3: '' is no number, line 4 has 3 cells of 6, line 5 names no image and 1 more)"
    assert told in caught.value.what and caught.value.where == str(file)
    put(file, 'image,bbox,class\na.jpg,"[1, 2, 9, 9]",cat\na.jpg,"[1, 2, 3]",cat\na.jpg,"[5, 2, 4, 3]",cat\n')
    with pytest.raises(DataError, match=r"line 3: '\[1, 2, 3\]' holds 3 numbers, not four"):
        read_dataset(file)
    file.write_bytes(b"filename,xmin,ymin,xmax,ymax,class\na.jpg,1,2,3,4,\xff\n")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        read_dataset(file)


def test_a_table_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no table of boxes was found"):
        raw_of(tmp_path, "csv")
    for number, text in enumerate(("a,b\n1,2\n", "", "name,age\nx,3\n", "a.jpg,cat\n", "id,x,y,w,h\n1,2,3,4,5\n")):
        file = put(tmp_path / f"{number}.csv", text)
        assert sniff_csv(file) is None
        with pytest.raises(DataError, match="is no table of boxes"):
            raw_of(file, "csv")
    assert sniff_csv(tmp_path) is None and sniff_csv(put(tmp_path / "a.txt", SHAPES["tensorflow"])) is None
