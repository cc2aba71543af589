"""The jobs of a ladder, after everything was checked that can be checked before one of them begins."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

from understudy.errors import BadInput, listed
from understudy.ladder.graph import Job, Ladder, Repeat, jobs

if TYPE_CHECKING:
    from understudy.data.dataset import Dataset
    from understudy.data.views import Views
    from understudy.training.signals import Signals


def planned(
    ladder: Ladder,
    dataset: Dataset,
    *,
    seeds: Sequence[int],
    views: Views,
    signals: Signals,
    repeat: Repeat = "student",
    ladder_seed: int = 0,
) -> list[Job]:
    """Jobs as ``understudy.ladder.graph.jobs`` gives them.

    Raises:
        BadInput: seeds that are none or stand twice, views that do not fit the images, networks that this machine
            cannot hold, signals that the classes do not allow, or a choice among students without a validation split.
    """
    check_seeds(seeds)
    if repeat not in get_args(Repeat):
        raise BadInput(f"repeat is {repeat!r}; it can be {listed(get_args(Repeat))}.")
    views.policy.check_fits(height=dataset.height, width=dataset.width)
    signals.check(classes=len(dataset.class_names))
    check_memory(ladder, dataset)
    check_choice(ladder, dataset, seeds)
    return jobs(
        ladder,
        dataset,
        seeds=list(seeds),
        views=views,
        signals=signals,
        repeat=repeat,
        ladder_seed=ladder_seed,
    )


def check_seeds(seeds: Sequence[int]) -> None:
    """Whether ``seeds`` is a list of different seeds.

    >>> check_seeds([0, 1, 1])
    Traceback (most recent call last):
    understudy.errors.BadInput: seeds has 1 twice; every seed stands once.
    """
    if not isinstance(seeds, list | tuple | range) or not seeds:
        hint = f"; range({seeds}) gives so many" if isinstance(seeds, int) and 0 < seeds < 1000 else ""
        raise BadInput(f"seeds is {seeds!r}; it is a list such as [0, 1, 2]{hint}.")
    for position, seed in enumerate(seeds):
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
            raise BadInput(f"seeds has {seed!r}; a seed is a whole number from 0 to {2**31 - 1}.")
        if seed in seeds[:position]:
            raise BadInput(f"seeds has {seed} twice; every seed stands once.")


def check_choice(ladder: Ladder, dataset: Dataset, seeds: Sequence[int]) -> None:
    """Whether what is delivered can be chosen: among several students only a validation split may choose."""
    if len(dataset.validation):
        return
    if len(ladder.delivered) > 1:
        raise BadInput(
            "paths are chosen on the validation split, and the data have none (validation is 0): nothing may be "
            "chosen then."
        )
    if len(seeds) > 1:
        raise BadInput(
            "among several seeds the one best on validation is delivered, and the data have no validation split "
            "(validation is 0). Give one seed, or keep a validation split."
        )


def check_memory(ladder: Ladder, dataset: Dataset) -> None:
    """Refuses networks that cannot be held by this machine, before one of them is made.

    Training holds weights, gradients, the optimiser's state and a copy while a checkpoint is written: 16 bytes a
    parameter. Activations, which depend on the batch, come on top and are not counted.
    """
    import torch

    from understudy.models.names import is_built_in

    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for network in {stage.network for stage in ladder.stages}:
        if network.factory is not None or not is_built_in(network.name):
            continue
        with torch.device("meta"):  # shapes without numbers
            parameters = sum(weights.numel() for weights in network.build(dataset).parameters())
        if 16 * parameters > memory:
            raise BadInput(
                f"{network.label} has {parameters / 1e9:.1f} billion parameters on these images; training it takes "
                f"{16 * parameters / 1e9:.0f} GB, and this machine has {memory / 1e9:.0f} GB of memory. "
                f"Choose a smaller network, width or image size."
            )
