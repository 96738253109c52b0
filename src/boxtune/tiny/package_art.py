"""What is printed on a drawn food package: nutrition tables, and much that only resembles one.

Everything is drawn flat, in pixels of the sheet (x right, y down), into rectangles x1, y1, x2, y2 whose right and
lower edges are exclusive. Letters come from the font inside Pillow, which has no accents: those are drawn by hand.
"""

from __future__ import annotations

import colorsys
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont

T = TypeVar("T")
Rgb = tuple[int, int, int]
Rect = tuple[int, int, int, int]
Length = float | int
"""Pixels; spelt out, since the type checks of the tests take no int where float stands."""
TableStyle = Literal["us", "grid", "rules", "bands"]

TABLE_STYLES: tuple[TableStyle, ...] = ("us", "us", "grid", "grid", "rules", "bands")
BLACK, WHITE = (22, 20, 20), (250, 250, 246)


@dataclass(frozen=True, kw_only=True)
class Language:
    """The words of one market; `rows` are fat, saturates, carbohydrate, sugars, fibre, protein, salt."""

    title: str
    per: str
    portion: str
    energy: str
    rows: tuple[str, ...]
    ingredients: str
    prose: str
    stamp: str


def _language(head: str, rows: str, prose: str) -> Language:
    title, per, portion, energy, ingredients, stamp = head.split("|")
    names = tuple(rows.split("|"))
    return Language(
        title=title,
        per=per,
        portion=portion,
        energy=energy,
        rows=names,
        ingredients=ingredients,
        prose=prose,
        stamp=stamp,
    )


