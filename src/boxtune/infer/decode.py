"""Answers written token by token under a guide: many rows at once, and what must come is not asked for.

A loop for `model.generate(custom_generate=...)`, which prepares everything before it: cache, positions, the encoder of
models that have one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from boxtune.infer.guide import Guide, Step

REACH = 0.02
"""How likely one more box must be for it to be written although the model would end. Such boxes score low, and rank
behind what it says by itself: without them no recall beyond its own is measured (Chen et al. 2022, Pix2Seq, section
2.4). On blood cells AP50 is 0.68 with them and 0.65 without, both with the same scores."""
MOST_REPEATS = 3
"""Boxes written again to the letter after which an answer is closed: nothing new comes once a model goes in circles."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One token that the model chose among several.

    `ids` could come, with the natural logarithms `log_probs` of their shares among themselves; `taken` is the place of
    the one that was written. `mass` is the probability that the model gave to all of them together, `swayed` whether it
    would have written another token without the guide. `box` counts the boxes that had begun before.
    """

    ids: tuple[int, ...]
    log_probs: Float[np.ndarray, " n"]
    taken: int
    mass: float
    swayed: bool
    box: int
    step: Step | None
    """None: the end of the answer."""


@dataclass(kw_only=True)
class Row:
    """An answer that is being written."""

    guide: Guide
    state: int
    ids: list[int] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    boxes: int = 0
    ended: bool = False
    cut: bool = False
    looped: bool = False
    own: tuple[int, ...] | None = None
    """The ids of the model's own answer where it has been made to go on behind its end."""
    own_boxes: int = 0
    own_choices: int = 0
    """Boxes and choices of it."""
    going_on: float = 1.0
    """How likely the model holds all boxes behind its own end."""
    queue: list[int] = field(default_factory=list)
    """Written, and not yet shown to the model."""
    _whole: tuple[int, int, int] = (0, 0, 0)
    """Tokens, state and choices where the answer could last be closed."""
    _seen: set[tuple[int, ...]] = field(default_factory=set)
    _repeats: int = 0
    _box_at: int = 0

    def __post_init__(self) -> None:
        self._whole = (0, self.state, 0)

    @property
    def done(self) -> bool:
        """Whether nothing more is to be written."""
        return self.ended or self.cut or self.looped

    def reach_on(self, choice: Choice, reach: float, most: int) -> Choice:
        """The choice to go on where the model would end, while it holds one more box for likely enough."""
        ids = choice.ids
        further = [i for i, token in enumerate(ids) if not self._is_end(token)]
        if not further or choice.taken in further:
            return choice
        going_on = self.going_on * float(np.exp(choice.log_probs[further]).sum())
        own = self.own or (*self.ids, *(self.guide.closing(self.state) or ()))
        if not going_on >= reach or len(own) >= most:  # nan is no reason to go on
            return choice
        if self.own is None:
            self.own, self.own_boxes, self.own_choices = own, self.boxes, len(self.choices)
        self.going_on = going_on
        taken = max(further, key=lambda i: float(choice.log_probs[i]))
        return replace(choice, taken=taken, step=self.guide.step(self.state, ids[taken]))

    def _is_end(self, token: int) -> bool:
        return token == self.guide.end_id or not self.guide.step(self.state, token).goes_on

    def take(self, token: int, most: int) -> None:
        """Write a token, and all that must come behind it, up to `most` tokens, or as many behind the own end."""
        most += len(self.own or ())
        following = [token]
        while not self.done:
            for one in following:
                self._write(one)
                if not self.done and len(self.ids) >= most:
                    self.cut = True
                if self.done:
                    break
            else:
                allowed = self.guide.allowed(self.state)
                following = list(self.guide.forced(self.state, self.ids[-1] if self.ids else None))
                if not following:
                    if len(allowed) > 1:
                        return
                    following = list(allowed)
        if not self.ended:
            self._close()

    def _write(self, token: int) -> None:
        if token == self.guide.end_id:
            self.ended = True
            return
        step = self.guide.step(self.state, token)
        self.state, self.boxes = step.state, self.boxes + step.begins
        self.ids.append(token)
        self.queue.append(token)
        if self.guide.closing(self.state) is None:
            return
        written = tuple(self.ids[self._box_at :])
        self._box_at = len(self.ids)
        self._repeats = self._repeats + 1 if written in self._seen else 0
        self._seen.add(written)
        if not self._repeats:
            self._whole = (len(self.ids), self.state, len(self.choices))
        self.looped = self._repeats >= MOST_REPEATS

    def _close(self) -> None:
        """End it behind the last whole box."""
        num_ids, state, num_choices = self._whole
        self.ids[num_ids:] = self.guide.closing(state) or ()
        del self.choices[num_choices:]


