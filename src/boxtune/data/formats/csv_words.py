"""The words that people use for the columns of a table of boxes."""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


COORDINATES = {
    "x0": _words("x0"),
    "y0": _words("y0"),
    "x1": _words("x1 xmin minx left xleft leftx xtl tlx topleftx xtopleft upperleftx upperleftcornerx xstart startx"),
    "y1": _words("y1 ymin miny top ytop topy ytl tly toplefty ytopleft upperlefty upperleftcornery ystart starty"),
    "x2": _words(
        "x2 xmax maxx right xright rightx xbr brx bottomrightx xbottomright lowerrightx lowerrightcornerx xend endx"
    ),
    "y2": _words(
        "y2 ymax maxy bottom ybottom bottomy ybr bry bottomrighty ybottomright lowerrighty lowerrightcornery yend endy"
    ),
    "cx": _words("cx xc xcenter xcentre centerx centrex xcen xmid midx centroidx xcentroid"),
    "cy": _words("cy yc ycenter ycentre centery centrey ycen ymid midy centroidy ycentroid"),
    "x": _words("x"),
    "y": _words("y"),
    "w": _words("w width wd"),
    "h": _words("h height ht"),
}
"""Each side of a box, with the names that columns have for it, in small letters without anything between."""

IMAGE_WIDTH = _words(
    "imagewidth imgwidth imwidth imagew imgw imw picturewidth photowidth framewidth originalwidth widthimage"
)
IMAGE_HEIGHT = _words(
    "imageheight imgheight imheight imageh imgh imh pictureheight photoheight frameheight originalheight heightimage"
)
FILES = tuple(
    "filename file imagefilename imagename imgname imagefile imgfile filepath imagepath imgpath path fname image img "
    "photo picture imageurl imgurl url imageuri uri src frame name imageid imgid imageindex externalid patientid "
    "frameid fileid key id".split()
)
"""Names of the column that says which image a row is about, the clearest first."""
VAGUE = _words("key id name frame")
"""Those of them that may as well number the boxes: they count only where names of image files stand below."""

LABELS = (
    _words(
        "class classname classlabel label labelname labels category categoryname objectclass objectname objectlabel "
        "classes tag tags annotationtag findinglabel"
    ),
    _words("name type object target kind title species"),
    _words("classid classidx classindex clsid cls labelid categoryid catid objectid classnumber"),
)
"""Names of the column that holds the class, in three ranks: only where none is of one rank does the next count."""

BOX_CELLS = _words(
    "bbox box boundingbox bndbox bboxes boxes boxesstring boundingboxes coordinates coords rect rectangle annotations "
    "annotation region location geometry"
)
PREDICTIONS = _words("predictionstring predictions labels")
SPLITS = _words("split subset set partition usage mlusage dataset")
CROWDS = _words("iscrowd crowd isgroupof groupof")
IGNORED = _words("difficult isdifficult ignore ignored")

SCHEMAS: dict[str, tuple[frozenset[str], str]] = {
    "Kaggle's wheat set": (_words("imageid width height bbox source"), "xywh"),
    "Make Sense": (_words("labelname bboxx bboxy bboxwidth bboxheight imagename"), "xywh"),
    "the RSNA pneumonia set": (_words("patientid x y width height target"), "xywh"),
    "the NIH chest set": (_words("imageindex findinglabel bboxx y w h"), "xywh"),
}
"""Tables whose definition says what their numbers mean: all their columns, and the order."""

_BEFORE = (
    "boundingbox",
    "bbox",
    "box",
    "roi",
    "bndbox",
    "bb",
    "region",
    "rect",
    "object",
    "obj",
    "annotation",
    "coord",
)


def plain(name: str) -> str:
    """A name in small letters, without blanks and signs."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def coordinate_of(name: str) -> str | None:
    """The side of a box that a column is named for, as in COORDINATES; `bbox_x` is `x`."""
    return next((side for side, words in COORDINATES.items() if _without_prefix(plain(name)) in words), None)


def speaks_of_box(name: str) -> bool:
    """Whether a name says that it is a side of the box and not of the image: `bbox_width`."""
    return _without_prefix(plain(name)) != plain(name) or plain(name) in ("w", "h")


def _without_prefix(word: str) -> str:
    sides = frozenset[str]().union(*COORDINATES.values())
    if word in sides:
        return word
    return next((word[len(one) :] for one in _BEFORE if word.startswith(one) and word[len(one) :] in sides), word)
