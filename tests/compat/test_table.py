"""docs/compat.md is what the generator makes of the kept results, and every outcome is told apart."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from compat import probe, table
from compat.table import HEADER, collect_notes, describe_outcome, make_page, make_rows, read_results

Record = dict[str, Any]


def sound_run() -> Record:
    stages = [
        {"stage": "loaded", "trainable": 50, "all": 900, "adapter_dtypes": {}},
        {"stage": "adapted", "trainable": 100, "all": 1000, "adapter_dtypes": {"float32": 100}},
        {"stage": "trainer built", "trainable": 100, "all": 1000, "adapter_dtypes": {"float32": 100}},
        {"stage": "trained", "trainable": 100, "all": 1000, "adapter_dtypes": {"float32": 100}},
    ]
    whole = {"all": 1.0, "A": 1.0, "B": 1.0}
    return {
        "pattern": "manual",
        "as_on_gpu": False,
        "raised": None,
        "packs": False,
        "stages": stages,
        "loss_before": 4.2,
        "loss_after": 2.9,
        "moved_in_run": whole,
        "moved_in_one_step": whole,
    }


def sound_record(*runs: Record, device: str = "cpu") -> Record:
    libraries = {name: "1.0" for name in probe.LIBRARIES} | {"torch": "2.13.0+cpu"}
    return {"device": device, "machine": {}, "libraries": libraries, "raised": None, "runs": [*runs]}


def test_page_is_what_the_generator_makes() -> None:
    assert table.PAGE.read_text(encoding="utf-8") == make_page(read_results(), collect_notes())


def test_page_holds_every_run() -> None:
    records = read_results()
    page = make_page(records, [])
    rows = [line for line in page.splitlines() if line.startswith("|")][2:]
    num_runs = sum(len(record["runs"]) for record in records)
    assert len(rows) == num_runs >= 3 * len(records) > 20
    assert {row.count(" | ") for row in rows} == {len(HEADER) - 1}


@pytest.mark.parametrize("field", ["trainable", "loss_after", "moved_in_run", "moved_in_one_step", "library", "packs"])
def test_page_follows_the_results(field: str) -> None:
    records = read_results()
    changed = copy.deepcopy(records)
    run = changed[-1]["runs"][0]
    if field == "trainable":
        run["stages"][-1]["trainable"] += 1
    elif field == "loss_after":
        run[field] += 0.5
    elif field == "library":
        changed[-1]["libraries"]["accelerate"] = "9.9.9"
    elif field == "packs":
        for record in changed:
            for found in record["runs"]:
                found["packs"] = False
    else:
        run[field] = {"all": 0.5, "A": 0.25, "B": 0.75}
    assert make_page(changed, []) != make_page(records, [])


def test_kept_results_show_the_known_faults() -> None:
    runs = {
        (record["libraries"]["trl"], run["pattern"], run["as_on_gpu"]): run
        for record in read_results()
        if record["device"] == "cpu"
        for run in record["runs"]
    }
    twice = [run for (_, pattern, _), run in runs.items() if pattern == "twice"]
    assert len(twice) == 8
    assert {describe_outcome(run) for run in twice} == {"**nothing is trained, and nothing raises**"}
    # TRL issue 3926, fixed by 0.23: a PeftModel on a GPU is prepared again, and that freezes it.
    assert "nothing is trained" in describe_outcome(runs["0.22.2", "manual", True])
    assert describe_outcome(runs["0.23.1", "manual", True]) == "learns"
    for pattern in ("manual", "peft_config"):
        assert "small steps are lost" in describe_outcome(runs["1.16.0", pattern, False])


def test_sound_run_is_quiet() -> None:
    assert describe_outcome(sound_run()) == "learns"


def test_outcomes_are_told_apart() -> None:
    raised = sound_run() | {"raised": "ValueError: one\n  two | three", "stages": []}
    assert describe_outcome(raised) == "raises ValueError: one two \\| three"

    frozen = sound_run()
    frozen["stages"][2]["trainable"] = 0
    assert describe_outcome(frozen) == "**nothing is trained, and nothing raises**, yet the loss falls"
    assert describe_outcome(frozen | {"loss_after": 4.2}) == "**nothing is trained, and nothing raises**"

    other = sound_run()
    other["stages"][2]["trainable"] = 99
    assert describe_outcome(other) == "**trains 99 parameters instead of the adapter's 100**"

    assert describe_outcome(sound_run() | {"loss_after": 4.1}) == "**does not learn**"

    rounded = sound_run() | {"moved_in_one_step": {"all": 0.7, "A": 0.2, "B": 1.0}}
    rounded["stages"][2]["adapter_dtypes"] = {"bfloat16": 100}
    assert describe_outcome(rounded) == "learns, but **small steps are lost** in a bf16 adapter"


def test_rows() -> None:
    (row,) = make_rows(sound_record(sound_run()))
    cells = dict(zip(HEADER, row, strict=True))
    assert cells["TRL"] == "1.0" and row[1].endswith("/ 2.13.0")
    assert (cells["where"], cells["loaded"], cells["prepared"], cells["trained"]) == ("CPU", "50", "-", "100")
    assert cells["adapter, as made → trainer built"] == "fp32 → fp32"
    assert cells["loss"] == "4.20 → 2.90"
    assert cells["moved in one step (A)"] == "100 % (100 %)"


def test_rows_of_what_raised() -> None:
    nothing = sound_record() | {"raised": "ImportError: no such module"}
    (row,) = make_rows(nothing)
    assert len(row) == len(HEADER) and row[-1] == "raises ImportError: no such module"

    early = sound_run() | {"raised": "ValueError: 4-bit"}
    for name in ("loss_before", "loss_after", "moved_in_run", "moved_in_one_step", "packs"):
        del early[name]
    early["stages"] = early["stages"][:1]
    (row,) = make_rows(sound_record(early))
    assert len(row) == len(HEADER)
    assert dict(zip(HEADER, row, strict=True))["adapter, as made → trainer built"] == "- → -"
    assert make_page([sound_record(early)], [])  # the page can be made of it


def test_where_it_was_measured_is_said() -> None:
    branch = sound_run() | {"as_on_gpu": True}
    assert make_rows(sound_record(branch))[0][2] == "CPU, branch of a GPU"
    record = sound_record(sound_run(), device="cuda")
    record["machine"] = {"gpu": "NVIDIA Card"}
    assert make_rows(record)[0][2] == "GPU (NVIDIA Card)"
    assert "There is none yet" not in make_page([record], [])
    assert "There is none yet" in make_page([sound_record(sound_run())], [])


def test_branches_stand_one_under_the_other() -> None:
    patterns = [("twice", False), ("peft_config", True), ("manual", False), ("manual", True), ("peft_config", False)]
    runs = [sound_run() | {"pattern": pattern, "as_on_gpu": as_on_gpu} for pattern, as_on_gpu in patterns]
    found = [(row[3], row[2]) for row in make_rows(sound_record(*runs))]
    assert found == [
        ("manual", "CPU"),
        ("manual", "CPU, branch of a GPU"),
        ("peft_config", "CPU"),
        ("peft_config", "CPU, branch of a GPU"),
        ("twice", "CPU"),
    ]


def test_only_a_whole_share_reads_100() -> None:
    run = sound_run() | {"moved_in_run": {"all": 0.9999, "A": 1.0, "B": 1.0}}
    assert dict(zip(HEADER, make_rows(sound_record(run))[0], strict=True))[HEADER[12]] == "99.9 %"


def test_notes_stand_on_the_page() -> None:
    assert make_page([sound_record(sound_run())], ["a note"]).endswith("- a note\n")
    assert len(collect_notes()) >= 2