class Writer:
    """The loop that `generate` is handed; `rows` are the answers, in the order of the batch.

    `temperature` 0 takes the likeliest token. `reach` makes rows go on behind their end; see REACH. Where the cache
    keeps every token by itself (`_can_skip`), a pass shows each row all that it has written since the last,
    with nothing where that is less than of others, and rows that are done leave the batch; elsewhere tokens are shown
    one by one.
    """

    def __init__(
        self,
        guides: Sequence[Guide],
        *,
        max_new_tokens: int,
        pad_id: int,
        temperature: float = 0.0,
        reach: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.rows = [Row(guide=guide, state=guide.start) for guide in guides]
        self.max_new_tokens, self.pad_id = max_new_tokens, pad_id
        self.temperature, self.reach = temperature, reach
        self.random = torch.Generator().manual_seed(seed)
        self.num_passes = 0

    def __call__(self, model: Any, input_ids: torch.Tensor, **given: Any) -> torch.Tensor:
        """Write the answers; returns their ids behind those given, padded."""
        for name in ("logits_processor", "stopping_criteria", "generation_config", "synced_gpus", "streamer"):
            given.pop(name, None)
        begin, device = input_ids, input_ids.device
        two_towers = model.config.is_encoder_decoder
        mask_name = "decoder_attention_mask" if two_towers else "attention_mask"
        if given.get(mask_name) is None:
            given[mask_name] = torch.ones_like(input_ids)
        live, skips = list(self.rows), False
        inputs = model.prepare_inputs_for_generation(input_ids, is_first_iteration=True, **given)
        while True:
            outputs = model(**inputs, return_dict=True)
            self.num_passes += 1
            if self.num_passes == 1:
                skips = not two_towers and "position_ids" in given and _can_skip(outputs.past_key_values)
            self._choose(live, outputs.logits[:, -1])
            if all(row.done for row in live):
                break
            width = max(len(row.queue) for row in live if not row.done) if skips else 1
            given = model._update_model_kwargs_for_generation(
                outputs, given, is_encoder_decoder=two_towers, num_new_tokens=width
            )
            del outputs
            if skips and sum(not row.done for row in live) <= len(live) // 2:
                live = _leave(live, given)
            shown = self._show(live, given, mask_name, width, skips=skips)
            input_ids = shown.to(device)
            # Models that slice by length find theirs in these ids alone.
            inputs = model.prepare_inputs_for_generation(
                input_ids, next_sequence_length=width, is_first_iteration=False, **given
            )
        answers = torch.full((len(self.rows), max(len(row.ids) for row in self.rows) + 1), self.pad_id)
        for number, row in enumerate(self.rows):
            answers[number, : len(row.ids)] = torch.tensor(row.ids, dtype=torch.long)
        return torch.cat([begin, answers.to(device)], dim=1)

    def _show(self, live: list[Row], given: dict[str, Any], mask_name: str, width: int, *, skips: bool) -> torch.Tensor:
        """The ids of the next pass, each row's on the right, with mask and positions that know of what is left out."""
        shown = torch.full((len(live), width), self.pad_id)
        counts = torch.zeros(len(live), dtype=torch.long)
        for number, row in enumerate(live):
            if row.done:
                continue
            taken, row.queue = row.queue[:width], row.queue[width:]
            counts[number] = len(taken)
            shown[number, width - len(taken) :] = torch.tensor(taken)
        if skips:
            mask = given[mask_name]
            left_out = torch.arange(width) < (width - counts)[:, None]
            mask[:, -width:] = (~left_out).to(mask)
            positions = given["position_ids"]
            # What is left out on the left does not count; the last place is each row's own.
            back = (width - counts).to(positions.device)[:, None]
            moved = positions[..., -width:] - back
            given["position_ids"] = torch.cat([positions[..., :-width], moved.clamp(min=0)], dim=-1)
        return shown

    def _choose(self, live: list[Row], logits: torch.Tensor) -> None:
        """Write the next token of each row that has been shown all of its own."""
        asked = [(number, row) for number, row in enumerate(live) if not row.done and not row.queue]
        if not asked:
            return
        allowed = [row.guide.allowed(row.state) for _, row in asked]
        widest = max(len(ids) for ids in allowed)
        table = np.zeros((len(asked), widest), dtype=np.int64)
        unknown = np.ones((len(asked), widest), dtype=bool)
        for number, ids in enumerate(allowed):
            table[number, : len(ids)], unknown[number, : len(ids)] = ids, False
        whole = logits[[number for number, _ in asked]].float()
        some = whole.gather(1, torch.from_numpy(table).to(logits.device))
        some = some.masked_fill(torch.from_numpy(unknown).to(logits.device), float("-inf"))
        mass = (some.logsumexp(1) - whole.logsumexp(1)).exp().tolist()
        favourite = whole.argmax(1).tolist()
        log_probs = some.log_softmax(1).cpu()
        if self.temperature:
            taken = torch.multinomial((log_probs / self.temperature).softmax(1), 1, generator=self.random)[:, 0]
        else:
            taken = log_probs.argmax(1)
        shares = log_probs.numpy()
        for number, ((_, row), ids) in enumerate(zip(asked, allowed, strict=True)):
            token = ids[int(taken[number])]
            if len(ids) > 1:
                choice = Choice(
                    ids=ids,
                    log_probs=shares[number, : len(ids)].copy(),
                    taken=int(taken[number]),
                    mass=mass[number],
                    swayed=favourite[number] not in ids,
                    box=row.boxes,
                    step=None if token == row.guide.end_id else row.guide.step(row.state, token),
                )
                if self.reach:
                    choice = row.reach_on(choice, self.reach, self.max_new_tokens)
                row.choices.append(choice)
                token = ids[choice.taken]
            row.take(token, self.max_new_tokens)


def _can_skip(cache: Any) -> bool:
    """Whether every layer keeps all tokens, each by itself, so that some can be left out by the mask alone."""
    from transformers.cache_utils import DynamicLayer

    return bool(cache.layers) and all(type(layer) is DynamicLayer for layer in cache.layers)


def _leave(live: list[Row], given: dict[str, Any]) -> list[Row]:
    """The rows that are not done, with their part of the cache and of all that is kept for each token."""
    kept = [number for number, row in enumerate(live) if not row.done]
    index = torch.tensor(kept, device=given["attention_mask"].device)
    given["past_key_values"].batch_select_indices(index)
    for name in ("attention_mask", "position_ids", "token_type_ids", "mm_token_type_ids"):
        if given.get(name) is not None and given[name].shape[-2] == len(live):
            given[name] = given[name].index_select(given[name].ndim - 2, index)
    return [live[number] for number in kept]
