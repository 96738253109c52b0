"""The command line: one verb = one call, no logic.

Every option is `key=value`; `--key value` and `--key=value` mean the same. Exit codes: 0 finished, 1 unexpected
error, 2 the user's input is wrong, 3 stopped or diagnosed as not learning.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from boxtune.errors import BoxtuneError, ConfigError

Options = dict[str, Any]


def demo(words: list[str], options: Options) -> None:
    """boxtune demo [out=DIR] [key=value ...]

    The embedded model tuned on drawn food packages, end to end, on a CPU.
    """
    from boxtune.run import demo as run_demo

    _require(words, 0)
    out = _only({key: options.pop(key) for key in ("out",) if key in options}, out=_text)
    run_demo(**out, **options)


def inspect(words: list[str], options: Options) -> None:
    """boxtune inspect DATA [family=F | model=DIR] [out=DIR] [key=value ...] [--json]

    What is in a data set: format, counts, box sizes as a model sees them, findings. DATA is a folder, an annotation
    file, or the id of a data set on the hub. family= or a local model folder say whose eyes it is seen with,
    min_pixels= and max_pixels= its image budget. out= writes contact sheets. open=true decodes every image,
    headers=false checks none, alike=true looks for copies among many images. format=, images=, boxes= and frame=
    (upright or stored) say what reading cannot tell.
    """
    from boxtune.data import inspect_path

    _require(words, 1)
    names = dict.fromkeys(("format", "images", "boxes", "family", "model", "out"), _text)
    flags = dict.fromkeys(("open", "headers", "alike", "json"), _yes)
    asked = _only(options, **names, **flags, frame=_frame, min_pixels=_count, max_pixels=_count)
    as_json, out = asked.pop("json", False), asked.pop("out", None)
    inspection = inspect_path(words[0], **asked)
    if as_json:
        import json

        print(json.dumps(inspection.as_json(), indent=1, ensure_ascii=False))
    else:
        print(inspection.as_text())
    if out is not None:
        from boxtune.report import write_sheets

        sheets = write_sheets(Path(out), inspection)
        print(f"contact sheets in {out}: {', '.join(sheet.name for sheet in sheets)}", file=sys.stderr)


def convert(words: list[str], options: Options) -> None:
    """boxtune convert SRC DST --to coco|yolo|voc|jsonl [format=F] [link=true]

    The data set SRC, images and all, written to the new folder DST in another format. format=, images=, boxes= and
    frame= (upright or stored) say how SRC is to be read; without --to, format= is what is written. Images are copied,
    or hard links with link=true; those that EXIF turns are written upright. What cannot be kept is said.
    """
    from boxtune.data.convert import convert as convert_data

    _require(words, 2)
    asked = _only(options, to=_text, format=_text, images=_text, boxes=_text, frame=_frame, link=_yes)
    if "to" not in asked:
        asked["to"] = asked.pop("format", "")
    print(convert_data(words[0], words[1], **asked).as_text())


def check(words: list[str], options: Options) -> None:
    """boxtune check [RECIPE] model=MODEL data=DATA [key=value ...]

    The plan of a run, its memory and speed, and the checks before its first step; nothing is trained or written.
    """
    from boxtune.check import check as run_check

    _require(words, 0, 1)
    run_check(*words, **options)


def train(words: list[str], options: Options) -> None:
    """boxtune train [RECIPE] model=MODEL data=DATA [key=value ...]

    Tune a model, evaluate it before and after, and leave a run folder. MODEL is a folder, a hub id or tiny; RECIPE a
    YAML file of settings.
    """
    from boxtune.launch import end_rank
    from boxtune.run import train as run_train

    _require(words, 0, 1)
    run_train(*words, **options)
    end_rank()


def evaluate(words: list[str], options: Options) -> None:
    """boxtune eval RUN|PREDICTIONS ... [data=DATA] [split=S] [out=DIR]

    Scores of tuned models and of other systems on the same images: a table, scores.json and predictions. PREDICTIONS is
    a JSON file: COCO results (Ultralytics' predictions.json is one) or what boxtune wrote. Without data= the images are
    those that RUN has scored. split= is train, valid or test. threshold=T counts boxes of at least that score as found.
    Ids are told by ids and names alone, and that is said; where they can be read in several ways it is asked:
    ids=own|name|stem what image ids are, categories=own|from_zero|from_one|coco91 what category ids are,
    predicted_boxes=xyxy_px (xywh_px, cxcywh_unit, ...) what the four numbers are. format=, images=, boxes= and frame=
    (upright or stored) say how DATA is to be read.
    """
    from boxtune.evaluate import evaluate as run_evaluate

    _require(words, 1, 100)
    names = ("data", "split", "out", "format", "images", "boxes", "ids", "categories", "predicted_boxes")
    asked = _only(options, **dict.fromkeys(names, _text), frame=_frame, threshold=_share)
    run_evaluate(*words, **asked)


def predict(words: list[str], options: Options) -> None:
    """boxtune predict RUN SOURCE [split=S] [format=F,F] [threshold=T] [part=I/N] [draw=D] [server=URL] [out=DIR]

    Boxes of images, by the million. SOURCE is an image, a folder, a pattern such as 'photos/*.jpg', a list of images
    (.txt, .jsonl, .json), or with split=train|valid|test a data set. out= is where everything goes ("predictions").
    The same command goes on where it was killed: what is answered stands in OUT/answers, bound to model and settings.

    format= is one or several of json (predictions.json), coco, yolo and labelstudio: folders that boxtune and others
    read, with links to the images. confidence=true gives YOLO's rows the score of each box as a sixth number.
    threshold= gives all boxes of at least that score (0 to 1), threshold=best is the one that was chosen on validation
    images; without it boxes are those that the model says.
    part=2/8 answers one of eight shares, told by the images' paths, so that eight processes that see the same paths
    and the same out= work side by side; whoever ends last writes the files.
    draw=true writes each image with its boxes into drawn/, draw=false none, draw=auto all of up to 1,000 images.
    server=http://host:8000/v1 asks an OpenAI-compatible server instead of a model in memory, or several with commas
    between; served= is the model's name there, and the environment's BOXTUNE_API_KEY their key. at_once= images are
    asked together (16), of each server.
    """
    from boxtune.run import predict as run_predict

    _require(words, 2)
    texts = dict.fromkeys(("out", "split", "server", "served"), _text)
    numbers = {"threshold": _share_or_best, "part": _part, "at_once": _count}
    asked = _only(options, **texts, **numbers, format=_formats, draw=_yes_or_auto, confidence=_yes)
    run_predict(words[0], words[1], **asked)


def families(words: list[str], options: Options) -> None:
    """boxtune families

    The model families: prompt, grammar, numbers, resize rule, defaults, and where each is published.
    """
    from boxtune.families.listing import list_families

    _require(words, 0)
    _only(options)
    print(list_families())


def doctor(words: list[str], options: Options) -> int:
    """boxtune doctor [--trace] [SCRIPT.py | NOTEBOOK.ipynb | -m MODULE] [ITS OWN ARGUMENTS ...]

    Any training script, unchanged, under the guard: what is trainable, what stops it, on which line. Without one:
    versions, their known traps, and a self-test of a minute. Exit code 1: the script's own error, 3: not learning.
    On several GPUs: torchrun --nproc_per_node 2 -m boxtune doctor SCRIPT.py, or accelerate launch -m boxtune doctor.
    --trace names the line of what is frozen while training, where steps become several times slower.
    """
    if not words:
        from boxtune.guard.selftest import examine

        return examine()
    trace = words[0] == "--trace"
    words = words[1:] if trace else words
    module = words[:1] == ["-m"]
    words = words[1:] if module else words
    if not words or (not module and not Path(words[0]).is_file()):
        raise ConfigError(
            f"there is no script {words[0]!r}" if words else "a script, a notebook or -m MODULE is missing",
            where="command line",
            fix="boxtune doctor SCRIPT.py its own arguments, or boxtune doctor -m MODULE",
        )
    from boxtune.guard.doctor import diagnose

    return diagnose(words[0], words[1:], module=module, trace_training=trace)


VERBS: dict[str, Callable[[list[str], Options], int | None]] = {
    "demo": demo,
    "inspect": inspect,
    "convert": convert,
    "check": check,
    "train": train,
    "eval": evaluate,
    "predict": predict,
    "families": families,
    "doctor": doctor,
}
VERBATIM = ("doctor",)
"""Verbs whose words are not ours to read: they belong to somebody's script."""
FLAGS = ("json", "open", "resume", "confidence")


def help_text(verb: str | None = None) -> str:
    """The help of one verb, or the list of all."""
    if verb is None:
        lines = ["boxtune tunes vision-language models to detect objects, and proves of every run that it learns.", ""]
        for call in VERBS.values():
            usage, _, what = (line.strip() for line in (call.__doc__ or "").split("\n")[:3])
            lines += [usage, f"    {what}"]
        return "\n".join(
            [*lines, "", "--key value and --key=value mean the same as key=value. boxtune VERB --help says more."]
        )
    lines = [line.removeprefix("    ") for line in (VERBS[verb].__doc__ or "").rstrip().split("\n")]
    if verb in ("check", "train", "demo"):
        from boxtune.config import describe_settings

        lines += ["", "settings (the last part of a name is enough where it is unambiguous):", *describe_settings()]
    return "\n".join(lines)


def _require(words: list[str], least: int, most: int | None = None) -> None:
    if not least <= len(words) <= (least if most is None else most):
        raise ConfigError(
            f"{len(words)} words where {least} belong: {' '.join(words) or '(none)'}",
            where="command line",
            fix="boxtune VERB --help shows what goes where; a setting is key=value",
        )


def _only(options: Options, **known: Callable[[str], Any]) -> Options:
    """The options read by the reader of each; ConfigError for an unknown one, or text that its reader refuses."""
    read = {}
    for key, text in options.items():
        if key not in known:
            raise ConfigError(f"there is no option {key!r}", where="command line", fix=f"known: {', '.join(known)}")
        try:
            read[key] = known[key](text)
        except ValueError as error:
            what = f"the option {key} cannot be {text!r}"
            raise ConfigError(what, where="command line", fix=f"{key}= takes {error}") from error
    return read


def _text(text: str) -> str:
    if not text:
        raise ValueError("a name or a path")
    return text


def _yes(text: str) -> bool:
    if text.lower() not in ("true", "yes", "1", "false", "no", "0"):
        raise ValueError("true or false")
    return text.lower() in ("true", "yes", "1")


def _yes_or_auto(text: str) -> bool | None:
    if text == "auto":
        return None
    try:
        return _yes(text)
    except ValueError as error:
        raise ValueError("true, false or auto") from error


def _frame(text: str) -> str:
    if text not in ("auto", "upright", "stored"):
        raise ValueError("auto, upright or stored")
    return text


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text):
        raise ValueError("a whole number from 1")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:
        raise ValueError("a number from 0 to 1")
    return value


