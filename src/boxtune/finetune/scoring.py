"""The loss of a batch laid out without padding: logits at the answers alone, through whatever wraps the model.

`install_scoring` gives a model's forward a second way: with `score=True` and a batch's `packing` it runs the backbone
on one row of all samples, and the output layer where an answer's token is to be said. It is the forward that changes
and not the trainer's call, so that DDP and its like, which work in the forward of the wrapped model, see every step.
Scoring 40 of 1,342 tokens saves 0.4 GB of logits in bf16, and twice that in fp32, at a vocabulary of 152,064.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F

from boxtune.finetune.features import IMAGES, Features

Score = dict[str, Any]
"""Sums over the supervised tokens of a batch: `loss` in nats, with a gradient; how many were `right` as first choice;
their `entropy` in nats; and `num` of them, a plain number. The others are on the device, and nothing waits for it."""


def install_scoring(model: Any, features: Features | None = None) -> Callable[[], None]:
    """Teach a base model (under its adapter) to score packed batches; what is returned takes it back.

    Without `score=True` the forward is as before, and `packing` is left unread. `features` are those of images whose
    names stand in the packing.
    """
    original = model.forward
    had = vars(model).get("forward")

    def forward(self: Any, *args: Any, packing: Any = None, score: bool = False, **inputs: Any) -> Any:
        return score_packed(self, inputs, packing, features) if score else original(*args, **inputs)

    # `generate` refuses inputs that it does not find among the parameters.
    own, *others = inspect.signature(forward).parameters.values()
    more = [one for one in others if one.kind is one.KEYWORD_ONLY]
    named = [one for one in inspect.signature(original).parameters.values() if one.kind is not one.VAR_KEYWORD]
    rest = [one for one in others if one.kind is one.VAR_KEYWORD]
    vars(forward)["__signature__"] = inspect.Signature([own, *named, *more, *rest])
    model.forward = types.MethodType(forward, model)

    def take_back() -> None:
        if had is None:
            del model.forward
        else:
            model.forward = had

    return take_back


def score_packed(
    model: Any, inputs: dict[str, Any], packing: dict[str, Any], features: Features | None = None
) -> Score:
    """The sums over the supervised tokens of a padded batch `inputs`, computed on one row as `packing` lays it out."""
    ids = inputs["input_ids"].reshape(-1)[packing["keep"]]
    scored = packing["scored"]
    extras = {name: value for name, value in packing.items() if name.startswith("image_")}
    extras |= {
        "cu_seq_lens_q": packing["borders"],
        "cu_seq_lens_k": packing["borders"],
        "max_length_q": packing["longest"],
        "max_length_k": packing["longest"],
        "text_evenly": packing["text_evenly"],
        "scored": scored,
    }
    given = {name: value for name, value in inputs.items() if name not in PER_TOKEN}
    if "grids" in packing:
        given["image_grid_thw"] = torch.tensor(packing["grids"])
    with _uncounted(model.base_model) if "image_cu_seqlens" in packing else nullcontext():
        if features is not None and packing.get(IMAGES):
            given = features.instead(model.base_model, packing[IMAGES], given, extras)
        hidden = model.base_model(
            input_ids=ids[None],
            attention_mask=None,
            position_ids=packing["position_ids"],
            use_cache=False,
            **given,
            **extras,
        ).last_hidden_state[0]
    head = model.get_output_embeddings()
    loss, right, entropy = score_tokens(hidden[scored], head, ids[scored + 1])
    return {"loss": loss, "right": right, "entropy": entropy, "num": scored.shape[0]}


@contextmanager
def _uncounted(backbone: Any) -> Iterator[None]:
    """Without transformers' look at whether there are as many image tokens as features: its message is written whether
    it is needed or not, and waits for the whole vision tower. The packer has counted both (`Packer.positions`).
    """
    find = backbone.get_placeholder_mask

    def places(input_ids: Any, inputs_embeds: Any, image_features: Any = None, video_features: Any = None) -> Any:
        # The features are only counted there.
        return find(input_ids, inputs_embeds=inputs_embeds)

    backbone.get_placeholder_mask = places
    try:
        yield
    finally:
        del backbone.get_placeholder_mask


PER_TOKEN = ("input_ids", "attention_mask", "labels", "mm_token_type_ids", "use_cache")
"""What a padded batch says of each token; the row says it otherwise, or needs it no more."""


AT_ONCE = 512
"""Tokens whose logits are in memory together: 0.3 GB in fp32 at a vocabulary of 152,064."""


def score_tokens(
    hidden: torch.Tensor, head: Any, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cross entropy, number of right first choices, entropy: sums over hidden states (tokens, width), in fp32.

    A frozen output layer `head` is gone through piece by piece, and each piece leaves the gradient of its hidden states
    instead of its logits (as Liger-Kernel does, arXiv 2410.10989); where the layer is trained itself, all at once.
    """
    if any(parameter.requires_grad for parameter in head.parameters()):
        logits = head(hidden)
        loss, right, entropy, _ = _sums(logits, targets, gradient=False)
        return F.cross_entropy(logits.float(), targets, reduction="sum"), right, entropy
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head.weight.dtype
    bias = None if head.bias is None else head.bias.to(dtype)
    loss, right, entropy = _FrozenHead.apply(hidden.to(dtype), head.weight.to(dtype), bias, targets)
    return loss, right, entropy


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        sums = [torch.zeros((), device=hidden.device) for _ in range(3)]
        gradient = torch.empty_like(hidden) if hidden.requires_grad else None
        for begin in range(0, len(hidden), AT_ONCE):
            piece = slice(begin, begin + AT_ONCE)
            with torch.autocast(hidden.device.type, enabled=False):
                logits = F.linear(hidden[piece], weight, bias)
                *found, back = _sums(logits, targets[piece], gradient=gradient is not None)
                for total, part in zip(sums, found, strict=True):
                    total += part
                if gradient is not None:
                    torch.mm(back.to(weight.dtype), weight, out=gradient[piece])
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(*sums[1:])
        return sums[0], sums[1], sums[2]

    @staticmethod
    def backward(ctx: Any, loss: torch.Tensor, *_: torch.Tensor) -> tuple[torch.Tensor | None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * loss.to(gradient.dtype), None, None, None


def _sums(
    logits: torch.Tensor, targets: torch.Tensor, *, gradient: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The three sums, and where wanted the gradient of the first by the logits, in fp32."""
    with torch.no_grad():
        right = (logits.argmax(dim=-1) == targets).sum()
        logs = torch.log_softmax(logits.float(), dim=-1)
        loss = -logs.gather(1, targets[:, None]).sum()
        shares = logs.exp()
        entropy = -(shares * logs).sum()
        if gradient:
            shares.scatter_add_(1, targets[:, None], -torch.ones_like(targets[:, None], dtype=shares.dtype))
        return loss, right, entropy, shares
