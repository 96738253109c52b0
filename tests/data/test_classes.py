"""Classes selected, renamed and merged, with what was lost in numbers; names that say nothing or too little."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from boxtune.boxes import Boxes
from boxtune.data.classes import (
    alike_names,
    check_class_names,
    require_descriptions,
    require_known,
    says_nothing,
    select_classes,
)
from boxtune.data.sample import Dataset, Sample
from boxtune.data.table import SampleTable, as_table
from boxtune.errors import ConfigError

from .cases import find

CLASSES = ("cat", "dog", "kitten", "Traffic light")


def sample(number: int, *labels: str, crowd: tuple[int, ...] = (), same: bool = False) -> Sample:
    """An image with a box for each label, at places of their own unless `same`."""
    rows = [[0.0 if same else 10.0 * i, 5, 8 if same else 10 * i + 8, 20] for i in range(len(labels))]
    return Sample(
        image=Path(f"{number}.png"),
        image_id=number,
        size_wh=(64, 48),
        boxes=Boxes(xyxy_px=np.array(rows).reshape(-1, 4), labels=labels),
        crowd=np.isin(np.arange(len(labels)), crowd),
        ignore=np.zeros(len(labels), dtype=bool),
    )


def dataset(*train: Sample, valid: tuple[Sample, ...] = ()) -> Dataset:
    splits = {"train": list(train), "valid": list(valid)}
    return Dataset(path=Path("set"), format="made", why="here", classes=CLASSES, splits=splits)


def some() -> Dataset:
    return dataset(
        sample(0, "cat", "dog", "kitten"),
        sample(1, "dog", "dog"),
        sample(2),
        sample(3, "kitten", "dog", "cat", crowd=(1,)),
        valid=(sample(0, "dog"), sample(1, "cat")),
    )


def labels_of(dataset: Dataset, split: str = "train") -> list[tuple[str, ...]]:
    return [one.boxes.labels for one in dataset.splits[split]]


def test_a_list_selects_in_its_order() -> None:
    chosen = select_classes(some(), ["kitten", "cat"])
    assert chosen.classes == ("kitten", "cat")
    assert labels_of(chosen) == [("cat", "kitten"), (), (), ("kitten", "cat")]
    assert labels_of(chosen, "valid") == [(), ("cat",)]
    first = chosen.splits["train"][0]
    assert first.boxes.xyxy_px.tolist() == [[0, 5, 8, 20], [20, 5, 28, 20]]
    assert first.image_id == 0 and first.size_wh == (64, 48) and len(chosen.splits["train"]) == 4
    assert chosen.splits["train"][3].crowd.tolist() == [False, False]  # the crowd was of dogs
    finding = find(chosen, "data.classes_dropped")
    assert finding is not None and finding.level == "ok"
    assert finding.seen == (
        "2 classes not chosen, their 4 boxes dropped: dog (4), Traffic light (0); "
        "images that became negatives: 1 of 4 in train, 1 of 2 in valid"
    )
    assert find(chosen, "data.classes_renamed") is None


def test_a_mapping_renames_and_merges() -> None:
    chosen = select_classes(some(), {"dog": "hound", "cat": "cat", "kitten": "cat", "Traffic light": "light"})
    assert chosen.classes == ("hound", "cat", "light")
    assert labels_of(chosen)[0] == ("cat", "hound", "cat") and labels_of(chosen)[3] == ("cat", "hound", "cat")
    assert chosen.splits["train"][3].crowd.tolist() == [False, True, False]
    assert find(chosen, "data.classes_dropped") is None
    finding = find(chosen, "data.classes_renamed")
    assert finding is not None
    assert finding.seen == "classes renamed or merged: dog -> hound, cat + kitten -> cat, Traffic light -> light"


def test_names_may_be_swapped() -> None:
    chosen = select_classes(some(), {"dog": "cat", "cat": "dog"})
    assert labels_of(chosen)[0] == ("dog", "cat") and chosen.classes == ("cat", "dog")


def test_everything_chosen_changes_nothing() -> None:
    chosen = select_classes(some(), CLASSES)
    assert labels_of(chosen) == labels_of(some()) and chosen.findings == () and chosen.classes == CLASSES


def test_a_table_stays_a_table_and_gives_the_same() -> None:
    listed = some()
    tabled = listed.with_splits({split: as_table(samples) for split, samples in listed.splits.items()})
    for classes in (["dog"], {"dog": "x", "cat": "x"}):
        one, other = select_classes(listed, classes), select_classes(tabled, classes)
        assert isinstance(other.splits["train"], SampleTable)
        assert labels_of(one) == labels_of(other) and one.findings == other.findings


def test_many_new_negatives_are_a_warning() -> None:
    mostly_dogs = dataset(sample(0, "dog"), sample(1, "dog"), sample(2, "cat"))
    finding = find(select_classes(mostly_dogs, ["cat"]), "data.classes_dropped")
    assert finding is not None and finding.level == "warn" and "data.negatives" in finding.fix
    finding = find(select_classes(mostly_dogs, ["dog"]), "data.classes_dropped")
    assert finding is not None and finding.level == "ok" and finding.fix == ""


def test_boxes_that_become_equal_are_kept_once() -> None:
    twice = dataset(sample(0, "cat", "kitten", "cat", "dog", same=True), sample(1, "kitten", "cat"))
    chosen = select_classes(twice, {"cat": "cat", "kitten": "cat", "dog": "dog"})
    # The kitten is the cat; the second cat was there twice before, which is not for a merge to mend.
    assert labels_of(chosen) == [("cat", "cat", "dog"), ("cat", "cat")]
    finding = find(chosen, "data.classes_renamed")
    assert finding is not None and finding.seen.endswith(
        "; 1 boxes that became equal to another of their image are dropped"
    )
    apart = select_classes(twice, {"cat": "a", "kitten": "b"})
    assert labels_of(apart)[0] == ("a", "b", "a")


def test_unknown_names_are_named_with_near_ones() -> None:
    with pytest.raises(ConfigError) as error:
        select_classes(some(), ["cta", "dog", "TRAFFIC LIGHT", "zebra"])
    text = str(error.value)
    assert "3 of 4 names are no class of the data set" in text and "where: data.classes" in text
    assert "'cta' (near: cat)" in text and "'TRAFFIC LIGHT' (near: Traffic light)" in text and "'zebra'," not in text
    assert "its classes are: cat, dog, kitten, Traffic light" in text


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ([], "no class is named"),
        ({}, "no class is named"),
        ({"cat": ""}, "cannot be called ''"),
        ({"cat": " cat"}, "cannot be called ' cat'"),
        ({"kitten": "cat"}, "is to be called 'cat', which is another class"),
    ],
)
def test_what_cannot_be_meant_is_refused(classes: list[str] | dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        select_classes(some(), classes)


def test_descriptions_belong_to_classes() -> None:
    require_descriptions({"cat": "a small animal that purrs"}, CLASSES)
    require_descriptions({}, CLASSES)
    with pytest.raises(ConfigError, match=r"'Cat' \(near: cat\)") as error:
        require_descriptions({"Cat": "an animal"}, CLASSES)
    assert error.value.where == "data.descriptions"
    with pytest.raises(ConfigError, match="no text describes: dog"):
        require_descriptions({"cat": "an animal", "dog": " "}, CLASSES)
    require_known(["dog"], CLASSES, "x")


@pytest.mark.parametrize(
    "name",
    "0 12 007 -1 1.0 class_1 class-2 Class3 label_0 label 4 object Object objects obj7 item2 a B 2 ж unknown none N "
    "null category categories cls_0 id_3".split(),
)
def test_names_that_say_nothing(name: str) -> None:
    assert says_nothing(name)


@pytest.mark.parametrize(
    "name",
    "cat 猫 犬 box table-1 B-52 h2o x-ray M16 ak47 first_class label_maker objective 4x4 route66 cat1 bb".split(),
)
def test_names_that_say_something(name: str) -> None:
    assert not says_nothing(name)


@pytest.mark.parametrize(
    "group",
    [
        ["cat", "Cat"],
        ["traffic light", "traffic_light", "Traffic-Light"],
        ["t-shirt", "tshirt"],
        ["cat", "cats"],
        ["box", "boxes"],
        ["city", "cities"],
        ["leaf", "leaves"],
        ["knife", "knives"],
        ["traffic light", "TrafficLights"],
        ["café", "cafe\u0301"],
        ["cats", "Cat", "CATS"],
    ],
)
def test_alike_names_are_found(group: list[str]) -> None:
    found = alike_names(["zebra", *group, "bus"])
    assert [set(one) for one in found] == [set(group)]


@pytest.mark.parametrize(
    "names",
    [["cat", "cart"], ["bus", "busy"], ["s", "ss"], ["1-1", "11"], ["glass", "gas"], ["猫", "犬"], ["new", "news2"]],
)
def test_other_names_stay_apart(names: list[str]) -> None:
    assert alike_names(names) == []


def test_check_class_names_counts_and_names() -> None:
    names = ["class_1", "cat", "Cats", "zebra\u200b", " dog", "red  car", "7", "caf\u00e9\u00a0noir"]
    findings = {finding.check: finding for finding in check_class_names(names, {"cat": 1200, "Cats": 3})}
    assert set(findings) == {
        "data.class_says_nothing",
        "data.classes_alike",
        "data.class_not_printing",
        "data.class_blanks",
    }
    assert all(finding.level == "warn" and "data.classes" in finding.fix for finding in findings.values())
    assert "2 ('class_1' (0 boxes); '7' (0 boxes))" in findings["data.class_says_nothing"].seen
    assert "'cat' (1,200 boxes), 'Cats' (3 boxes)" in findings["data.classes_alike"].seen
    assert "'zebra\\u200b'" in findings["data.class_not_printing"].seen
    assert "'caf\u00e9\\xa0noir'" in findings["data.class_not_printing"].seen
    assert "2 (' dog' (0 boxes); 'red  car' (0 boxes))" in findings["data.class_blanks"].seen


def test_sound_names_raise_no_finding() -> None:
    sound = [
        "cat",
        "traffic light",
        "x-ray",
        "猫",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "naïve façade",
        "B-52",
        "screw (M4), hex",
    ]
    assert check_class_names(sound, {}) == []


def test_many_bad_names_are_counted() -> None:
    (finding,) = check_class_names([str(number) for number in range(80)], {})
    assert ": 80 (" in finding.seen and finding.seen.endswith("; ...)") and len(finding.seen) < 250
