"""The main path on the embedded model: what a run leaves, that it repeats, that it goes on, that it says no."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from models import QUICK
from squares import write_squares

import boxtune
from boxtune.finetune.checkpoints import read_metrics

pytestmark = pytest.mark.slow


def adapter_hash(run: Path, name: str = "adapter_last") -> str:
    return hashlib.sha256((run / name / "adapter_model.safetensors").read_bytes()).hexdigest()


def losses(run: Path) -> list[tuple[str, int, float]]:
    rows = read_metrics(run / "metrics.jsonl")
    return [(r["kind"], r["step"], r.get("loss", r.get("eval_loss"))) for r in rows if r["kind"] != "summary"]


UNWATCHED = {**QUICK, "guard.mode": "off", "answers": 0}
"""Without the guard, which takes half of the time, and without answers: neither may change what is learned."""
STRICT = {**QUICK, "answers": 0, "micro_batch": 2, "dropout": 0.1, "augment": "flip,turn,crop,colour", "subset": 0.5}
"""With accumulation, dropout, changed images and questions: a resumed run must also have the same random state."""


def words(**settings: Any) -> list[str]:
    return [f"{key}={value}" for key, value in settings.items()]


@pytest.fixture(scope="module")
def finished(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> boxtune.Run:
    return boxtune.train(model="tiny", data=str(squares), runs=str(tmp_path_factory.mktemp("runs")), **QUICK)


def test_the_run_folder_is_complete(finished: boxtune.Run) -> None:
    folder = finished.folder.path
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "recipe.yaml", "environment.json", "bound.json", "ledger.json", "findings.json", "verdict.json",
        "metrics.jsonl", "split.json", "adapter", "adapter_last", "best.json", "checkpoints", "predictions",
        "pictures", "samples", "scores.json",
    }  # fmt: skip
    assert {path.name for path in finished.adapter.iterdir()} >= {
        "adapter_model.safetensors", "adapter_config.json", "boxtune.json", "tokenizer.json",
        "preprocessor_config.json",
    }  # fmt: skip
    assert len(list((folder / "pictures").glob("best_*.jpg"))) == 3
    assert len(list((folder / "pictures").glob("worst_*.jpg"))) == 3
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["num_images"] == 6 and scores["split"] == "valid"
    assert scores["base"].keys() == scores["tuned"].keys() >= {"map", "mean_iou", "parse_failure_rate"}
    assert "paired" in scores
    for name in ("base", "tuned"):
        assert len(json.loads((folder / "predictions" / f"{name}.json").read_text())["answers"]) == 6


def test_answers_are_asked_for_at_every_evaluation(finished: boxtune.Run) -> None:
    steps = [row["step"] for row in read_metrics(finished.folder.metrics) if "eval_ap" in row]
    sheets = sorted(path.name for path in finished.folder.samples.glob("*.jpg"))
    assert steps == [2, 4, 6, 8] and sheets == [f"step_{step:06d}.jpg" for step in steps]


def test_it_learned_and_every_stage_was_counted(finished: boxtune.Run) -> None:
    folder = finished.folder.path
    assert finished.verdict["word"] == "learning"
    ledger = json.loads((folder / "ledger.json").read_text())
    names = ["loaded", "adapted", "trainer built", "training begins", "first evaluation", "trained", "reloaded"]
    assert [row["stage"] for row in ledger] == names
    trainable = {row["trainable"] for row in ledger[1:6]}
    assert len(trainable) == 1 and trainable.pop() > 0
    assert ledger[6]["trainable"] == 0 and ledger[6]["all"] == ledger[1]["all"] > ledger[0]["all"]
    assert all(set(tower["dtypes"]) <= {"float32"} for row in ledger[1:] for tower in row["towers"].values())
    evaluations = [loss for kind, step, loss in losses(folder) if kind == "eval" and step <= 4]
    assert len(evaluations) == 3
    assert evaluations == sorted(evaluations, reverse=True) and len(set(evaluations)) == 3


def test_evaluation_in_the_middle_does_not_stop_the_gradients(finished: boxtune.Run) -> None:
    rows = [row for row in read_metrics(finished.folder.path / "metrics.jsonl") if row["kind"] == "train"]
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert all(row["grad_norm"] > 0 for row in rows)


def test_the_reloaded_adapter_gives_the_trained_logits_in_a_new_process(finished: boxtune.Run) -> None:
    findings = json.loads((finished.folder.path / "findings.json").read_text())
    assert [f["level"] for f in findings if f["check"] == "reload.logits"] == ["ok"]
    code = (
        "import sys, boxtune\n"
        "from boxtune.data import read_dataset\n"
        "from boxtune.finetune import logits_digest\n"
        "predictor = boxtune.load(sys.argv[1])\n"
        "samples = read_dataset(sys.argv[2]).splits['valid'][:2]\n"
        "print(logits_digest(predictor.engine.loaded, predictor.engine.encoder, samples))\n"
    )
    data = next(
        line.split(":", 1)[1].split("#")[0].strip()
        for line in (finished.folder.path / "recipe.yaml").read_text().splitlines()
        if line.startswith("  path:")
    )
    reloaded = subprocess.run(
        [sys.executable, "-c", code, str(finished.folder.path), data], capture_output=True, text=True, check=True
    )
    trained = json.loads((finished.folder.path / "verdict.json").read_text())["logits_digest"]
    assert reloaded.stdout.strip() == trained


def test_same_seed_same_losses_same_weights_however_it_is_asked(
    finished: boxtune.Run, squares: Path, tmp_path: Path
) -> None:
    """From Python again, from the command line in a new process, and from the recipe that the first run left."""
    again = boxtune.train(model="tiny", data=str(squares), runs=str(tmp_path / "a"), **UNWATCHED)
    command = [sys.executable, "-m", "boxtune", "train"]
    asked = words(model="tiny", data=squares, runs=tmp_path / "b", **UNWATCHED)
    subprocess.run([*command, *asked], check=True, capture_output=True)
    boxtune.train(finished.folder.recipe, runs=str(tmp_path / "c"))
    folders = [finished.folder.path, again.folder.path, *(next((tmp_path / n).iterdir()) for n in ("b", "c"))]
    assert len({tuple(losses(folder)) for folder in folders}) == 1
    assert len({adapter_hash(folder) for folder in folders}) == 1
    assert len({(folder / "scores.json").read_text() for folder in folders}) == 1


def test_another_seed_gives_another_run(finished: boxtune.Run, squares: Path, tmp_path: Path) -> None:
    settings = {**UNWATCHED, "epochs": 1, "seed": 1, "base": False}
    other = boxtune.train(model="tiny", data=str(squares), runs=str(tmp_path), **settings)
    assert losses(other.folder.path)[0] == losses(finished.folder.path)[0]
    assert losses(other.folder.path)[1] != losses(finished.folder.path)[1]
    assert "base" not in other.scores and "paired" not in other.scores


def start_and_kill(squares: Path, runs: Path, after_step: int, how: int, **settings: Any) -> tuple[Path, int]:
    """Start a run in a process of its own and end it once the step has been logged; its folder and exit code."""
    asked = words(model="tiny", data=squares, runs=runs, **settings)
    process = subprocess.Popen(
        [sys.executable, "-m", "boxtune", "train", *asked], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    metrics = runs / "squares-tiny" / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        if metrics.is_file() and f'"train", "step": {after_step}' in metrics.read_text():
            os.kill(process.pid, how)
            break
        time.sleep(0.01)
    output, _ = process.communicate(timeout=300)
    assert metrics.is_file(), output.decode()
    return metrics.parent, process.returncode


def resume(squares: Path, runs: Path, **settings: Any) -> str:
    """The same command with resume=true, in a process of its own; what it printed."""
    asked = ["resume=true", *words(model="tiny", data=squares, runs=runs, **settings)]
    done = subprocess.run([sys.executable, "-m", "boxtune", "train", *asked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_kill_and_resume_ends_as_the_uninterrupted_run(squares: Path, tmp_path: Path) -> None:
    whole = boxtune.train(model="tiny", data=str(squares), runs=str(tmp_path / "whole"), **STRICT).folder.path
    folder, code = start_and_kill(squares, tmp_path, 7, signal.SIGKILL, **STRICT)
    assert code == -signal.SIGKILL
    checkpoints = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert "checkpoint-6" in checkpoints and not (folder / "scores.json").exists()
    # The newest checkpoint is also made to look half-written: the one before it is what counts.
    (folder / "checkpoints" / "checkpoint-6" / "optimizer.pt").unlink()
    told = resume(squares, tmp_path, **STRICT)
    assert "checkpoint-6 is not complete (no optimizer.pt)" in told and "going on from checkpoint-4" in told
    assert losses(folder) == losses(whole)
    assert adapter_hash(folder) == adapter_hash(whole)
    assert adapter_hash(folder, "adapter") == adapter_hash(whole, "adapter")
    assert len({(kind, step) for kind, step, _ in losses(folder)}) == len(losses(folder))
    # Resuming a finished run changes nothing.
    scores = (folder / "scores.json").read_text()
    boxtune.train(model="tiny", data=str(squares), runs=str(tmp_path), resume=True, **STRICT)
    assert losses(folder) == losses(whole) and (folder / "scores.json").read_text() == scores


def test_a_run_killed_before_its_first_checkpoint_begins_again(
    finished: boxtune.Run, squares: Path, tmp_path: Path
) -> None:
    folder, _ = start_and_kill(squares, tmp_path, 1, signal.SIGKILL, **UNWATCHED)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    assert "training begins at its first step" in resume(squares, tmp_path, **UNWATCHED)
    assert losses(folder) == losses(finished.folder.path)


def test_resume_forgets_a_best_adapter_that_came_after_the_checkpoint(
    finished: boxtune.Run, squares: Path, tmp_path: Path
) -> None:
    from boxtune.artifacts import RunFolder
    from boxtune.finetune.resume import _clear

    folder = RunFolder(path=Path(shutil.copytree(finished.folder.path, tmp_path / "copy")))
    assert json.loads(folder.best.read_text())["step"] == 8
    _clear(folder, folder.checkpoints / "checkpoint-6")
    assert json.loads(folder.best.read_text())["step"] == 6
    assert adapter_hash(folder.path, "adapter") != adapter_hash(finished.folder.path, "adapter")
    assert not folder.scores.exists()


def test_resume_on_other_data_is_refused(tmp_path: Path) -> None:
    data = write_squares(tmp_path / "data")
    settings = {"model": "tiny", "data": str(data), "runs": str(tmp_path), **UNWATCHED, "base": False, "epochs": 1}
    run = boxtune.train(**settings)
    path = data / "train" / "_annotations.coco.json"
    document = json.loads(path.read_text())
    document["annotations"][0]["bbox"][0] += 1
    path.write_text(json.dumps(document))
    with pytest.raises(boxtune.UserError, match="the images or boxes of the split train are not the same"):
        boxtune.train(**settings, resume=True)
    run.folder.recipe.write_text("train:\n")
    with pytest.raises(boxtune.UserError, match="recipe is missing or broken"):
        boxtune.train(**settings, resume=True)


def test_sigterm_ends_with_a_checkpoint_and_scores(squares: Path, tmp_path: Path) -> None:
    folder, code = start_and_kill(squares, tmp_path, 2, signal.SIGTERM, **UNWATCHED)
    assert code == 0
    assert (folder / "scores.json").is_file()
    steps = [step for kind, step, _ in losses(folder) if kind == "train"]
    assert 2 <= steps[-1] < 8
    assert (folder / "checkpoints" / f"checkpoint-{steps[-1]}" / "complete.json").is_file()


def test_sigterm_before_training_says_so(squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from boxtune.finetune.callbacks import StopInTime

    original = StopInTime.require_going_on

    def at_once(self: StopInTime, what: str) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        original(self, what)

    monkeypatch.setattr(StopInTime, "require_going_on", at_once)
    monkeypatch.setenv("BOXTUNE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(boxtune.BoxtuneError, match="stopped by SIGTERM while the base model was being scored"):
        boxtune.train(model="tiny", data=str(squares), runs=str(tmp_path), **QUICK)


def test_hours_end_with_scores_and_epochs_may_be_extended(squares: Path, tmp_path: Path) -> None:
    settings = {**UNWATCHED, "runs": str(tmp_path), "model": "tiny", "data": str(squares), "base": False}
    first = boxtune.train(**{**settings, "hours": 1e-6})
    assert [step for kind, step, _ in losses(first.folder.path) if kind == "train"] == [1]
    assert first.scores["tuned"]["num_images"] == 6
    second = boxtune.train(**{**settings, "epochs": 3, "resume": True})
    assert second.folder == first.folder
    assert [step for kind, step, _ in losses(second.folder.path) if kind == "train"] == list(range(1, 13))


def test_resume_with_other_settings_is_refused(finished: boxtune.Run, squares: Path) -> None:
    settings = {**QUICK, "r": 3, "resume": True, "runs": str(finished.folder.path.parent)}
    with pytest.raises(boxtune.UserError, match=r"adapter\.r was 16, now 3"):
        boxtune.train(model="tiny", data=str(squares), **settings)
    with pytest.raises(boxtune.UserError, match="no run named 'other'"):
        boxtune.train(model="tiny", data=str(squares), **{**settings, "name": "other"})


def test_a_frozen_adapter_stops_the_run_before_the_first_step(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL 0.22's fault, put back: the adapter is frozen while the trainer is built."""
    from trl import SFTTrainer

    original = SFTTrainer.__init__

    def freezing(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.model.requires_grad_(False)

    monkeypatch.setattr(SFTTrainer, "__init__", freezing)
    with pytest.raises(boxtune.NotLearningError, match="not trainable at stage 'trainer built'") as raised:
        boxtune.train(model="tiny", data=str(squares), runs=str(tmp_path), **QUICK)
    assert raised.value.exit_code == 3
    assert not (tmp_path / "squares-tiny" / "metrics.jsonl").exists()
    ledger = json.loads((tmp_path / "squares-tiny" / "ledger.json").read_text())
    assert [row["trainable"] > 0 for row in ledger] == [True, True, False]


def test_an_adapter_that_reloads_otherwise_is_no_success(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boxtune.finetune

    digests = iter(("trained", "reloaded"))
    monkeypatch.setattr(boxtune.finetune, "logits_digest", lambda *_: next(digests))
    with pytest.raises(boxtune.NotLearningError, match="other logits than the trained model"):
        boxtune.train(model="tiny", data=str(squares), runs=str(tmp_path), **{**QUICK, "epochs": 1, "base": False})
    assert (tmp_path / "squares-tiny" / "scores.json").is_file()


def test_a_loss_that_is_not_finite_is_no_success(squares: Path, tmp_path: Path) -> None:
    settings = {**QUICK, "base": False, "learning_rate": 1e30}
    with pytest.raises(boxtune.NotLearningError, match="before the first step failed"):
        boxtune.train(model="tiny", data=str(squares), runs=str(tmp_path), name="guarded", **settings)
    findings = json.loads((tmp_path / "guarded" / "findings.json").read_text())
    assert {f["check"] for f in findings if f["level"] == "fail"} <= {"loss.finite", "grad.finite"}
    with pytest.raises(boxtune.NotLearningError, match="validation loss is nan"):
        boxtune.train(model="tiny", data=str(squares), runs=str(tmp_path), guard="off", **settings)
    for line in (tmp_path / "squares-tiny" / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_eval_images_bounds_the_evaluations_inside_the_run_only(squares: Path, tmp_path: Path) -> None:
    settings = {**UNWATCHED, "epochs": 1, "base": False, "eval.images": 2}
    run = boxtune.train(model="tiny", data=str(squares), runs=str(tmp_path), **settings)
    assert run.scores["num_images"] == 6


def test_a_test_split_is_scored_and_valid_still_chooses_the_best(squares: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(squares, tmp_path / "data"))
    shutil.copytree(write_squares(tmp_path / "more", train=0, valid=3, seed=5) / "valid", data / "test")
    settings = {**UNWATCHED, "epochs": 1, "base": False, "split": "test"}
    run = boxtune.train(model="tiny", data=str(data), runs=str(tmp_path / "runs"), **settings)
    assert (run.scores["split"], run.scores["num_images"]) == ("test", 3)
    assert set(json.loads(run.folder.split.read_text())) == {"train", "valid", "test"}


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_images_met_while_training(tmp_path: Path, workers: int) -> None:
    """A file with a sound header whose pixels are cut: over 1 % ends the run, and goes on ending it when resumed."""
    data = write_squares(tmp_path / "data")
    path = data / "train" / "003.png"
    path.write_bytes(path.read_bytes()[:-60])
    settings = {**UNWATCHED, "base": False, "runs": str(tmp_path), "workers": workers}
    for resume_it in (False, True):
        with pytest.raises(boxtune.UserError, match="1 of 16 training images cannot be opened") as raised:
            boxtune.train(model="tiny", data=str(data), **settings, resume=resume_it)
        assert "Traceback" not in str(raised.value) and "003.png" in str(raised.value)


def test_predict_writes_boxes_and_pictures(finished: boxtune.Run, squares: Path, tmp_path: Path) -> None:
    from boxtune.run import predict

    written = predict(finished.folder.path, squares / "valid", out=tmp_path / "out")
    rows = json.loads(written.read_text())
    assert len(rows) == 6
    assert all((row["width"], row["height"]) == (112, 112) and "answer" in row for row in rows)
    assert len(list((tmp_path / "out" / "drawn").glob("*.jpg"))) == 6
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_text("not an image")
    (tmp_path / "bad" / "b.png").write_bytes((squares / "valid" / "001.png").read_bytes())
    with pytest.raises(boxtune.UserError, match="1 of 2 images have no answer"):
        predict(finished.folder.path, tmp_path / "bad", out=tmp_path / "out2")
    assert len(json.loads((tmp_path / "out2" / "predictions.json").read_text())) == 2


def test_boxes_from_python(finished: boxtune.Run, squares: Path) -> None:
    import numpy as np
    from PIL import Image

    path = squares / "valid" / "001.png"
    predictor = boxtune.load(finished.folder.path)
    from_path = predictor.predict(path)
    many = predictor.predict([str(path), Image.open(path), np.asarray(Image.open(path).convert("RGB"))])
    assert isinstance(from_path, boxtune.Boxes)
    assert [boxes.xyxy_px.tolist() for boxes in many] == [from_path.xyxy_px.tolist()] * 3


def test_another_base_is_refused(finished: boxtune.Run, tmp_path: Path) -> None:
    import shutil

    adapter = Path(shutil.copytree(finished.adapter, tmp_path / "adapter"))
    card = json.loads((adapter / "boxtune.json").read_text())
    (adapter / "boxtune.json").write_text(json.dumps({**card, "base_fingerprint": "0" * 64}))
    with pytest.raises(boxtune.UserError, match="not the ones the adapter was trained on"):
        boxtune.load(adapter)
    with pytest.raises(boxtune.UserError, match=r"boxtune\.json is missing"):
        boxtune.load(finished.folder.predictions)


@pytest.mark.parametrize("quantization", ["int8", "none"])
def test_other_quantisations_run_too(squares: Path, tmp_path: Path, quantization: str) -> None:
    settings = {**UNWATCHED, "epochs": 1, "base": False, "quantization": quantization, "checkpointing": "on"}
    run = boxtune.train(model="tiny", data=str(squares), runs=str(tmp_path), **settings)
    assert run.verdict["word"] == "learning"


def test_a_set_with_only_train_is_split_and_a_broken_image_named(tmp_path: Path) -> None:
    data = write_squares(tmp_path / "alone", train=20, valid=0)
    run = boxtune.train(
        model="tiny", data=str(data), runs=str(tmp_path / "runs"), **{**UNWATCHED, "epochs": 1, "base": False}
    )
    split = json.loads((run.folder.path / "split.json").read_text())
    assert (len(split["train"]), len(split["valid"])) == (18, 2)
    (data / "train" / "003.png").write_text("not an image at all")
    with pytest.raises(boxtune.UserError, match=r"003\.png"):
        boxtune.train(model="tiny", data=str(data), runs=str(tmp_path / "runs"), **QUICK)