def _share_or_best(text: str) -> float | str:
    try:
        return text if text == "best" else _share(text)
    except ValueError as error:
        raise ValueError(f"{error}, or best") from error


def _formats(text: str) -> list[str]:
    names = text.split(",")
    if not set(names) <= {"json", "coco", "yolo", "labelstudio"}:
        raise ValueError("one or several of json, coco, yolo, labelstudio, such as coco,yolo")
    return names


def _part(text: str) -> tuple[int, int]:
    number, slash, of = text.partition("/")
    if not (slash and number.isascii() and number.isdigit() and of.isascii() and of.isdigit()):
        raise ValueError("a number of how many, such as 2/8")
    return int(number), int(of)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and give the exit code."""
    from boxtune.config import parse_pairs

    words = list(sys.argv[1:] if argv is None else argv)
    verb = words.pop(0) if words else "--help"
    if verb == "--version":
        from boxtune import __version__

        print(__version__)
        return 0
    try:
        ours = words[:1] if verb in VERBATIM else words
        if verb in ("--help", "-h", "help") or {"--help", "-h"} & set(ours):
            print(help_text(verb if verb in VERBS else None))
            return 0
        if verb not in VERBS:
            raise ConfigError(f"there is no verb {verb!r}", where="command line", fix=f"one of: {', '.join(VERBS)}")
        read = (words, {}) if verb in VERBATIM else parse_pairs(words, FLAGS, as_text=True)
        code = VERBS[verb](*read) or 0
        sys.stdout.flush()
        return code
    except BoxtuneError as error:
        print(f"boxtune: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # whoever read our output has had enough of it, such as `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        again = {"predict": "; the same command goes on"}
        again |= dict.fromkeys(("train", "demo"), "; the same command with resume=true goes on")
        print(f"\nboxtune: interrupted{again.get(verb, '')}", file=sys.stderr)
        return 130
