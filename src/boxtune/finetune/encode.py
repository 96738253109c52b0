"""Samples into token ids and pixels, with labels on the answer and the end of turn alone.

Prompt and answer are tokenised apart and joined as ids, so the prompt's ids are the same in training and in
prediction by construction, and what is supervised is exactly the answer.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from PIL.Image import Image
from PIL.Image import new as new_image

from boxtune.boxes import Boxes
from boxtune.data import Sample
from boxtune.data.tiles import Tiling, open_sample
from boxtune.errors import DataError
from boxtune.families import Family, Frame
from boxtune.finetune.collate import Example, Layout, token_marks
from boxtune.finetune.pixels import Seen, see_image

KEPT_PROMPTS = 256
"""Prompts whose ids are kept, one for each size and choice of classes; some 20 KB each."""


class Encoder:
    """Turns images and boxes into model inputs for one family, one tokenizer, one set of classes.

    `processor` is the family's own, under the budget of `min_pixels` and `max_pixels`. `descriptions` explain some of
    the classes in the prompt. With a `tiling` whole images are answered tile by tile. With `as_bytes` patches stay
    bytes, for a model that takes them (`accept_bytes`).
    """

    def __init__(
        self,
        *,
        family: Family,
        tokenizer: Any,
        processor: Any,
        classes: Sequence[str],
        min_pixels: int,
        max_pixels: int,
        descriptions: Mapping[str, str] | None = None,
        tiling: Tiling | None = None,
        as_bytes: bool = False,
    ) -> None:
        self.family, self.tokenizer, self.processor = family, tokenizer, processor
        self.classes, self.descriptions = tuple(classes), dict(descriptions or {})
        self.min_pixels, self.max_pixels, self.tiling = min_pixels, max_pixels, tiling
        self.as_bytes = as_bytes
        self.end_id: int = tokenizer.convert_tokens_to_ids(family.end_of_turn)
        suffix = "suffix" in inspect.signature(type(processor).__call__).parameters
        self.layout = Layout(
            pad_id=tokenizer.pad_token_id,
            image_token_id=tokenizer.convert_tokens_to_ids(family.visual_token),
            marks=token_marks(processor.model_input_names, marks_suffix=suffix),
            # As Bart's decoders begin: the end of a text, then the start of the next.
            decoder_start=(self.end_id, tokenizer.bos_token_id) if family.encoder_decoder else (),
        )
        self._lengths: dict[str, int] = {}
        self._prompts: dict[str, tuple[int, ...]] = {}
        self._texts: dict[tuple[int, int], str] = {}

    def ids(self, text: str) -> tuple[int, ...]:
        """Token ids of a text, nothing added."""
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def prompt_ids(self, text: str) -> tuple[int, ...]:
        """The same for a prompt: many images are of one size, and a thousand visual tokens take 3 ms."""
        if text not in self._prompts:
            if len(self._prompts) >= KEPT_PROMPTS:
                self._prompts.clear()
            self._prompts[text] = self.ids(text)
        return self._prompts[text]

    def prompt(self, classes: Sequence[str], image: str) -> str:
        """The text before the answer that asks for `classes`, with `image` where the image goes."""
        return self.family.prompt(classes, image, self.descriptions)

    def answer_ids(self, boxes: Boxes, frame: Frame, classes: Sequence[str]) -> tuple[int, ...]:
        """Ids of the answer for these boxes (pixels of the upright original), the end of turn included."""
        return (*self.ids(self.family.encode(boxes, frame, classes)), self.end_id)

    def encode_image(
        self, image: Image, boxes: Boxes | None = None, *, classes: Sequence[str] | None = None
    ) -> Example:
        """An upright RGB image, asked for `classes` (all of them if None), with the answer for `boxes` if given.

        The frame comes from what the processor really made. Raises ValueError if that is another size or another text
        than the family's rules say, for then lengths were measured wrong.
        """
        seen = see_image(self.processor, image, as_bytes=self.as_bytes)
        # Of a model of no known family nothing is told that could be compared, and its grammar knows no pixels.
        size_wh = seen.size_wh if self.family.knows_processor else image.size
        frame = Frame(original_wh=image.size, seen_wh=size_wh)
        if self.family.knows_processor:
            self._require_rules(image.size, seen)
        asked = self.classes if classes is None else tuple(classes)
        return Example(
            classes=asked,
            prompt_ids=self.prompt_ids(self.prompt(asked, seen.text)),
            answer_ids=() if boxes is None else self.answer_ids(boxes, frame, asked),
            inputs=seen.inputs,
            frame=frame,
        )

    def _require_rules(self, size_wh: tuple[int, int], seen: Seen) -> None:
        expected = self.family.seen_wh(size_wh, self.min_pixels, self.max_pixels)
        if seen.size_wh != expected:
            raise ValueError(f"the processor made {seen.size_wh} of {size_wh}, the family's rule says {expected}")
        if seen.text != self.family.image_text(size_wh, self.min_pixels, self.max_pixels):
            num = seen.text.count(self.family.visual_token)
            raise ValueError(f"the processor put {num} visual tokens for {size_wh}, the family's rule has others")

    def encode_sample(self, sample: Sample) -> Example:
        """A sample, or the tile of an image that it is, with its answer, asked for all classes.

        DataError if the image cannot be opened or is not of the declared size.
        """
        return self.encode_image(open_sample(sample), sample.targets)

    def measure(self, sample: Sample) -> tuple[int, int]:
        """Tokens of prompt and answer, from the declared size alone: the image is not opened."""
        return self.measure_boxes(sample.size_wh, sample.targets)

    def measure_boxes(self, size_wh: tuple[int, int], boxes: Boxes) -> tuple[int, int]:
        """Tokens of the prompt for an image of that size, and of the answer for its boxes, asked for all classes."""
        seen = self.family.seen_wh(size_wh, self.min_pixels, self.max_pixels)
        frame = Frame(original_wh=size_wh, seen_wh=seen)
        text = self.image_text(size_wh)
        # Visual tokens are counted, not tokenised: they are nearly all of the text, and the rest is often the same.
        around = text.replace(self.family.visual_token, "")
        if around not in self._lengths:
            self._lengths[around] = len(self.ids(self.prompt(self.classes, around)))
        prompt = self._lengths[around] + text.count(self.family.visual_token)
        return prompt, len(self.answer_ids(boxes, frame, self.classes))

    def image_text(self, size_wh: tuple[int, int]) -> str:
        """What stands in a prompt for an image of that size."""
        if self.family.knows_processor:
            return self.family.image_text(size_wh, self.min_pixels, self.max_pixels)
        return self._text_of_blank(size_wh)

    def _text_of_blank(self, size_wh: tuple[int, int]) -> str:
        """What the processor puts for an image of that size, seen on a blank one."""
        if size_wh not in self._texts:
            self._texts[size_wh] = see_image(self.processor, new_image("RGB", size_wh)).text
        return self._texts[size_wh]


def without_traceback(error: DataError) -> DataError:
    """The error as it was raised: torch hands on a worker's exception with the worker's traceback as its text."""
    marker = "DataError: "
    if marker not in error.what:
        return error
    what, _, rest = error.what.rpartition(marker)[2].strip().partition("\n")
    parts = {line.strip().partition(":")[0]: line.strip().partition(":")[2].strip() for line in rest.splitlines()}
    return DataError(what, where=parts.get("where", ""), fix=parts.get("do", ""))
