"""docs/compat.md from the kept results: one row for each run of the probe.

python -m compat.table      write the page from compat/results/ without measuring anything
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from compat import probe
from compat.environments import read_environments, sort_key

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "compat.md"

STAGES = ("loaded", "prepared", "adapted", "prepared again", "trainer built", "trained")
SHORT = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
# The loss falls from 4.2 to 2.9 in a run that learns and stays as it was in one that does not.
FELL = 0.9
# In fp32 every element moves; a rounded share below this is elements that a step could not move.
EVERY = 0.999

HEADER = (
    "TRL",
    "transformers / peft / bitsandbytes / accelerate / datasets / torch",
    "where",
    "pattern",
    *STAGES,
    "adapter, as made → trainer built",
    "loss",
    f"moved in {probe.NUM_STEPS} steps",
    "moved in one step (A)",
    "outcome",
)

NO_GPU = "There is none yet; `python -m compat device=cuda` adds one."

PAGE_TEXT = """\
# What each version of the libraries does

Written by `python -m compat` from `compat/results/`; do not edit. For each set of versions the same small script
(`compat/probe.py`) trains the same tiny 4-bit model in an environment of its own, by each pattern:

- *manual*: `prepare_model_for_kbit_training`, `get_peft_model`, `SFTTrainer(model=PeftModel)`
- *peft_config*: `SFTTrainer(model=4-bit model, peft_config=...)`
- *twice*: as manual, but PEFT's `prepare_model_for_kbit_training` is called once more, on the PeftModel

{table}

## How to read it

- Numbers under a stage are parameters that require grad then; 4-bit weights count with their real shape. *loaded* is
  what transformers leaves trainable of a 4-bit model (embeddings, norms, head); *adapted* is the model as PEFT made
  it, before TRL touched it; *prepared again* means that PEFT's function got a model that already was a PeftModel. A
  dash: that did not happen. The adapter has {adapter} parameters.
- *where*: up to TRL 0.23, SFTTrainer asks whether the 4-bit weights lie on a CPU, takes that for a sharded model, and
  neither prepares nor casts it. "CPU, branch of a GPU" is the run of the row above it with the class of the weights
  hidden under another name from SFTTrainer's constructor, so that it does what its code does on a GPU: **for these
  versions that row, not the one above it, stands for what a GPU user gets.** From 0.29 on it does not ask.
- Rows marked "GPU" were measured on the named card, in the environment that their file in `compat/results/` records.
  {gpu}
- *loss*: mean loss of the training rows, in eval mode, before and after {steps} steps at a learning rate of {rate:g},
  without dropout. *moved*: share of the adapter's elements that then have another value.
- *moved in one step*: of a second trainer, made the same way: one step at {one_rate:g}, a rate usual for a large model,
  from a B with a standard deviation of {small_b:g} (from B = 0, A would get no gradient). In brackets, of LoRA's A
  alone; most of A has the inner size of a 7B model ({inner}). In bf16 a step smaller than half the distance to the
  next value is lost, so the rest stands still although every flag says trainable.
- On CPUs with AVX512-BF16, bitsandbytes 0.49 and later packs 4-bit weights at the first forward in eval mode into a
  layout without a backward. The probe sets `support_avx512bf16_for_cpu = False` on every 4-bit layer, so this table
  does not show that trap. {packs}
- bf16 is asked for everywhere (`bf16=True`), as is usual for QLoRA; the optimizer is torch's AdamW at a constant rate.
  What the probe does not name stands at the libraries' defaults.

## Single environments

{notes}"""


def read_results(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """The kept records: older TRL first, those of a CPU before those of GPUs."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    if not records:
        raise ValueError(f"no results in {folder}; python -m compat makes them")
    return sorted(records, key=lambda record: (sort_key(record["libraries"]["trl"]), record["device"]))


def describe_outcome(run: dict[str, Any]) -> str:
    """What a run comes to, in words: what it raised, or whether and how well its adapter can learn."""
    if run["raised"]:
        return f"raises {_one_line(run['raised'])}"
    stages = {stage["stage"]: stage for stage in run["stages"]}
    built = stages["trainer built"]
    num_adapter = sum(built["adapter_dtypes"].values())
    fell = run["loss_after"] < FELL * run["loss_before"]
    if built["trainable"] == 0:
        return "**nothing is trained, and nothing raises**" + (", yet the loss falls" if fell else "")
    if built["trainable"] != num_adapter:
        return f"**trains {built['trainable']:,} parameters instead of the adapter's {num_adapter:,}**"
    if not fell:
        return "**does not learn**"
    if run["moved_in_one_step"]["all"] < EVERY:
        return f"learns, but **small steps are lost** in a {_dtypes(built)} adapter"
    return "learns"


