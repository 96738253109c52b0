"""What a server is sent: words that its template makes the trained prompt of, and an image that it leaves as it is."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from architectures import write_architecture
from http_stand_in import TEMPLATE, build_turn
from PIL import Image
from squares import CLASSES

from boxtune.errors import DataError, ModelError
from boxtune.families import FAMILIES
from boxtune.finetune import Encoder, ModelSource
from boxtune.finetune.pixels import load_image_processor, see_image
from boxtune.finetune.processors import build_processor
from boxtune.infer.http_meet import Need
from boxtune.infer.http_turn import find_turn, show, stays

PARTS = (
    "{% for part in message.content %}{% if part.type == 'image' %}IMAGE{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}"
)
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n" + PARTS + "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
IDEFICS = (
    "{% for message in messages %}START{{ message.role | capitalize }}:" + PARTS + "<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
TEMPLATES = {
    "qwen2_vl": TEMPLATE,
    "qwen2_5_vl": TEMPLATE,
    "qwen3_vl": CHATML.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"),
    "qwen3_5": CHATML.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>") + THINKING,
    "minicpm_v": CHATML.replace("IMAGE", "<|image_pad|>\n") + THINKING,
    "internvl": CHATML.replace("IMAGE", "<IMG_CONTEXT>\n"),
    "llava_onevision": CHATML.replace("IMAGE", "<image>\n"),
    "idefics3": IDEFICS.replace("IMAGE", "<image>").replace("START", "<|begin_of_text|>"),
    "smolvlm": IDEFICS.replace("IMAGE", "<image>").replace("START", "<|im_start|>"),
    "gemma3": "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message.role }}\n"
    + PARTS.replace("IMAGE", "<start_of_image>")
    + "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
    "glm4v": "[gMASK]<sop>{% for message in messages %}<|user|>\n"
    + PARTS.replace("IMAGE", "<|begin_of_image|><|image|><|end_of_image|>")
    + "{% if enable_thinking is defined and not enable_thinking %}/nothink{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>\n{% endif %}{% endif %}",
}
"""Chat templates as the families' checkpoints have them, cut down to a user's turn."""


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`encoders(name, template)`: the encoder of a tiny model of a family, without the model."""
    folder = tmp_path_factory.mktemp("architectures")

    def build(name: str, template: str | None) -> Encoder:
        from transformers import AutoTokenizer

        family, path = FAMILIES[name], folder / name
        if not path.is_dir():
            write_architecture(name, path)
        config = {"model_type": next(iter(family.model_types))}
        source = ModelSource(ref=name, folder=path, family=family, config=config)
        budget = family.defaults.min_pixels, family.defaults.max_pixels
        if name == "idefics3":
            budget = 364**2, (2 * 364) ** 2
        tokenizer = AutoTokenizer.from_pretrained(path, padding_side="right")
        processor = build_processor(source, tokenizer, load_image_processor(source, *budget))
        processor.chat_template = template
        return Encoder(
            family=family, tokenizer=tokenizer, processor=processor, classes=CLASSES, min_pixels=budget[0],
            max_pixels=budget[1], descriptions={"red": "a colour"},
        )  # fmt: skip

    return build


@pytest.mark.slow
@pytest.mark.parametrize("name", TEMPLATES)
def test_the_templates_prompt_is_the_trained_one(encoders: Any, name: str) -> None:
    encoder = encoders(name, TEMPLATES[name])
    turn = find_turn(encoder, name)
    assert turn.words(CLASSES) == encoder.family.question(CLASSES, {"red": "a colour"})
    assert turn.words(("blue",)) == encoder.family.question(("blue",))
    assert dict(turn.told) == ({"enable_thinking": False} if name in ("qwen3_5", "minicpm_v", "glm4v") else {})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "needs"),
    [("internvl", True), ("glm4v", False), ("gemma3", False), ("idefics3", False), ("llava_onevision", False),
     ("minicpm_v", False)],
)  # fmt: skip
def test_which_families_need_their_tokens(encoders: Any, name: str, needs: bool) -> None:
    """MiniCPM's tags are plain text in these tokenizers, GLM's stand around a list that is read without them."""
    turn = find_turn(encoders(name, TEMPLATES[name]), name)
    assert bool(Need(turn=turn, served=None, max_new_tokens=1).box_tokens) is needs


def test_another_template_is_refused() -> None:
    with pytest.raises(ModelError, match="writes another prompt than the adapter was trained with") as caught:
        build_turn(TEMPLATE.replace("You are a helpful assistant.", "You are an assistant."))
    assert "You are an assistant." in caught.value.what and caught.value.where == "tiny"
    with pytest.raises(ModelError, match="another prompt"):
        build_turn(TEMPLATE.replace("{{ part.text }}", "{{ part.text }} Think first."))


def test_a_model_without_a_template_is_refused() -> None:
    with pytest.raises(ModelError, match="has no chat template"):
        build_turn(None)


def test_a_template_of_texts_is_refused() -> None:
    with pytest.raises(ModelError, match="cannot render an image with a question"):
        build_turn("{{ messages[0].content + 'x' }}")


def opened(url: str) -> Image.Image:
    assert url.startswith("data:image/png;base64,")
    return Image.open(BytesIO(base64.b64decode(url.partition(",")[2])))


def photo(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(97, 61), (640, 480), (50, 300)])
def test_what_is_sent_is_seen_as_the_original_is(size: tuple[int, int]) -> None:
    """The server's processor makes of it, bit for bit, what ours makes of the image itself."""
    encoder, image = build_turn().encoder, photo(*size)
    url, frame = show(image, encoder)
    sent = opened(url)
    assert sent.size == frame.seen_wh and frame.original_wh == size
    own, theirs = (see_image(encoder.processor, one) for one in (image, sent))
    assert own.text == theirs.text
    assert np.array_equal(own.inputs["pixel_values"].numpy(), theirs.inputs["pixel_values"].numpy())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl", "gemma3", "glm4v", "internvl", "idefics3", "minicpm_v"])
def test_other_processors_leave_the_grid_as_it_is(encoders: Any, name: str) -> None:
    encoder = encoders(name, None)
    for size in ((300, 200), (200, 300), (1000, 400)):
        sent = opened(show(photo(*size), encoder)[0])
        assert see_image(encoder.processor, sent).text == encoder.image_text(size)


def test_a_colour_profile_does_not_travel() -> None:
    image = photo(112, 112)
    image.info["icc_profile"] = b"a profile"
    assert "icc_profile" not in opened(show(image, build_turn().encoder)[0]).info


def test_a_shape_that_is_refused_is_said() -> None:
    with pytest.raises(DataError, match="cannot be shown to the model"):
        show(photo(3, 900), build_turn().encoder)


SIZES = [(w, h) for w in (30, 97, 448, 640, 1000, 1808, 3000) for h in (30, 97, 448, 480, 1080, 1325, 3001)]
NOT_ALWAYS = {"llava_onevision", "minicpm_v"}


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.knows_processor])
def test_a_resized_image_is_not_resized_again(name: str) -> None:
    """By the rules of all families but two, whose images are sent as they are where it would be."""
    family = FAMILIES[name]
    budget = family.defaults.min_pixels, family.defaults.max_pixels
    same = [stays(family, size, budget) for size in SIZES]
    assert len(same) == 49 and any(same)
    assert all(same) is (name not in NOT_ALWAYS)


def test_folder_of_templates_names_known_families(tmp_path: Path) -> None:
    assert set(TEMPLATES) <= set(FAMILIES)
