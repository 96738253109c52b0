"""What the loss is computed on: labels that decode to the answer and nothing else, whole, with an end.

Read from the trainer's own batches; the answer is known where the data set has it as text (`completion`, or the last
turn of `messages`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from boxtune.guard.batches import Batches, answers_in_order, tensor_of
from boxtune.guard.finding import Finding

IGNORED = -100
IMAGE_WORDS = ("<|image_pad|>", "<|video_pad|>", "<image>", "<|vision_start|>", "<|vision_end|>", "<image_soft_token>")


def check_labels(trainer: Any, batches: Batches) -> list[Finding]:
    """All findings about labels; none for a batch without `labels` and `input_ids` of one shape."""
    tokenizer = tokenizer_of(trainer)
    rows: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    for batch in batches.train:
        labels, ids = tensor_of(batch, "labels"), tensor_of(batch, "input_ids")
        if labels is None or ids is None or labels.shape != ids.shape or labels.ndim != 2:
            return []
        mask = tensor_of(batch, "attention_mask")
        mask = torch.ones_like(ids) if mask is None or mask.ndim != 2 else mask
        rows += [(label.cpu(), row.cpu(), there.cpu()) for label, row, there in zip(labels, ids, mask, strict=True)]
    if not rows:
        return []
    findings = _check_empty(rows)
    if not answers_in_order(trainer):
        # Classes of tokens, masked words, the answer of a decoder of its own: labels are not the tokens.
        return findings
    findings += _check_tokens(rows)
    findings += _check_special(rows, tokenizer)
    # Plain text in blocks has no answers, and ends anywhere.
    asked = any(answer_of(row) is not None for row in batches.rows or ()) or any(map(_is_asked, rows))
    if asked:
        findings += _check_end(trainer, rows, tokenizer)
    findings += _check_prompt(rows, tokenizer, asked)
    findings += _check_answers(trainer, batches, tokenizer)
    failed = {finding.check for finding in findings}
    if not failed:
        num = sum(int((label != IGNORED).sum()) for label, _, _ in rows)
        seen = f"{num} supervised tokens in {len(rows)} samples; the first ends in {_tail(rows[0], tokenizer)!r}"
        findings.append(Finding(check="labels.answer", level="ok", seen=seen))
    return findings


def _is_asked(row: Any) -> bool:
    """Whether something before the first supervised token is not learned: a question."""
    label, _, there = row
    spoken = ((label != IGNORED) & (there != 0)).nonzero().flatten()
    return bool(len(spoken)) and bool((there[: int(spoken[0])] != 0).any())


def tokenizer_of(trainer: Any) -> Any:
    """The tokenizer of a trainer, None where it has none."""
    for name in ("processing_class", "tokenizer"):
        held = vars(trainer).get(name)
        if held is not None:
            return getattr(held, "tokenizer", held)
    return None


def _check_empty(rows: Sequence[Any]) -> list[Finding]:
    empty = sum(bool((label[1:] == IGNORED).all()) for label, _, _ in rows)
    if not empty:
        return []
    return [
        Finding(
            check="labels.empty",
            level="fail" if empty == len(rows) else "warn",
            seen=f"{empty} of the first {len(rows)} samples have no supervised token at all",
            fix="the marker of the answer is not found in the tokens, or the answer was cut off",
        )
    ]


def _check_tokens(rows: Sequence[Any]) -> list[Finding]:
    """Labels are the tokens at their places (the model shifts them itself)."""
    num = wrong = shifted = 0
    for label, ids, _ in rows:
        there = label != IGNORED
        num += int(there.sum())
        wrong += int((label[there] != ids[there]).sum())
        shifted += int((label[:-1][there[:-1]] == ids[1:][there[:-1]]).sum())
    if not num or wrong <= 0.02 * num:
        return []
    already = shifted > 0.9 * num
    return [
        Finding(
            check="labels.tokens",
            level="fail",
            seen=f"{wrong} of {num} labels are not the tokens at their places"
            + (": they are shifted by one already" if already else ""),
            fix="the model shifts labels itself: labels are a copy of input_ids with -100 where nothing is learned",
        )
    ]


def _check_special(rows: Sequence[Any], tokenizer: Any) -> list[Finding]:
    """No padding and no image places among the labels."""
    if tokenizer is None:
        return []
    images = {tokenizer.convert_tokens_to_ids(word) for word in IMAGE_WORDS} - {None, tokenizer.unk_token_id}
    padding = image = num = 0
    for label, _, there in rows:
        spoken = label != IGNORED
        num += int(spoken.sum())
        padding += int((spoken & (there == 0)).sum())
        image += sum(int((label == token).sum()) for token in images)
    findings = []
    if padding:
        seen = f"{padding} of {num} supervised tokens are padding"
        fix = "set labels to -100 where attention_mask is 0"
        findings.append(Finding(check="labels.padding", level="fail", seen=seen, fix=fix))
    if image:
        seen = f"{image} of {num} supervised tokens stand for the image"
        fix = "only the answer is to be learned: use prompt and completion, or mask the rest with -100"
        findings.append(Finding(check="labels.image", level="fail", seen=seen, fix=fix))
    return findings


def ends_of(tokenizer: Any, model: Any) -> set[int]:
    """Tokens that end an answer: those of the tokenizer, of the generation config, and the usual ends of a turn."""
    ends = {tokenizer.eos_token_id}
    config = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends |= set(config if isinstance(config, (list, tuple)) else [config])
    for word in ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<end_of_utterance>", "</s>", "<|end|>"):
        ends.add(tokenizer.convert_tokens_to_ids(word))
    return {end for end in ends if isinstance(end, int)} - {tokenizer.unk_token_id}


def _check_end(trainer: Any, rows: Sequence[Any], tokenizer: Any) -> list[Finding]:
    """The last supervised token, but for white space, ends the turn; a row as long as the limit was cut."""
    if tokenizer is None:
        return []
    ends, open_rows, cut = ends_of(tokenizer, trainer.model), 0, 0
    longest = getattr(trainer.args, "max_length", None) or getattr(trainer.args, "max_seq_length", None)
    spoken_rows = 0
    for label, _, there in rows:
        spoken = label[label != IGNORED].tolist()
        while spoken and spoken[-1] not in ends and not tokenizer.decode([spoken[-1]]).strip():
            spoken.pop()
        spoken_rows += bool(spoken)
        is_open = bool(spoken) and spoken[-1] not in ends
        open_rows += is_open
        # A row without any answer left was cut even earlier.
        cut += longest is not None and int(there.sum()) >= longest and (is_open or not spoken)
    if cut:
        return [
            Finding(
                check="labels.cut",
                level="fail" if 2 * cut > len(rows) else "warn",
                seen=f"{cut} of the first {len(rows)} samples are cut at {longest} tokens, before their answer ends",
                where=f"max_length={longest}",
                fix="max_length=None (TRL's default of 1024 cuts image tokens, boxes and the end of turn)",
            )
        ]
    if not open_rows or not spoken_rows:
        return []
    return [
        Finding(
            check="labels.end",
            level="fail" if open_rows == spoken_rows else "warn",
            seen=f"{open_rows} of {spoken_rows} answers do not end in an end of turn that is supervised",
            fix="append the end of turn to the answer, and do not mask it where it equals the padding token",
        )
    ]


def _check_prompt(rows: Sequence[Any], tokenizer: Any, asked: bool) -> list[Finding]:
    """The same long beginning supervised in every sample is a prompt, not an answer."""
    spoken = [label[label != IGNORED].tolist() for label, _, _ in rows]
    spoken = [each for each in spoken if each]
    if len(spoken) < 2:
        return []
    same = 0
    while all(same < len(each) for each in spoken) and len({each[same] for each in spoken}) == 1:
        same += 1
    leading = 0
    for label, _, there in rows:
        places = (label != IGNORED).nonzero()
        leading += bool(len(places)) and int(places[0]) <= int(there.argmax())
    if leading < len(spoken) or same == 0 or len({tuple(each) for each in spoken}) == 1:
        return []
    share = same / (sum(map(len, spoken)) / len(spoken))
    text = "" if tokenizer is None else f": {tokenizer.decode(spoken[0][:same])[:80]!r}"
    return [
        Finding(
            check="labels.prompt",
            level="fail" if share > 0.3 and asked else "warn",
            seen=f"the prompt is in the loss: all samples are supervised from their first token, and the first {same} "
            f"({100 * share:.0f} %) are the same{text}",
            fix="use prompt and completion, completion_only_loss or assistant_only_loss: only the answer counts",
        )
    ]


def answer_of(row: Any) -> str | None:
    """The answer that a data set's row holds as text, None where that is not plain."""
    if not isinstance(row, Mapping):
        return None
    said = row.get("completion")
    if said is None and isinstance(row.get("messages"), (list, tuple)) and row["messages"]:
        last = row["messages"][-1]
        if sum(isinstance(part, Mapping) and part.get("role") == "assistant" for part in row["messages"]) > 1:
            return None
        said = last.get("content") if isinstance(last, Mapping) and last.get("role") == "assistant" else None
    if isinstance(said, (list, tuple)) and said and isinstance(said[0], Mapping) and "role" in said[0]:
        said = said[-1].get("content")
    if isinstance(said, (list, tuple)):
        texts = [str(part["text"]) for part in said if isinstance(part, Mapping) and part.get("text")]
        said = "".join(texts) if texts else None
    return said if isinstance(said, str) and said.strip() else None


