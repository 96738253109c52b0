"""What is drawn is there, inside the picture, readable, and apart for colour-blind eyes."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxtune import pictures
from boxtune.boxes import Boxes
from boxtune.pictures import INK, PAPER, PREDICTED, TRUTH, contact_sheet, draw_boxes

GREY = (128, 128, 128)


def canvas(width: int = 600, height: int = 400, mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", (width, height), GREY).convert(mode)


def boxes(*rows: tuple[str, float, float, float, float], scores: list[float] | None = None) -> Boxes:
    xyxy = np.array([row[1:] for row in rows], dtype=float).reshape(-1, 4)
    return Boxes(
        xyxy_px=xyxy, labels=tuple(row[0] for row in rows), scores=None if scores is None else np.array(scores)
    )


def places(picture: Image.Image, colour: tuple[int, int, int]) -> np.ndarray:
    """Rows and columns, counted from the bottom-left of the image (the bar sits on top of it)."""
    return np.argwhere((np.asarray(picture) == colour).all(axis=2))


def num_white(picture: Image.Image) -> int:
    """Pixels that are nearly white; letters have soft edges."""
    return int((np.asarray(picture).min(axis=2) > 180).sum())


def body(picture: Image.Image, height: int) -> Image.Image:
    """The picture without its bar."""
    return picture.crop((0, picture.height - height, picture.width, picture.height))


def test_truth_is_solid_and_prediction_dashed() -> None:
    box = boxes(("cat", 100, 100, 300, 250))
    truth = body(draw_boxes(canvas(), box, None), 400)
    predicted = body(draw_boxes(canvas(), None, box), 400)
    for x, y in [(200, 250), (300, 200), (150, 250)]:
        assert truth.getpixel((x, y)) == TRUTH
    edge = np.array([predicted.getpixel((x, 100)) == PREDICTED for x in range(100, 301)])
    assert edge[0] and edge[-1] and 0.4 < edge.mean() < 0.7
    assert 10 <= np.count_nonzero(edge[1:] != edge[:-1]) <= 40
    assert not len(places(predicted, TRUTH)) and not len(places(truth, PREDICTED))


def test_both_are_seen_where_they_agree_exactly() -> None:
    box = boxes(("cat", 100, 100, 300, 250))
    left = [body(draw_boxes(canvas(), box, box), 400).getpixel((100, y)) for y in range(130, 230)]
    assert {TRUTH, PREDICTED} <= set(left)


def test_coordinates_are_scaled_with_the_picture() -> None:
    drawn = draw_boxes(canvas(3000, 2000), boxes(("cat", 600, 600, 1500, 1800)), None, max_side=500)
    assert drawn.width == 500
    rows, columns = places(body(drawn, 333), TRUTH).T
    assert abs(rows.max() - 300) <= 1 and abs(columns.max() - 250) <= 1
    assert abs(columns.min() - 100) <= 1


def test_size_is_kept_in_range() -> None:
    assert draw_boxes(canvas(600, 400), None, None).size == (600, 400)
    assert draw_boxes(canvas(3000, 1500), None, None).size == (1000, 500)
    assert draw_boxes(canvas(64, 32), None, None).size == (400, 200)
    assert draw_boxes(canvas(64, 32), None, None, max_side=200).size == (200, 100)
    assert draw_boxes(canvas(4000, 1), None, None, max_side=100).size == (100, 1)
    with pytest.raises(ValueError, match="max_side"):
        draw_boxes(canvas(), None, None, max_side=0)


def test_the_image_itself_is_not_drawn_on() -> None:
    image = canvas()
    draw_boxes(image, boxes(("cat", 0, 0, 50, 50)), None)
    contact_sheet([image], columns=1, cell_px=100, title="")
    assert image.getcolors() == [(600 * 400, GREY)]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16"])
def test_every_mode_comes_out_as_rgb(mode: str) -> None:
    image = Image.new(mode, (500, 300))
    assert draw_boxes(image, boxes(("cat", 5, 5, 50, 50)), None, caption="x").mode == "RGB"
    assert contact_sheet([image], columns=1, cell_px=50, title="x").mode == "RGB"


def test_a_box_on_the_border_is_seen_on_all_sides() -> None:
    drawn = np.asarray(body(draw_boxes(canvas(), boxes(("cat", 0, 0, 600, 400)), None), 400))
    for strip in (drawn[:6, 300], drawn[-6:, 300], drawn[200, :6], drawn[200, -6:]):
        assert (strip == TRUTH).all(axis=1).sum() >= 2


@pytest.mark.parametrize(
    "row",
    [
        ("a", -50, -50, 5, 5),
        ("a", 590, 390, 900, 900),
        ("a", 700, 500, 800, 600),
        ("a", 20, 20, 20, 20),
        ("", 0, 0, 1, 1),
    ],
)
def test_odd_boxes_are_drawn(row: tuple[str, float, float, float, float]) -> None:
    assert len(places(body(draw_boxes(canvas(), boxes(row), None), 400), TRUTH))
    assert len(places(body(draw_boxes(canvas(), None, boxes(row)), 400), PREDICTED))


def test_labels_stay_inside_and_do_not_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    given: list[tuple[int, int, int, int]] = []
    choose = pictures._free_place

    def watched(*args: object) -> tuple[int, int, int, int] | None:
        place = choose(*args)
        if place is not None:
            given.append(place)
        return place

    monkeypatch.setattr(pictures, "_free_place", watched)
    xy = random.uniform(0, 1, (60, 2)) * [560, 360]
    crowd = Boxes(xyxy_px=np.concatenate([xy, xy + 40], axis=1), labels=tuple(f"class {k}" for k in range(60)))
    drawn = draw_boxes(canvas(), crowd, crowd)
    assert 30 < len(given) < 120
    assert all(0 <= x1 < x2 < 600 and 0 <= y1 < y2 < 400 for x1, y1, x2, y2 in given)
    num_pairs = 0
    for a, b in combinations(given, 2):
        assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]
        num_pairs += 1
    assert num_pairs == len(given) * (len(given) - 1) // 2
    # What is left out is said: the bar holds more white letters than that of a picture with room for all.
    roomy = draw_boxes(canvas(), boxes(("a", 50, 50, 90, 90)), boxes(("a", 150, 150, 190, 190)))
    assert num_white(drawn) > 50 and num_white(roomy) == 0


def test_labels_show_scores_only_where_there_are_some() -> None:
    assert pictures._labels(boxes(("cat", 0, 0, 1, 1), scores=[0.876])) == ["cat 0.88"]
    assert pictures._labels(boxes(("cat", 0, 0, 1, 1))) == ["cat"]


def test_labels_in_any_script_do_not_crash() -> None:
    plain = {
        "żółć": "zolc",
        "Ünïcode": "Unicode",
        "細胞": "??",
        "a\nb": "a b",
        "🙂": "?",
        "\ud800": "?",
        "µm": "um",
        "\0": "?",
    }
    assert {text: pictures._plain(text) for text in plain} == plain
    for text in [*plain, "", "x" * 5000]:
        box = boxes((text, 100, 100, 200, 200))
        drawn = draw_boxes(canvas(), box, box, caption=text)
        assert drawn.width == 600 and drawn.height < 600
        assert contact_sheet([drawn], columns=1, cell_px=300, title=text).width < 400


def test_the_bar_is_there_only_where_it_says_something() -> None:
    image = canvas()
    assert draw_boxes(image, None, None).height == 400
    with_caption = draw_boxes(image, None, None, caption="a caption")
    assert with_caption.height > 400 and num_white(with_caption) > 50
    with_legend = draw_boxes(image, Boxes.none(), Boxes.none())
    assert with_legend.height > 400
    assert len(places(with_legend, TRUTH)) > 20 and len(places(with_legend, PREDICTED)) > 20
    one_row = draw_boxes(image, Boxes.none(), Boxes.none(), caption="short")
    assert one_row.height == with_legend.height
    long = draw_boxes(image, Boxes.none(), Boxes.none(), caption="long words " * 100)
    assert one_row.height < long.height < 550


def luminance(colour: tuple[int, int, int]) -> float:
    """WCAG 2 relative luminance."""
    linear = [c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_letters_have_the_contrast_that_wcag_asks_for() -> None:
    num_seen = 0
    for light in (TRUTH, PREDICTED, PAPER):
        assert (luminance(light) + 0.05) / (luminance(INK) + 0.05) >= 4.5
        num_seen += 1
    assert num_seen == 3


COLOUR_BLIND = {  # Machado, Oliveira and Fernandes 2009, full severity, on linear RGB
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def seen_distance(kind: str, left: tuple[int, int, int], right: tuple[int, int, int]) -> float:
    """Distance in CIELAB (1976) of two colours as such eyes see them."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    lab = []
    for colour in (left, right):
        share = np.array(colour) / 255
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        xyz = to_xyz @ np.clip(np.array(COLOUR_BLIND[kind]) @ linear, 0, 1) / [0.9505, 1, 1.089]
        f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        lab.append(np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])]))
    return float(np.linalg.norm(lab[0] - lab[1]))


