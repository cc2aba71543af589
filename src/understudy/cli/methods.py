"""The command that lists the ways to teach: methods."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

import typer

from understudy.cli.options import console

State = Literal["verified", "our reading"]
VERSION = 1  # of what --json prints


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One way to teach.

    Attributes:
        name: what it is called.
        recipe: how a recipe asks for it.
        does: in one line.
        paper: authors, year and where, or what is known of it.
        state: ``verified``: formula and figures are tests against facts of the paper or its official code; ``our reading``: less
            than that is known, and what was filled in is said in its documentation.
    """

    name: str
    recipe: str
    does: str
    paper: str
    state: State


METHODS = (
    Entry(
        name="direct",
        recipe="ladder: direct",
        does="labels and the softened answers of one teacher",
        paper="Hinton et al. 2015, arXiv:1503.02531",
        state="verified",
    ),
    Entry(
        name="chain (TAKD)",
        recipe="ladder: chain, paths",
        does="each network learns from the next larger one, through assistants of falling size",
        paper="Mirzadeh et al. 2020, arXiv:1902.03393",
        state="verified",
    ),
    Entry(
        name="dense (DGKD)",
        recipe="ladder: dense",
        does="each network learns from all larger ones at once",
        paper="Son et al. 2021, arXiv:2009.08825",
        state="verified",
    ),
    Entry(
        name="stochastic teaching",
        recipe="ladder.stochastic",
        does="teachers of a dense student are left out of batches at random",
        paper="Son et al. 2021, arXiv:2009.08825; paper and code differ, all three modes are here",
        state="verified",
    ),
    Entry(
        name="pacemaker",
        recipe="ladder: pacemaker, models.*.strip",
        does="a student of 1xN filters with an assistant of its own form between it and its teacher",
        paper="Son et al. 2020, arXiv:2003.03944; abstract only",
        state="our reading",
    ),
    Entry(
        name="compact structure",
        recipe="structure, controls: uniform, structure_alone",
        does="learns how many channels each layer keeps, within a budget, while it is taught",
        paper="Compact CNN structure learning, ICPR 2020, abstract only; the regulariser as in MorphNet, arXiv:1711.06798",
        state="our reading",
    ),
    Entry(
        name="sparse codes (SRM)",
        recipe="teaching.sparse_codes",
        does="the student first learns to tell sparse codes of its teacher's features",
        paper="Tran et al. 2021, arXiv:2103.17012, and the first author's code",
        state="verified",
    ),
    Entry(
        name="hints (FitNets)",
        recipe="controls: hints",
        does="the student first learns to tell its teacher's features",
        paper="Romero et al. 2015, arXiv:1412.6550",
        state="our reading",
    ),
    Entry(
        name="peers (PCL)",
        recipe="ladder: peers, models.*.peers, controls: peers_alone",
        does="several networks on one trunk teach each other, without a teacher",
        paper="Wu and Gong 2021, arXiv:2006.04147; loss and counts from a third-party re-implementation",
        state="our reading",
    ),
    Entry(
        name="balanced (BKD)",
        recipe="teaching.balance, controls: balanced_labels",
        does="what teachers say is weighed towards rare classes",
        paper="Zhang et al. 2021, arXiv:2104.10510, and its official code",
        state="verified",
    ),
    Entry(
        name="curriculum (ISL)",
        recipe="teaching.curriculum, controls: curriculum_reverse, curriculum_random",
        does="an early snapshot of the student says in which order samples come",
        paper="Zhao et al. 2021, arXiv:2106.10885; abstract only",
        state="our reading",
    ),
    Entry(
        name="decoupled targets (DKD)",
        recipe="controls: dkd",
        does="target and other classes of a soft target are weighed apart",
        paper="Zhao et al. 2022, arXiv:2203.08679",
        state="verified",
    ),
    Entry(
        name="standardised logits",
        recipe="controls: logit_std",
        does="logits of both sides are standardised before they are compared",
        paper="Sun et al. 2024, arXiv:2403.01427",
        state="verified",
    ),
    Entry(
        name="mean of teachers",
        recipe="controls: mean_teachers",
        does="the student learns from the mean of all larger networks",
        paper="a usual rival of dense teaching",
        state="our reading",
    ),
    Entry(
        name="early teacher",
        recipe="controls: early_teacher",
        does="a teacher that was stopped early teaches directly",
        paper="Cho and Hariharan 2019, arXiv:1910.01348",
        state="our reading",
    ),
    Entry(
        name="label smoothing",
        recipe="controls: label_smoothing",
        does="softened labels in place of a teacher",
        paper="Szegedy et al. 2016, arXiv:1512.00567",
        state="verified",
    ),
    Entry(
        name="int8 distillation",
        recipe="quantise",
        does="the student is taught on while its numbers are rounded to int8",
        paper="quantisation-aware training with the student's teachers",
        state="our reading",
    ),
)


def methods(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Every way to teach: what it does, its paper, and whether it is verified against that or our reading of it."""
    if as_json:
        print(json.dumps({"version": VERSION, "methods": [asdict(entry) for entry in METHODS]}, indent=2))
        return
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for entry in METHODS:
        table.add_row(entry.name, entry.does)
        table.add_row("", f"[dim]{entry.recipe} · {entry.paper} · {entry.state}[/dim]")
    console().print(table)
    console().print(
        "verified: formula and figures are tested against facts of the paper or its official code. our reading: less than "
        "that is known; the method's page says what was filled in."
    )
