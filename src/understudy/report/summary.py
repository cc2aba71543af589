"""Accuracies over seeds, and paired differences to the control: the numbers that a claim stands on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from understudy.errors import Damaged
from understudy.report.groups import FIGURES
from understudy.report.statistics import (
    LEVEL,
    holm,
    mean_std_interval,
    paired_difference,
    smallest_visible_difference,
)

if TYPE_CHECKING:
    from understudy.ladder.graph import Job
    from understudy.store import Store

GUESSED_SPREAD = 0.006  # of paired differences, a fraction: two students of deviation 0.4 points, unrelated
DEGREES = 4  # of freedom that kept results must have for their spread to be believed
AGAINST = "direct"  # what a ladder has to beat: the student taught by the teacher alone
_VARIED = {
    "student": "Over seeds the students varied: initial weights, order of the images, dropped teachers. Teacher and "
    "assistants were trained once, so the luck of theirs is in every figure and in no interval.",
    "assistants": "Over seeds students and assistants varied. The teacher was trained once, so the luck of its training "
    "is in every figure and in no interval.",
    "ladder": "Over seeds everything that is trained varied, teachers too.",
}


def comparison(students: Sequence[str], *, claim: Sequence[str] | None, repeat: str) -> dict[str, Any]:
    """What is compared with what, in words and names.

    Args:
        students: arms of the run.
        claim: arms named beforehand; None: nothing was.
        repeat: what varied over seeds: ``student``, ``assistants`` or ``ladder``.
    """
    return {
        "against": AGAINST if AGAINST in students else None,
        "claim": None if claim is None else list(claim),
        "level": LEVEL,
        "varied": _VARIED[repeat],
    }


def summary(
    stages: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    *,
    students: Sequence[str],
    claim: Sequence[str] | None,
) -> list[dict[str, Any]]:
    """Test accuracy of each stage over its seeds, and its paired difference to the control.

    ``std`` (n - 1) and ``interval`` (95 %, t) are null at n = 1, ``mean`` too at n = 0. ``difference`` is null for all
    but students beside the control; its pairs are the seeds that both have. ``groups`` holds ``mean`` and ``std`` of the
    accuracies by how often a class is seen; it is there only where the training classes are imbalanced.

    Args:
        stages: as in ``result.json``.
        names: of the stages, in the order of the rows.
        students: which of them are arms.
        claim: arms whose difference is the claim. Their intervals stand alone; those of the others hold together
            (Bonferroni), and their p values are corrected for their number (Holm).
    """
    rows = []
    for name in names:
        of_name = [stage for stage in stages if stage["name"] == name]
        values = [stage["test"]["accuracy"] for stage in of_name if stage["test"]]
        mean, std, interval = mean_std_interval(values) if values else (None, None, None)
        same = {what: of_name[0][what] for what in ("role", "model", "parameters", "multiply_adds", "epochs")}
        rows.append(
            {
                "name": name,
                **same,
                "n": len(values),
                "mean": mean,
                "std": std,
                "interval": None if interval is None else list(interval),
                "difference": None,
                **_groups(of_name),
            }
        )
    _compare(rows, stages, students=students, claim=claim or ())
    return rows


def _groups(stages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Seeds whose results were kept before there were such figures have none."""
    found = {}
    for name in FIGURES:
        values = [stage["test"][name] for stage in stages if name in (stage["test"] or {})]
        if values:
            mean, std, _ = mean_std_interval(values)
            found[name] = {"mean": mean, "std": std}
    return {"groups": found} if found else {}


def sentence_on_power(
    all_jobs: Sequence[Job], store: Store, *, seeds: Sequence[int], claim: Sequence[str] = ()
) -> str:
    """The smallest difference to the control that so many seeds can show, in a sentence for ``plan``.

    The spread of the paired differences is that of kept results of the same students, where enough of them are kept
    for ``DEGREES`` degrees of freedom (root mean square over arms, by pairs); else a guess, which is said. Where no arm
    is claimed, the level is that of the first of as many comparisons as there are arms (Holm): all of them are shown.
    """
    if len(seeds) < 2:
        return "With one seed no difference can be told from the luck of a seed; --seeds 5 trains five."
    kept: dict[str, dict[int, float]] = {}
    arms = {job.name for job in all_jobs if job.stage.role == "student" and job.name != AGAINST}
    shared = {job.key for job in all_jobs if job.name == AGAINST}
    for job in all_jobs:
        if job.stage.role != "student" or (job.name != AGAINST and job.key in shared):
            continue
        try:
            result = store.result(job.key)
        except Damaged:
            continue
        if result is not None and result.record["test"]:
            kept.setdefault(job.name, {})[job.seed] = result.record["test"]["accuracy"]
    control = kept.get(AGAINST, {})
    total, degrees = 0.0, 0
    for name, own in kept.items():
        pairs = sorted(set(own) & set(control))
        if name != AGAINST and len(pairs) > 1:
            found = paired_difference([own[seed] for seed in pairs], [control[seed] for seed in pairs])
            total += (len(pairs) - 1) * (found.std or 0.0) ** 2
            degrees += len(pairs) - 1
    seen = degrees >= DEGREES and total > 0
    spread = math.sqrt(total / degrees) if seen else GUESSED_SPREAD
    where = f"seen with {degrees} degrees of freedom" if seen else "a guess: too little is kept to tell it by"
    compared = 1 if claim else len(arms)
    visible = smallest_visible_difference(spread, len(seeds), level=LEVEL / compared)
    assert visible is not None
    level = (
        "5 %"
        if compared == 1
        else f"5 %, the first of {compared} arms; an arm named under compare stands alone"
    )
    return (
        f"{len(seeds)} seeds show a difference to {AGAINST} of {100 * visible:.2f} points or more, four times in five "
        f"(paired t-test at {level}; differences spread by {100 * spread:.2f} points, {where})."
    )


def _compare(
    rows: Sequence[dict[str, Any]],
    stages: Sequence[Mapping[str, Any]],
    *,
    students: Sequence[str],
    claim: Sequence[str],
) -> None:
    """Fills in ``difference``."""
    by_seed: dict[str, dict[int, float]] = {}
    for stage in stages:
        if stage["name"] in students and stage["test"]:
            by_seed.setdefault(stage["name"], {})[stage["seed"]] = stage["test"]["accuracy"]
    control = by_seed.get(AGAINST, {})
    pairs = {
        name: sorted(set(own) & set(control))
        for name, own in by_seed.items()
        if name != AGAINST and set(own) & set(control)
    }
    others = [name for name in pairs if name not in claim]
    p_values: dict[str, float] = {}
    for row in rows:
        name = row["name"]
        if name not in pairs:
            continue
        found = paired_difference(
            [by_seed[name][seed] for seed in pairs[name]],
            [control[seed] for seed in pairs[name]],
            comparisons=1 if name in claim else len(others),
        )
        if found.p is not None and name not in claim:
            p_values[name] = found.p
        row["difference"] = {
            "n": found.n,
            "mean": found.mean,
            "std": found.std,
            "interval": None if found.interval is None else list(found.interval),
            "p": found.p,
            "p_corrected": found.p if name in claim else None,
            "claim": name in claim,
        }
    corrected = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    for row in rows:
        if row["name"] in corrected:
            row["difference"]["p_corrected"] = corrected[row["name"]]