LANGUAGES = (
    _language(
        "Nutrition Facts|per 100 g|per serving|Energy|Ingredients|Best before",
        "Fat|of which saturates|Carbohydrate|of which sugars|Fibre|Protein|Salt",
        "wholegrain oats, sugar, wheat flour, rapeseed oil, honey, cocoa butter, skimmed milk powder, salt, raising "
        "agent, natural flavouring. May contain traces of nuts. Store in a cool and dry place, away from sunlight.",
    ),
    _language(
        "Nährwerte|pro 100 g|pro Portion|Energie|Zutaten|Mindestens haltbar bis",
        "Fett|davon gesättigt|Kohlenhydrate|davon Zucker|Ballaststoffe|Eiweiß|Salz",
        "Weizenmehl, Zucker, Sonnenblumenöl, Haselnüsse, fettarmer Kakao, Süßmolkenpulver, Gerstenmalz, Speisesalz, "
        "natürliches Aroma. Kann Spuren von Erdnüssen enthalten. Kühl und trocken lagern.",
    ),
    _language(
        "Valeurs nutritionnelles|pour 100 g|par portion|Énergie|Ingrédients|À consommer avant",
        "Matières grasses|dont saturés|Glucides|dont sucres|Fibres|Protéines|Sel",
        "farine de blé, sucre, huile de tournesol, pâte de cacao, lait écrémé, œufs frais, sel, arôme naturel, poudre "
        "à lever. Peut contenir des fruits à coque. À conserver à l'abri de la chaleur.",
    ),
    _language(
        "Información nutricional|por 100 g|por ración|Energía|Ingredientes|Consumir antes de",
        "Grasas|saturadas|Hidratos de carbono|azúcares|Fibra|Proteínas|Sal",
        "harina de trigo, azúcar, aceite de girasol, almendras, suero de leche, almidón de maíz, sal, aromas. Puede "
        "contener soja y cacahuetes. Consérvese en lugar fresco y seco.",
    ),
    _language(
        "Valori nutrizionali|per 100 g|per porzione|Energia|Ingredienti|Da consumarsi entro",
        "Grassi|di cui saturi|Carboidrati|di cui zuccheri|Fibre|Proteine|Sale",
        "semola di grano duro, pomodori, olio di oliva, cipolla, basilico, zucchero, sale marino, aroma naturale. Può "
        "contenere tracce di sedano. Conservare in luogo fresco e asciutto.",
    ),
    _language(
        "Voedingswaarde|per 100 g|per portie|Energie|Ingrediënten|Ten minste houdbaar tot",
        "Vetten|verzadigd|Koolhydraten|suikers|Vezels|Eiwitten|Zout",
        "tarwebloem, suiker, plantaardige oliën, glucosestroop, magere melkpoeder, zout, rijsmiddel, aroma. Kan sporen "
        "van noten bevatten. Koel en droog bewaren.",
    ),
    _language(
        "Informação nutricional|por 100 g|por porção|Energia|Ingredientes|Consumir antes de",
        "Lípidos|saturados|Hidratos de carbono|açúcares|Fibra|Proteínas|Sal",
        "farinha de trigo, açúcar, óleo de girassol, leite em pó, amêndoa, cacau magro, sal, aromas naturais. Pode "
        "conter vestígios de soja. Conservar em local fresco e seco.",
    ),
    _language(
        "Näringsvärde|per 100 g|per portion|Energi|Ingredienser|Bäst före",
        "Fett|varav mättat|Kolhydrat|varav sockerarter|Fiber|Protein|Salt",
        "vetemjöl, råsocker, rapsolja, havre, blåbär, mjölkpulver, potatisstärkelse, salt, naturlig arom. Kan "
        "innehålla spår av mandel. Förvaras torrt och svalt.",
    ),
)
SYLLABLES = ("Al", "Bor", "Cro", "Du", "El", "Fri", "Gra", "Ho", "Iva", "Jo", "Ku", "Lo", "Mu", "Nor", "Opa", "Pe")
ENDINGS = ("lina", "vo", "sco", "ni", "rella", "mix", "ta", "berg", "mo", "zel", "nut", "pop", "kies", "dora", "is")
CLAIMS = ("CRUNCHY", "BIO", "500 g", "NEW", "CLASSIC", "EXTRA", "Original", "Natur", "ZERO", "250 ml", "Mild", "Vegan")
US_ROWS = (
    ("Total Fat", 1), ("Saturated Fat", 0), ("Trans Fat", 0), ("Cholesterol", 1), ("Sodium", 1), ("Total Carb.", 1),
    ("Dietary Fiber", 0), ("Total Sugars", 0), ("Added Sugars", 0), ("Protein", 1),
)  # fmt: skip
VITAMINS = ("Vitamin D", "Calcium", "Iron", "Potassium")


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A flat package in the making: its picture, a pencil on it, its chance, language and two colours."""

    image: Image.Image
    draw: ImageDraw.ImageDraw
    rng: np.random.Generator
    language: Language
    base: Rgb
    accent: Rgb

    def part(self, rect: Rect) -> Sheet:
        """A copy of one rectangle as a sheet of its own; to be pasted back, so that nothing is drawn outside."""
        image = self.image.crop(rect)
        return replace(self, image=image, draw=ImageDraw.Draw(image))


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of the options, each as likely."""
    return options[int(rng.integers(len(options)))]


def any_colour(
    rng: np.random.Generator, saturation: tuple[float, float] = (0.2, 0.95), value: tuple[float, float] = (0.35, 1.0)
) -> Rgb:
    """A colour of any hue, red, green, blue in 0..255."""
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return int(red * 255), int(green * 255), int(blue * 255)


def blend(left: Rgb, right: Rgb, share: float) -> Rgb:
    """The colour `share` of the way from left to right."""
    a, b, c = (int(x + (y - x) * share) for x, y in zip(left, right, strict=True))
    return a, b, c


def ink_on(paper: Rgb) -> Rgb:
    """Near-black or near-white, whichever can be read on this paper."""
    return BLACK if 0.3 * paper[0] + 0.59 * paper[1] + 0.11 * paper[2] > 120 else WHITE