def make_rows(record: dict[str, Any]) -> list[list[str]]:
    """The table's rows of one record; one row where it raised before the first run."""
    libraries = record["libraries"]
    versions = " / ".join(libraries[name].partition("+")[0] for name in probe.LIBRARIES if name != "trl")
    begin = [libraries["trl"], versions]
    if not record["runs"]:
        empty = ["-"] * (len(HEADER) - len(begin) - 2)
        return [[*begin, _where(record, False), *empty, f"raises {_one_line(record['raised'])}"]]
    rows = []
    # The same pattern on the two branches of SFTTrainer stands one under the other.
    for run in sorted(record["runs"], key=lambda run: (probe.PATTERNS.index(run["pattern"]), run["as_on_gpu"])):
        stages = {stage["stage"]: stage for stage in run["stages"]}
        counts = [f"{stages[name]['trainable']:,}" if name in stages else "-" for name in STAGES]
        made, built = (_dtypes(stages.get(name)) for name in ("adapted", "trainer built"))
        one_step = run.get("moved_in_one_step")
        rows.append(
            [
                *begin,
                _where(record, run["as_on_gpu"]),
                run["pattern"],
                *counts,
                f"{made} → {built}",
                f"{run['loss_before']:.2f} → {run['loss_after']:.2f}" if "loss_after" in run else "-",
                _percent(run["moved_in_run"]["all"]) if "moved_in_run" in run else "-",
                f"{_percent(one_step['all'])} ({_percent(one_step['A'])})" if one_step else "-",
                describe_outcome(run),
            ]
        )
    return rows


def make_page(records: list[dict[str, Any]], notes: list[str]) -> str:
    """The whole page; `notes` are sentences about single environments."""
    rows = [HEADER, ["---"] * len(HEADER), *(row for record in records for row in make_rows(record))]
    adapters = {
        sum(stage["adapter_dtypes"].values())
        for record in records
        for run in record["runs"]
        for stage in run["stages"]
        if stage["stage"] == "adapted"
    }
    packing = sorted(
        {
            record["libraries"]["bitsandbytes"]
            for record in records
            for run in record["runs"]
            if record["device"] == "cpu" and run.get("packs")
        },
        key=sort_key,
    )
    has_gpu = any(record["device"] == "cuda" for record in records)
    return PAGE_TEXT.format(
        table="\n".join("| " + " | ".join(row) + " |" for row in rows),
        adapter=" or ".join(f"{count:,}" for count in sorted(adapters)),
        gpu="`python -m compat device=cuda` adds one." if has_gpu else NO_GPU,
        steps=probe.NUM_STEPS,
        rate=probe.RATE,
        one_rate=probe.ONE_STEP_RATE,
        small_b=probe.SMALL_B,
        inner=f"{probe.INNER:,}",
        packs=f"It was on in bitsandbytes {', '.join(packing)}." if packing else "It was off where this was measured.",
        notes="".join(f"- {note}\n" for note in notes),
    )


def collect_notes() -> list[str]:
    """The notes at the head of the files of pins, in the order of the table."""
    return [note for environment in read_environments() for note in environment.notes]


def write_page() -> Path:
    """Write docs/compat.md from the kept results; its path."""
    PAGE.write_text(make_page(read_results(), collect_notes()), encoding="utf-8")
    return PAGE


def _where(record: dict[str, Any], as_on_gpu: bool) -> str:
    if record["device"] == "cuda":
        return f"GPU ({record['machine'].get('gpu', 'unknown')})"
    return "CPU, branch of a GPU" if as_on_gpu else "CPU"


def _dtypes(stage: dict[str, Any] | None) -> str:
    """Dtypes of the adapter at a stage, whether trainable or not."""
    names = sorted(stage["adapter_dtypes"]) if stage else []
    return "+".join(SHORT.get(name, name) for name in names) or "-"


def _percent(share: float) -> str:
    """A share in per cent, rounded so that only a whole one reads 100."""
    return f"{100 * share:.0f} %" if share in (0, 1) else f"{min(100 * share, 99.9):.1f} %"


def _one_line(text: str) -> str:
    """An exception's words as they fit into a cell: one line, no bar."""
    words = " ".join(text.split()).replace("|", "\\|")
    return words if len(words) <= 200 else words[:197] + "..."


if __name__ == "__main__":
    print(f"wrote {write_page()}")
