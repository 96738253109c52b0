"""Pascal VOC and ImageNet XML: objects, splits, and the image that belongs to a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from boxtune.data import read_dataset
from boxtune.data.formats import sniff
from boxtune.errors import DataError

from .made_sets import boxes_of, checks_of, counts_of, image, seen_of, write

BOX = "<bndbox><xmin>8</xmin><ymin>6</ymin><xmax>28.5</xmax><ymax>22</ymax></bndbox>"
XYXY = [8.0, 6.0, 28.5, 22.0]
CAT = f"<object><name>cat</name>{BOX}</object>"


def annotation(name: str, objects: str = CAT, size: str | None = "<width>64</width><height>48</height>") -> str:
    sized = "" if size is None else f"<size>{size}<depth>3</depth></size>"
    return f"<annotation><folder>x</folder><filename>{name}</filename>{sized}{objects}</annotation>"


def pair(
    folder: Path, stem: str = "a", *, images: str = "JPEGImages", xml: str = "Annotations", objects: str = CAT
) -> None:
    """An image and its .xml, in these folders."""
    image(folder / images / f"{stem}.jpg")
    write(folder / xml / f"{stem}.xml", annotation(f"{stem}.jpg", objects))


def read_objects(folder: Path, objects: str) -> list[tuple[str, list[float]]]:
    pair(folder, objects=objects)
    return boxes_of(read_dataset(folder))["JPEGImages/a.jpg"]


@pytest.mark.parametrize(
    ("shape", "xyxy", "check"),
    [
        (BOX, XYXY, None),
        ("<bndbox><xmax> 28.5 </xmax><ymax>22</ymax><ymin>\n6\n</ymin><xmin>8.0</xmin></bndbox>", XYXY, None),
        (f"<part><name>head</name>{BOX.replace('8', '9')}</part><pose>Left</pose>{BOX}", XYXY, None),
        (f"{BOX}<polygon><x1>8</x1><y1>6</y1><x2>28</x2><y2>22</y2></polygon>", XYXY, None),
        ("<polygon><x1>8</x1><y1>22</y1><x2>28.5</x2><y2>6</y2><x3>9</x3><y3>9</y3></polygon>", XYXY, "voc.hull"),
        ("<polygon><pt><x>8</x><y>22</y></pt><pt><x>28.5</x><y>6</y></pt></polygon>", XYXY, "voc.hull"),
        (
            "<robndbox><cx>20</cx><cy>20</cy><w>16</w><h>8</h><angle>1.5707963267948966</angle></robndbox>",
            [16.0, 12.0, 24.0, 28.0],
            "voc.hull",
        ),
    ],
)
def test_objects(tmp_path: Path, shape: str, xyxy: list[float], check: str | None) -> None:
    pair(tmp_path, objects=f"<object><name>\n cat </name>{shape}</object>")
    dataset = read_dataset(tmp_path)
    assert dataset.format == "voc" and boxes_of(dataset) == {"JPEGImages/a.jpg": [("cat", xyxy)]}
    assert set(checks_of(dataset)) == ({check} if check else set())


@pytest.mark.parametrize(
    ("objects", "words"),
    [
        ("<object><name>cat</name></object>", "Annotations/a.xml object 1 (cat): it has no bndbox"),
        (CAT.replace("<ymax>22</ymax>", ""), "object 1 (cat): ymax is missing"),
        (CAT.replace("28.5", "wide"), "xmax is wide"),
        (CAT.replace("28.5", "nan"), "xmax is nan"),
        ("<object><name>cat</name><polygon><pt><x>8</x></pt></polygon></object>", "a point without x and y"),
        (CAT + "</object>", "a.xml is not XML: mismatched tag"),
        ("<object>&entity;</object>", "a.xml is not XML: undefined entity"),
    ],
)
def test_broken_objects(tmp_path: Path, objects: str, words: str) -> None:
    with pytest.raises(DataError, match=r"VOC files or objects that cannot be used: 1") as caught:
        read_objects(tmp_path, objects)
    assert words in caught.value.what


def test_a_doctype_is_refused(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE annotation [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>' + annotation("a.jpg", "<object>&b;</object>")
    image(tmp_path / "a.jpg")
    write(tmp_path / "a.xml", bomb)
    with pytest.raises(DataError, match=r"a\.xml has a DOCTYPE"):
        read_dataset(tmp_path)


def test_flags(tmp_path: Path) -> None:
    flags = ("<difficult>1</difficult>", "<difficult>0</difficult>", "<truncated>1</truncated>", "<deleted>1</deleted>")
    objects = "".join(CAT.replace("<bndbox>", f"{flag}<bndbox>") for flag in flags)
    pair(tmp_path, objects=objects + CAT.replace("<name>cat</name>", "<name> </name>"))
    dataset = read_dataset(tmp_path)
    (sample,) = dataset.splits["train"]
    assert sample.ignore.tolist() == [True, False, False]
    assert checks_of(dataset) == {"voc.difficult": "ok", "voc.deleted": "ok", "voc.unlabelled": "warn"}
    assert "object 1 (cat)" in seen_of(dataset, "voc.difficult")


def test_inverted_corners_are_left_out_with_a_word(tmp_path: Path) -> None:
    inverted = CAT.replace("<xmin>8</xmin>", "<xmin>40</xmin>")
    pair(tmp_path, objects=CAT + inverted)
    dataset = read_dataset(tmp_path)
    assert boxes_of(dataset)["JPEGImages/a.jpg"] == [("cat", XYXY)]
    assert "cat [40, 6, 28.5, 22]" in seen_of(dataset, "box.without_area")


@pytest.mark.parametrize("size", [None, "<width>0</width><height>0</height>", "<width></width>", "<width>64.0</width>"])
def test_size_unknown(tmp_path: Path, size: str | None) -> None:
    image(tmp_path / "a.jpg")
    write(tmp_path / "a.xml", annotation("a.jpg", size=size))
    (sample,) = read_dataset(tmp_path).splits["train"]
    assert sample.size_wh == (64, 48)


@pytest.mark.parametrize(
    ("images", "xml"),
    [
        ("JPEGImages", "Annotations"),
        ("images", "annotations"),
        ("Images", "annots"),
        ("images", "annotations/xmls"),
        ("images", "labels"),
        (".", "Annotations"),
        (".", "."),
        ("a b #1/images", "a b #1/xml"),
        ("images/train", "annotations/train"),
        ("train/images", "train/annotations"),
        ("train", "voc/train"),
        ("Data/CLS-LOC/train/n01440764", "Annotations/CLS-LOC/train/n01440764"),
        ("VOC2012/JPEGImages", "VOC2012/Annotations"),
    ],
)
def test_where_images_are(tmp_path: Path, images: str, xml: str) -> None:
    pair(tmp_path, images=images, xml=xml)
    for path in (tmp_path, tmp_path / xml, tmp_path / xml / "a.xml"):
        dataset = read_dataset(path)
        (sample,) = dataset.splits["train"]
        assert sample.image.resolve() == (tmp_path / images / "a.jpg").resolve() and checks_of(dataset) == {}


@pytest.mark.parametrize(
    ("said", "there", "check"),
    [
        ("a", "a.JPEG", None),  # ImageNet leaves out the suffix
        ("größe %20 #1.jpg", "größe %20 #1.jpg", None),
        ("b%20c.jpg", "b c.jpg", None),
        ("C:\\Users\\me\\photos\\b.jpg", "b.jpg", None),
        ("other.jpg", "a.png", "voc.image_by_stem"),
        ("a.jpg", "a.png", "voc.image_by_stem"),
        ("", "a.png", None),
    ],
)
def test_names(tmp_path: Path, said: str, there: str, check: str | None) -> None:
    image(tmp_path / there)
    write(tmp_path / "a.xml", annotation(said))
    dataset = read_dataset(tmp_path)
    assert boxes_of(dataset) == {there: [("cat", XYXY)]}
    assert set(checks_of(dataset)) == ({check} if check else set())


def test_the_image_of_the_same_stem_wins(tmp_path: Path) -> None:
    """Files that were copied and renamed keep the old <filename>."""
    for stem in ("a", "b"):
        image(tmp_path / f"{stem}.jpg")
        write(tmp_path / f"{stem}.xml", annotation("a.jpg"))
    dataset = read_dataset(tmp_path)
    assert boxes_of(dataset).keys() == {"a.jpg", "b.jpg"}
    assert "b.xml says a.jpg, taken is b.jpg" in seen_of(dataset, "voc.image_by_stem")


def test_images_elsewhere(tmp_path: Path) -> None:
    write(tmp_path / "xml" / "train" / "a.xml", annotation("a.jpg"))
    image(tmp_path / "photos" / "train" / "a.jpg")
    with pytest.raises(DataError, match=r"none of the 1 images"):
        read_dataset(tmp_path / "xml")
    dataset = read_dataset(tmp_path / "xml", images=tmp_path / "photos")
    assert counts_of(dataset) == {"train": (1, 1)}


def write_lists(folder: Path, **lists: Sequence[str]) -> None:
    for name, stems in lists.items():
        write(folder / "ImageSets" / "Main" / f"{name}.txt", "".join(f"{stem}\n" for stem in stems))


def test_image_sets(tmp_path: Path) -> None:
    for stem in ("a", "b", "c", "d 1", "e"):
        pair(tmp_path, stem)
    image(tmp_path / "JPEGImages" / "bare.jpg")
    write_lists(
        tmp_path, train=["a", "b  1"], val=["c", "d 1"], trainval=["a", "b", "c"], test=["bare"], cat_train=["c"]
    )
    dataset = read_dataset(tmp_path)
    assert "splits as in ImageSets/Main/train.txt, ImageSets/Main/val.txt, ImageSets/Main/test.txt" in dataset.why
    assert counts_of(dataset) == {"train": (2, 2), "valid": (2, 2)}
    assert checks_of(dataset) == {"voc.unannotated": "warn", "voc.unlisted": "warn"}
    assert "1 (bare)" in seen_of(dataset, "voc.unannotated") and "1 (e.xml)" in seen_of(dataset, "voc.unlisted")


def test_devkit(tmp_path: Path) -> None:
    """Two years with images of one name."""
    for year in ("VOC2007", "VOC2012"):
        pair(tmp_path / "VOCdevkit" / year, "a")
    write_lists(tmp_path / "VOCdevkit" / "VOC2007", test=["a"])
    write_lists(tmp_path / "VOCdevkit" / "VOC2012", trainval=["a.jpg"])
    for path in (tmp_path, tmp_path / "VOCdevkit"):
        assert counts_of(read_dataset(path)) == {"train": (1, 1), "test": (1, 1)}
    write_lists(tmp_path / "VOCdevkit" / "VOC2012", trainval=["gone"])
    write_lists(tmp_path / "VOCdevkit" / "VOC2007", test=["gone"])
    with pytest.raises(DataError, match=r"not one of the 2 names in .* has an \.xml, such as gone"):
        read_dataset(tmp_path)


def test_roboflow_folders(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        pair(tmp_path, images=split, xml=split)
    image(tmp_path / "train" / "unannotated.jpg")
    dataset = read_dataset(tmp_path)
    assert counts_of(dataset) == dict.fromkeys(("train", "valid", "test"), (1, 1)) and checks_of(dataset) == {}
    assert counts_of(read_dataset(tmp_path / "valid")) == {"valid": (1, 1)}
    pair(tmp_path, "stray", images=".", xml=".")
    dataset = read_dataset(tmp_path)
    assert counts_of(dataset)["train"] == (1, 1)
    assert "1 (stray.xml)" in seen_of(dataset, "voc.outside_splits")


def test_negatives_are_kept(tmp_path: Path) -> None:
    pair(tmp_path, "a")
    pair(tmp_path, "b", objects="")
    assert counts_of(read_dataset(tmp_path)) == {"train": (2, 1)}


def test_sniffer_is_quiet(tmp_path: Path) -> None:
    write(tmp_path / "annotations.xml", "<annotations><version>1.1</version></annotations>")
    write(tmp_path / "config.xml", "<View><Image/></View>")
    write(tmp_path / "far" / "away" / "a.xml", annotation("a.jpg"))
    assert "voc" not in sniff(tmp_path)
    with pytest.raises(DataError, match=r"no VOC file was found, only notes\.txt"):
        read_dataset(write(tmp_path / "empty" / "notes.txt", "x").parent, format="voc")
    assert list(sniff(write(tmp_path / "a.xml", f'<?xml version="1.0"?>\n<!-- made -->\n{annotation("a")}'))) == ["voc"]
