"""Paired differences to the control: which pairs, which corrections, and when nothing can be said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.ladder.tiny import jobs_of, made_up, stage, training
from understudy.ladder import Stage
from understudy.ladder.runner import run
from understudy.report import summary as module
from understudy.report.statistics import holm, paired_difference, smallest_visible_difference
from understudy.report.summary import comparison, sentence_on_power, summary
from understudy.store import Store

STUDENTS = ["dense", "scratch", "direct", "direct_long"]


def stages(accuracies: dict[str, dict[int, float | None]]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "seed": seed,
            "role": "student",
            "model": "plain_cnn-2",
            "parameters": 10,
            "multiply_adds": 20,
            "epochs": 3,
            "test": {} if accuracy is None else {"accuracy": accuracy},
        }
        for name, by_seed in accuracies.items()
        for seed, accuracy in by_seed.items()
    ]


FIGURES: dict[str, dict[int, float | None]] = {
    "dense": {0: 0.60, 1: 0.62, 2: 0.61},
    "scratch": {0: 0.50, 1: 0.55, 2: 0.51},
    "direct": {0: 0.58, 1: 0.59, 2: 0.585},
    "direct_long": {0: 0.59, 1: 0.59, 2: 0.60},
}


def rows(figures: dict[str, dict[int, float | None]], claim: list[str] | None = None) -> dict[str, Any]:
    names = list(figures)
    found = summary(stages(figures), names, students=STUDENTS, claim=claim)
    return {row["name"]: row["difference"] for row in found}


def test_pairs_are_the_seeds_that_both_have() -> None:
    found = rows({**FIGURES, "direct": {1: 0.59, 2: 0.585, 7: 0.1}})
    assert found["dense"]["n"] == 2
    assert found["dense"]["mean"] == pytest.approx((0.03 + 0.025) / 2)


def test_the_control_itself_has_no_difference_nor_has_anything_without_it() -> None:
    assert rows(FIGURES)["direct"] is None
    without = {name: by_seed for name, by_seed in FIGURES.items() if name != "direct"}
    assert set(rows(without).values()) == {None}


def test_a_claim_named_beforehand_stands_alone_and_the_others_are_corrected_for_their_number() -> None:
    found = rows(FIGURES, claim=["dense"])
    alone = paired_difference([0.60, 0.62, 0.61], [0.58, 0.59, 0.585])
    assert found["dense"]["claim"] is True
    assert found["dense"]["interval"] == pytest.approx(list(alone.interval or ()))
    assert found["dense"]["p_corrected"] == found["dense"]["p"] == pytest.approx(alone.p)
    others = ["scratch", "direct_long"]
    assert [found[name]["claim"] for name in others] == [False, False]
    corrected = holm([found[name]["p"] for name in others])
    assert [found[name]["p_corrected"] for name in others] == pytest.approx(corrected)
    wide = paired_difference([0.59, 0.59, 0.60], [0.58, 0.59, 0.585], comparisons=2)
    assert found["direct_long"]["interval"] == pytest.approx(list(wide.interval or ()))


def test_without_a_claim_all_are_corrected() -> None:
    found = rows(FIGURES)
    assert all(not difference["claim"] for difference in found.values() if difference)
    assert found["dense"]["p_corrected"] >= found["dense"]["p"]


def test_one_seed_has_a_difference_but_no_interval() -> None:
    found = rows({name: {0: by_seed[0]} for name, by_seed in FIGURES.items()})
    assert found["dense"]["n"] == 1
    assert found["dense"]["mean"] == pytest.approx(0.02)
    assert (found["dense"]["std"], found["dense"]["interval"], found["dense"]["p"]) == (None, None, None)
    assert found["dense"]["p_corrected"] is None


def test_unfinished_seeds_are_no_pairs() -> None:
    found = rows({**FIGURES, "dense": {0: 0.60, 1: None, 2: None}})
    assert found["dense"]["n"] == 1


@pytest.mark.parametrize("repeat", ["student", "assistants", "ladder"])
def test_it_is_said_what_varied(repeat: str) -> None:
    said = comparison(STUDENTS, claim=["dense"], repeat=repeat)
    assert said["against"] == "direct"
    assert said["claim"] == ["dense"]
    assert "Over seeds" in said["varied"]
    assert comparison(["dense"], claim=None, repeat=repeat)["against"] is None


def test_a_plan_says_what_so_many_seeds_can_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, store = made_up(), Store(tmp_path)
    stages = [stage("teacher"), stage("direct", "teacher"), stage("scratch", role="student")]
    seeds = [0, 1, 2]
    climb = jobs_of(stages, dataset, seeds=seeds)

    guessed = sentence_on_power(climb, store, seeds=seeds)
    # smallest visible difference at n = 3 is 3.26 deviations; the guess is 0.6 points
    assert guessed.startswith("3 seeds show a difference to direct of 1.96 points or more")
    assert "(paired t-test at 5 %; " in guessed
    assert "a guess" in guessed
    assert "With one seed" in sentence_on_power(climb, store, seeds=[0])

    outcomes = run(climb, store=store, dataset=dataset)
    by_arm = {
        name: [o.result.record["test"]["accuracy"] for o in outcomes if o.job.name == name and o.result]
        for name in ("direct", "scratch")
    }
    spread = paired_difference(by_arm["scratch"], by_arm["direct"]).std
    assert spread
    assert "a guess" in sentence_on_power(climb, store, seeds=seeds)  # three pairs are two degrees of freedom
    monkeypatch.setattr(module, "DEGREES", 2)
    said = sentence_on_power(climb, store, seeds=seeds)
    assert f"spread by {100 * spread:.2f} points, seen with 2 degrees of freedom" in said


def test_a_plan_of_many_arms_promises_what_the_first_of_them_can_show(tmp_path: Path) -> None:
    alone = [stage("teacher"), stage("direct", "teacher"), stage("scratch", role="student")]
    more = [*alone, stage("other", "teacher", training=training(lr=0.2))]
    # one whose key is that of direct differs from it in nothing
    more += [replace(stage("direct", "teacher"), name="twin")]
    dataset, store = made_up(), Store(tmp_path)

    def said(stages: list[Stage], claim: Sequence[str] = ()) -> str:
        climb = jobs_of(stages, dataset, seeds=[0, 1, 2])
        return sentence_on_power(climb, store, seeds=[0, 1, 2], claim=claim)

    assert "of 1.96 points" in said(alone)
    assert "of 1.96 points" in said(more, claim=["other"])
    visible = smallest_visible_difference(0.006, 3, level=0.05 / 3)
    assert visible is not None
    assert f"of {100 * visible:.2f} points" in said(more)
    assert "5 %, the first of 3 arms; an arm named under compare stands alone" in said(more)
