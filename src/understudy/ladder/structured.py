"""Stages that find structures: searches of several strengths, and for each budget one stage that chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from understudy.errors import BadInput
from understudy.ladder.shapes import Rung
from understudy.ladder.stage import Choice, Network, Stage
from understudy.structure.budget import Budget
from understudy.teaching import Labels, Method
from understudy.teaching.structure_search import StructureSearch
from understudy.training.settings import Training

if TYPE_CHECKING:
    from understudy.structure.cost import Cost

STRENGTHS = (1.0, 2.0)


@dataclass(frozen=True, kw_only=True)
class Search:
    """How a structure is searched for.

    Attributes:
        budgets: what the student may cost, last; before it what each assistant may, largest first.
        training: of each search, of all channels.
        strengths: of the regulariser, as multiples of the usual one (``usual_strength``); each is a stage, and the best
            on the validation split is chosen.
        usual: the usual strength for this network, training and budget.
        expected: what each of the budgets will come to, about; none: as ``understudy.ladder.graph.expected``.
        blocks: weight of the regulariser in a block of the network; 1 where it is not named.
        schedule: ``joint``: all blocks at a time; ``sequential``: one after the other.
        retrain: ``scratch``: what is found begins with new weights; ``finetune``: with those of the search.
    """

    budgets: tuple[Budget, ...]
    training: Training
    usual: float
    expected: tuple[Cost, ...] = ()
    strengths: tuple[float, ...] = STRENGTHS
    blocks: Mapping[str, float] = field(default_factory=dict)
    schedule: Literal["joint", "sequential"] = "joint"
    retrain: Literal["scratch", "finetune"] = "scratch"


def searched(
    search: Search,
    network: Network,
    *,
    start: str,
    teachers: Sequence[str] = (),
    method: Method | None = None,
    channels: int,
    size: tuple[int, int],
    name: str = "structure",
) -> list[Stage]:
    """The stages that search and those that choose, one for each budget, the student's last.

    Args:
        search: how.
        network: whose channels there are to choose from.
        start: stage whose weights a search begins with: this network, trained.
        teachers: stages that teach during the search; none: it learns from the labels alone.
        method: how they teach.
        channels, size: of the images that the network sees.
        name: of the last stage; what the others are called begins with it.
    """
    resources = tuple(dict.fromkeys(kind for budget in search.budgets for kind in budget.definition()))
    stages = []
    for strength in search.strengths:
        looking = StructureSearch(
            method=method if teachers and method is not None else Labels(),
            strength=strength * search.usual,
            resources=resources,
            blocks=dict(search.blocks),
            schedule=search.schedule,
            epochs=search.training.epochs,
            channels=channels,
            size=size,
        )
        stages.append(
            Stage(
                name=f"{name}/search {strength:g}",
                network=network,
                role="assistant",
                teachers=tuple(teachers),
                start=start,
                method=looking,
                training=search.training,
            )
        )
    among = tuple(stage.name for stage in stages)
    for place, budget in enumerate(search.budgets):
        last = budget is search.budgets[-1]
        stages.append(
            Stage(
                name=name if last else f"{name} {label(budget)}",
                network=replace(network, note=label(budget)),
                role="assistant",
                choice=Choice(
                    budget=budget,
                    among=among,
                    blocks=dict(search.blocks),
                    expected=search.expected[place] if search.expected else None,
                ),
            )
        )
    return stages


def rungs(search: Search, network: Network, training: Training, *, name: str = "structure") -> list[Rung]:
    """A rung for each budget, the student's last: what was chosen, to be trained as ``training`` says."""
    found = []
    for budget in search.budgets:
        chosen = name if budget is search.budgets[-1] else f"{name} {label(budget)}"
        found.append(
            Rung(
                network=replace(network, note=label(budget)),
                training=training,
                structure=chosen,
                start=chosen if search.retrain == "finetune" else None,
            )
        )
    return found


def narrowed_alike(
    network: Network, training: Training, budget: Budget, *, name: str = "uniform"
) -> tuple[list[Stage], Rung]:
    """The stage that takes channels of all layers alike until the budget holds, and what is made of it.

    Args:
        network: whose channels they are.
        training: of what is left.
        budget: what it may cost.
        name: what the stage's name begins with.
    """
    small = replace(network, note=label(budget))
    narrow = Stage(name=f"{name}/structure", network=small, role="assistant", choice=Choice(budget=budget))
    return [narrow], Rung(network=small, training=training, structure=narrow.name)


def between(budget: Budget, assistants: int | Sequence[float], whole: Cost) -> tuple[Budget, ...]:
    """Budgets of the assistants, largest first, and then the student.

    Raises:
        BadInput: two of them would be one, or less than 0.001 of the network.

    Args:
        budget: of the student.
        assistants: how many, at equal ratios; or where each lies on the way from the whole network (0) to the
            student (1), in the logarithm of the cost.
        whole: cost of the network with all channels.
    """
    if isinstance(assistants, int):
        assistants = [step / (assistants + 1) for step in range(1, assistants + 1)]
    limits = budget.limits(whole)
    ratios = {what: getattr(limits, what) / getattr(whole, what) for what in budget.definition()}
    shares = [{what: f"{ratio**part:.3f}x" for what, ratio in ratios.items()} for part in sorted(assistants)]
    if "0.000x" in {text for share in shares for text in share.values()}:
        raise BadInput(
            "assistants cost less than 0.001 of the whole network. Give a larger budget or no assistants"
        )
    if any(share in shares[:place] for place, share in enumerate(shares)):
        raise BadInput(
            f"{len(shares)} assistants between the whole network and {label(budget)} of it lie too near each other. Give "
            f"fewer"
        )
    return (*(Budget(**share) for share in shares), budget)


def label(budget: Budget) -> str:
    """A budget in a stage's name.

    >>> label(Budget(multiply_adds="0.5x")), label(Budget(multiply_adds="20 MMAC", parameters="0.2x"))
    ('0.5x MAC', '20MMAC, 0.2x parameters')
    """
    said = []
    for what, noun in (("multiply_adds", " MAC"), ("parameters", " parameters")):
        text = getattr(budget, what)
        if text is not None:
            bare = text.replace(" ", "")
            said.append(bare + noun if what == "parameters" or bare.endswith(("x", "×")) else bare)
    return ", ".join(said)
