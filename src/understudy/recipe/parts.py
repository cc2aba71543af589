"""Entries of a recipe as what the layers below take: networks, rungs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from understudy.recipe.schema import Model, Recipe, Stochastic
from understudy.recipe.validating import training_of

if TYPE_CHECKING:
    from understudy.ladder import Network
    from understudy.ladder.shapes import Rung
    from understudy.teaching import Stochastic as Dropping


def rung_of(recipe: Recipe, model: Model, path: str) -> Rung:
    """The rung of one network of the short form; ``path`` is where it stands in the recipe."""
    from understudy.ladder.shapes import Rung

    return Rung(
        network=network_of(model),
        training=training_of(recipe, model, f"{path}.training."),
        weights=given_file(model),
        start=Path(model.start) if model.start else None,
    )


def given_file(model: Model) -> Path | None:
    """The file of a network that is not trained: of its weights, or of all of it."""
    given = model.weights or model.file
    return Path(given) if given else None


def network_of(model: Model) -> Network:
    """Which network an entry names."""
    from understudy.ladder import Network
    from understudy.models.peers import PeerForm

    form = None
    if model.peers is not None:
        form = PeerForm(count=model.peers.count, split=model.peers.split or "")
    size = (model.size, model.size) if isinstance(model.size, int) else model.size
    return Network(
        name=model.name or "",
        file=Path(model.file) if model.file else None,
        width=model.width,
        strip=model.strip,
        peers=form,
        pretrained=model.pretrained,
        size=size,
        mean=model.mean,
        std=model.std,
    )


def dropping_of(stochastic: Stochastic | None) -> Dropping | None:
    """How teachers are left out; None: they are not."""
    from understudy.teaching import Stochastic as Dropping

    return None if stochastic is None else Dropping(**stochastic.model_dump())