@pytest.mark.parametrize("kind", COLOUR_BLIND)
def test_truth_and_prediction_stay_apart_for_colour_blind_eyes(kind: str) -> None:
    assert seen_distance(kind, TRUTH, PREDICTED) > 40


def test_the_measure_of_colours_sees_a_bad_pair() -> None:
    assert seen_distance("deutan", (0, 128, 0), (176, 64, 0)) < 40


def test_contact_sheet_lays_out_rows() -> None:
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (200, 0, 200)]
    images = [Image.new("RGB", (300, 150), colour) for colour in colours]
    sheet = contact_sheet(images, columns=2, cell_px=100, title="Five")
    centres = [places(sheet, colour).mean(axis=0) for colour in colours]
    assert all(len(places(sheet, colour)) == 100 * 50 for colour in colours)
    assert centres[0][0] == centres[1][0] < centres[2][0] == centres[3][0] < centres[4][0]
    assert centres[0][1] == centres[2][1] == centres[4][1] < centres[1][1] == centres[3][1]
    assert len(places(sheet, INK)) > 10
    assert contact_sheet(images, columns=2, cell_px=100, title="").height < sheet.height
    assert contact_sheet(images[:1], columns=5, cell_px=100, title="").width < 120


def test_contact_sheet_does_not_enlarge() -> None:
    sheet = contact_sheet([Image.new("RGB", (20, 10), (200, 0, 0))], columns=1, cell_px=100, title="")
    assert len(places(sheet, (200, 0, 0))) == 200


def test_contact_sheet_refuses_what_it_cannot_lay_out() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        contact_sheet([], columns=2, cell_px=100, title="")
    for columns, cell_px in ((0, 100), (2, 0)):
        with pytest.raises(ValueError, match="at least 1, not"):
            contact_sheet([canvas()], columns=columns, cell_px=cell_px, title="")


def test_a_photograph(shared_data: Path) -> None:
    files = sorted((shared_data / "microcontrollers" / "valid").glob("*.jpg"))[:2]
    assert len(files) == 2
    for file in files:
        with Image.open(file) as image:
            drawn = draw_boxes(image, boxes(("chip", 100, 100, 300, 300)), None, caption=file.name)
        assert max(drawn.size) <= 1100
        assert len(places(drawn, TRUTH)) > 300