def _check_answers(trainer: Any, batches: Batches, tokenizer: Any) -> list[Finding]:
    """Rows with a known answer, collated alone: the labels decode to it and nothing else."""
    if tokenizer is None or not batches.rows or batches.collate is None:
        return []
    wrong, more, tried, shown = 0, 0, 0, ""
    ends = ends_of(tokenizer, trainer.model)
    for row in batches.rows:
        answer = answer_of(row)
        if answer is None:
            continue
        batch = batches.collate([copy.deepcopy(row)])
        if not isinstance(batch, Mapping) or not torch.is_tensor(batch.get("labels")):
            return []
        label = batch["labels"].reshape(-1)
        spoken = tokenizer.decode([token for token in label[label != IGNORED].tolist() if token not in ends])
        tokens = tokenizer(answer, add_special_tokens=False)["input_ids"]
        wanted = tokenizer.decode([token for token in tokens if token not in ends])
        said, meant = "".join(spoken.split()), "".join(wanted.split())
        tried += 1
        if said != meant:
            more += said.endswith(meant)
            wrong += not said.endswith(meant)
            shown = shown or f"learned {spoken[:60]!r}, the answer is {answer[:60]!r}"
    if not wrong and not more:
        return []
    fix = "look at what the collator and the chat template do to the answer"
    seen = f"{wrong} of {tried} samples teach something else than their answer"
    if not wrong:
        # A template may put something before it, an empty thought for one.
        seen = f"{more} of {tried} samples teach more than their answer"
    level = "fail" if wrong else "warn"
    return [Finding(check="labels.answer", level=level, seen=seen, where=shown, fix=fix)]  # type: ignore[arg-type]


def _tail(row: Any, tokenizer: Any) -> str:
    label = row[0][row[0] != IGNORED].tolist()
    return "" if tokenizer is None else str(tokenizer.decode(label[-8:]))