@lru_cache(maxsize=128)
def font_of(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font, so that every machine draws the same letters. Raises RuntimeError without FreeType."""
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("this Pillow was built without FreeType; install the wheel from PyPI")
    return font


@lru_cache(maxsize=4096)
def _split_accents(text: str) -> tuple[str, tuple[tuple[int, str], ...]]:
    """The text without accents, and (index of the letter, accent) for each."""
    letters: list[str] = []
    accents: list[tuple[int, str]] = []
    for char in unicodedata.normalize("NFD", text.replace("ß", "ss").replace("œ", "oe")):
        if unicodedata.combining(char):
            accents.append((len(letters) - 1, char))
        else:
            letters.append(char)
    return "".join(letters), tuple(accents)


@lru_cache(maxsize=4096)
def text_width(text: str, size: int) -> float:
    """Width in pixels of one line."""
    return float(font_of(size).getlength(_split_accents(text)[0]))


def fitting_size(text: str, width: Length, height: Length) -> int:
    """The largest font size, at least 3, at which the line fits into width and height."""
    per_point = text_width(text, 40) / 40
    return max(3, int(min(height * 0.92, width / max(per_point, 0.1))))


@lru_cache(maxsize=8192)
def _line(text: str, size: int, bold: bool) -> tuple[Image.Image, int, int]:
    """One line as a grey mask, and where its corner lies from the left end of the line's middle.

    Kept, since the same words return on package after package, and drawing letters is half of a picture's time.
    """
    letters, accents = _split_accents(text)
    font, margin = font_of(size), size // 2 + 2
    mask = Image.new("L", (math.ceil(text_width(text, size)) + 2 * margin, 2 * size + 4))
    draw, y = ImageDraw.Draw(mask), size + 2
    draw.text((margin, y), letters, fill=255, font=font, anchor="lm")
    if bold:
        draw.text((margin + max(0.5, size * 0.045), y), letters, fill=255, font=font, anchor="lm")
    unit, thick = size / 12, max(1, size // 12)
    for index, accent in accents if size >= 7 else ():
        middle = margin + (font.getlength(letters[:index]) + font.getlength(letters[: index + 1])) / 2
        top = y - size * (0.44 if letters[index].isupper() or letters[index] in "ij" else 0.3)
        if accent == "\u0327":  # cedilla
            draw.line((middle, y + size * 0.33, middle - unit, y + size * 0.48), fill=255, width=thick)
        elif accent == "\u0308":  # two dots
            for dx in (-1.6 * unit, 1.2 * unit):
                draw.rectangle((middle + dx, top - unit, middle + dx + unit * 0.6, top - unit * 0.4), fill=255)
        else:  # acute, grave and the rest, which nobody can tell apart at this size
            lean = -unit if accent == "\u0300" else unit
            draw.line((middle - lean, top, middle + lean, top - 1.6 * unit), fill=255, width=thick)
    box = mask.getbbox() or (0, 0, 1, 1)
    return mask.crop(box), box[0] - margin, box[1] - y


def write(
    draw: ImageDraw.ImageDraw, x: Length, y: Length, text: str, size: int, ink: Rgb, side: str = "l", bold: bool = False
) -> None:
    """Put one line down, centred vertically on y; x is its left (l), middle (m) or right (r) end; whole pixels."""
    mask, dx, dy = _line(text, size, bold)
    start = x - {"l": 0.0, "m": 0.5, "r": 1.0}[side] * text_width(text, size)
    draw.bitmap((round(start) + dx, round(y) + dy), mask, fill=ink)


def paper_for(sheet: Sheet) -> Rgb:
    """What a block is printed on: mostly white, else a tint, the package's own colour, or something dark."""
    roll = sheet.rng.random()
    if roll < 0.5:
        return WHITE
    if roll < 0.72:
        return blend(sheet.base, WHITE, 0.78)
    return sheet.base if roll < 0.88 else blend(sheet.base, BLACK, 0.82)


def _amounts(rng: np.random.Generator, count: int, comma: bool) -> list[str]:
    values = [f"{rng.integers(180, 2300)} kJ", f"{rng.integers(40, 560)} kcal"]
    values += [f"{rng.exponential(11) + 0.1:.1f} g" for _ in range(count - 2)]
    return [value.replace(".", ",") if comma else value for value in values]


def draw_table(sheet: Sheet, rect: Rect, style: TableStyle) -> None:
    """A nutrition table that fills the rectangle to its edges and does not leave it."""
    x1, y1, x2, y2 = rect
    part, whole = sheet.part(rect), (0, 0, x2 - x1, y2 - y1)
    paper = paper_for(sheet)
    if style == "us":
        _draw_us_table(part, whole, paper if sheet.rng.random() < 0.25 else WHITE)
    else:
        _draw_eu_table(part, whole, paper, style)
    sheet.image.paste(part.image, (x1, y1))


def _draw_us_table(sheet: Sheet, rect: Rect, paper: Rgb) -> None:
    draw, rng = sheet.draw, sheet.rng
    x1, y1, x2, y2 = rect
    ink = ink_on(paper)
    border = max(1, round((x2 - x1) / 90))
    draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=paper, outline=ink, width=border)
    title = "Nutrition Facts" if rng.random() < 0.75 else pick(rng, LANGUAGES).title
    pad = max(2, (x2 - x1) // 28)
    left, right = x1 + border + pad, x2 - border - pad
    title_size = fitting_size(title, (right - left) * 0.98, (y2 - y1) * 0.13)
    rows = [row for row in US_ROWS if row[1] or rng.random() < 0.75]
    vitamins = VITAMINS[: int(rng.integers(2, 5))]
    units = 2.6 + 1.7 + 1.0 + len(rows) + len(vitamins) + 1.7
    y = y1 + border + 1 + title_size * 1.05
    unit = (y2 - border - 1 - y) / units
    small = max(3, min(int(unit * 0.86), int((right - left) / 9.5)))
    write(draw, left, y1 + border + 1 + title_size * 0.52, title, title_size, ink, bold=True)

    def bar(thick: Length) -> None:
        draw.rectangle((left, round(y), right - 1, round(y) + max(1, round(thick)) - 1), fill=ink)

    bar(1)
    write(draw, left, y + unit * 0.6, f"{rng.integers(2, 12)} servings per container", small, ink)
    write(draw, left, y + unit * 1.6, "Serving size", small, ink, bold=True)
    write(draw, right, y + unit * 1.6, f"{rng.integers(20, 90)} g", small, ink, side="r", bold=True)
    y += unit * 2.2
    bar(unit * 0.42)
    y += unit * 0.4
    big = max(4, int(unit * 1.6))
    write(draw, left, y + unit * 0.95, "Calories", max(4, int(big * 0.8)), ink, bold=True)
    write(draw, right, y + unit * 0.95, str(rng.integers(60, 480)), big, ink, side="r", bold=True)
    y += unit * 1.7
    bar(unit * 0.25)
    y += unit * 0.2
    write(draw, right, y + unit * 0.45, "% Daily Value*", max(3, int(small * 0.9)), ink, side="r", bold=True)
    y += unit * 0.8
    for name, strong in rows:
        bar(1)
        grams = f"{rng.integers(0, 40)}g"
        write(draw, left + (0 if strong else pad * 2), y + unit * 0.55, name, small, ink, bold=bool(strong))
        write(draw, left + (right - left) * 0.62, y + unit * 0.55, grams, small, ink)
        write(draw, right, y + unit * 0.55, f"{rng.integers(0, 60)}%", small, ink, side="r", bold=bool(strong))
        y += unit
    bar(unit * 0.42)
    y += unit * 0.4
    for i, name in enumerate(vitamins):
        if i:
            bar(1)
        write(draw, left, y + unit * 0.55, name, small, ink)
        write(draw, right, y + unit * 0.55, f"{rng.integers(0, 30)}%", small, ink, side="r")
        y += unit
    bar(unit * 0.25)
    foot = "* Percent daily values are based on 2,000 calories"
    write(draw, left, y + unit * 0.75, foot, min(max(3, int(small * 0.8)), fitting_size(foot, right - left, unit)), ink)


def _draw_eu_table(sheet: Sheet, rect: Rect, paper: Rgb, style: TableStyle) -> None:
    draw, rng, words = sheet.draw, sheet.rng, sheet.language
    x1, y1, x2, y2 = rect
    width, height = x2 - x1, y2 - y1
    ink = ink_on(paper)
    line = blend(ink, paper, 0.0 if style == "rules" else rng.uniform(0.0, 0.35))
    num_columns = int(rng.integers(1, 4)) if width > 1.1 * height else int(rng.integers(1, 3))
    names = [words.energy, "", *words.rows]
    if height < 70:
        names = names[:7]
    columns = [_amounts(rng, len(names), comma=words.title != LANGUAGES[0].title) for _ in range(num_columns)]
    heads = [words.per, words.portion, "%*"][:num_columns]
    unit = height / (len(names) + 2.85)
    edges = [y1 + unit * 1.6, y1 + unit * 2.7]
    edges += [edges[1] + unit * (i + 1) for i in range(len(names) - 1)]
    pad = max(1, width // 40)
    name_share = (0.62, 0.46, 0.4)[num_columns - 1]
    column_width = width * (1 - name_share) / num_columns
    fit = [fitting_size(name, width * name_share - 2 * pad, unit * 0.85) for name in names if name]
    size = min(*fit, fitting_size("2345 kJ", column_width - 2 * pad, unit))
    size = max(size, int(unit * 0.5), 3)
    draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=paper)
    dark_head = style == "bands" or rng.random() < 0.3
    if style == "bands":
        band = blend(paper, sheet.accent, 0.22)
        for top in edges[1::2]:
            draw.rectangle((x1, round(top), x2 - 1, min(y2 - 1, round(top + unit) - 1)), fill=band)
    if dark_head:
        draw.rectangle((x1, y1, x2 - 1, round(edges[0])), fill=ink if style != "bands" else sheet.accent)
    title_ink = ink_on(sheet.accent if style == "bands" else ink) if dark_head else ink
    title_size = fitting_size(words.title, width - 2 * pad - 2, unit * 1.35)
    write(draw, x1 + pad + 1, y1 + unit * 0.82, words.title, title_size, title_ink, bold=True)
    thick = max(1, round(unit * 0.14))
    rights = [x1 + width * name_share + column_width * (i + 1) - pad for i in range(num_columns)]
    for head, right in zip(heads, rights, strict=True):
        head_size = min(size, fitting_size(head, column_width - pad, unit))
        write(draw, right, (edges[0] + edges[1]) / 2, head, head_size, ink, side="r", bold=True)
    for i, (name, top) in enumerate(zip(names, edges[1:], strict=True)):
        indent = pad * 2 if i in (3, 5) else pad
        write(draw, x1 + indent + 1, top + unit * 0.52, name, size, ink, bold=i in (0, 2, 4, 7))
        for values, right in zip(columns, rights, strict=True):
            write(draw, right, top + unit * 0.52, values[i], size, ink, side="r")
    for edge in edges if style != "bands" else edges[:1]:
        draw.line((x1, round(edge), x2 - 1, round(edge)), fill=line, width=1)
    if style == "grid":
        for i in range(num_columns):
            at = round(x1 + width * name_share + column_width * i)
            draw.line((at, round(edges[0]), at, y2 - 1), fill=line, width=1)
    if style == "rules":
        draw.rectangle((x1, y1, x2 - 1, y1 + thick - 1), fill=line)
        draw.rectangle((x1, y2 - thick, x2 - 1, y2 - 1), fill=line)
    else:
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), outline=line, width=thick if style == "grid" else 1)
