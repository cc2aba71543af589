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

    Where nothing was searched, all layers of a network with new weights become narrower alike. Without a validation
    split there is only one search, see ``understudy.ladder.planning``.

    Raises:
        BadInput: the network cannot be made as small as the budget asks.
    """
    assert job.stage.choice is not None
    if not job.among:
        model, record, notes = _cut(job.stage.network.build(dataset), job, dataset, evenly=True)
        for sentence in notes:
            say(sentence)
        return Chosen(model=model, record={**record, "choice": {"search": None, **record["choice"]}})
    candidates: list[tuple[float, nn.Module, dict[str, Any]]] = []
    for search in job.among:
        model, record, notes = _cut(rebuilt(search, store, dataset), job, dataset)
        images = training_images(dataset, job.stage.network.preprocessing(dataset), most=STATISTICS)
        # statistics of batch norms lag behind a search
        renew_statistics(model, images)
        record["choice"] = {"search": search.name, **record["choice"]}
        candidates.append((_accuracy(model, job, dataset, training), model, record))
        for sentence in notes:
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


def _cut(
    whole: nn.Module, job: Job, dataset: Dataset, *, evenly: bool = False
) -> tuple[nn.Module, dict[str, Any], tuple[str, ...]]:
    """A network cut to the budget, what ``stage.json`` says of that, and sentences for a person."""
    choice = job.stage.choice
    assert choice is not None
    height, width = job.stage.network.arguments(dataset)["size"]
    shapes: dict[str, Any] = {"channels": dataset.channels, "size": (height, width)}
    found = choose(whole, choice.budget, blocks=choice.blocks, evenly=evenly, **shapes)
    with torch.random.fork_rng(devices=[]):
        smaller = shrunk(whole, found.structure, **shapes)
    said = {
        "budget": choice.budget.definition(),
        "whole": {"parameters": job.whole.parameters, "multiply_adds": job.whole.multiply_adds},
        "reached": _shares(found),
        "threshold": None if evenly else found.threshold,
        "widths": [
            {"layer": layer, "before": before, "after": after}
            for layer, (before, after) in widths(whole, found.structure, **shapes).items()
        ],
    }
    return smaller, {"structure": found.structure.as_dict(), "choice": said}, found.notes


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
