"""Making a stage that chooses a structure: what each search left is cut to the budget and looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from understudy.data.dataset import Dataset
from understudy.ladder.graph import Job
from understudy.ladder.networks import STATISTICS, rebuilt, training_images
from understudy.store.results import Store
from understudy.structure.choosing import Choice, choose
from understudy.structure.shrinking import shrunk
from understudy.structure.statistics import renew_statistics
from understudy.structure.structures import widths
from understudy.tasks import Classification
from understudy.training import precision
from understudy.training.evaluate import outputs
from understudy.training.settings import Training


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The smaller network with what it inherits, and what ``stage.json`` says of the choice."""

    model: nn.Module
    record: dict[str, Any]


def chosen(
    job: Job, *, store: Store, dataset: Dataset, training: Training, say: Callable[[str], None]
) -> Chosen:
    """Cuts what each search left to the budget; the one best on the validation split is taken, the first of equals.

    Statistics of batch norms lag behind a search; they are measured anew on training images first.

    Without a validation split there is only one search, see ``understudy.ladder.planning``.

    Raises:
        BadInput: the network cannot be made as small as the budget asks.
    """
    assert job.stage.choice is not None
    height, width = job.stage.network.arguments(dataset)["size"]
    shapes: dict[str, Any] = {"channels": dataset.channels, "size": (height, width)}
    candidates: list[tuple[float, nn.Module, dict[str, Any]]] = []
    for search in job.among:
        whole = rebuilt(search, store, dataset)
        found = choose(whole, job.stage.choice.budget, blocks=job.stage.choice.blocks, **shapes)
        with torch.random.fork_rng(devices=[]):
            smaller = shrunk(whole, found.structure, **shapes)
        images = training_images(dataset, job.stage.network.preprocessing(dataset), most=STATISTICS)
        renew_statistics(smaller, images)
        accuracy = _accuracy(smaller, job, dataset, training)
        record = {
            "structure": found.structure.as_dict(),
            "choice": {
                "search": search.name,
                "budget": job.stage.choice.budget.definition(),
                "whole": {
                    "parameters": job.whole.parameters,
                    "multiply_adds": job.whole.multiply_adds,
                },
                "reached": _shares(found),
                "threshold": found.threshold,
                "widths": [
                    {"layer": layer, "before": before, "after": after}
                    for layer, (before, after) in widths(whole, found.structure, **shapes).items()
                ],
            },
        }
        candidates.append((accuracy, smaller, record))
        for sentence in found.notes:
            say(f"{search.name}: {sentence}")
    best = max(candidates, key=lambda candidate: candidate[0])
    best[2]["choice"]["candidates"] = [
        {
            "search": search.name,
            "validation": None if accuracy < 0 else accuracy,
            "threshold": record["choice"]["threshold"],
            "reached": record["choice"]["reached"],
        }
        for search, (accuracy, _, record) in zip(job.among, candidates, strict=True)
    ]
    say(f"{best[2]['choice']['search']} is taken")
    return Chosen(model=best[1], record=best[2])


def _shares(found: Choice) -> dict[str, float]:
    """How much of each limit is used."""
    limits = {what: getattr(found.limits, what) for what in ("multiply_adds", "parameters")}
    return {what: getattr(found.cost, what) / limit for what, limit in limits.items() if limit is not None}


def _accuracy(model: nn.Module, job: Job, dataset: Dataset, training: Training) -> float:
    """On the validation split, before any training; -1 without one."""
    if not len(dataset.validation):
        return -1.0
    answers = outputs(
        model.to(training.device),
        dataset.validation,
        preprocessing=job.stage.network.preprocessing(dataset),
        device=training.device,
        workers=training.workers,
        autocast=partial(precision.autocast, training),
    )
    figures = Classification(label_smoothing=0.0).metrics(answers, torch.tensor(dataset.validation.labels))
    return figures["accuracy"]
