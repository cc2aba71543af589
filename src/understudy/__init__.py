"""understudy: turns a big PyTorch teacher into a small student that can be deployed.

    >>> import understudy as us
    >>> ladder = us.dense("plain_cnn-4", ["plain_cnn-2"], us.Network(name="plain_cnn-2", width=0.25))
    >>> [stage.name for stage in ladder.stages]
    ['teacher', 'dense/plain_cnn-2', 'dense', 'scratch', 'direct']

The names below are the public ones. Each is fetched when it is first asked for, so that the import loads nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from understudy import callbacks as callbacks
    from understudy.callbacks import Callback as Callback
    from understudy.climb import run as run
    from understudy.climb import run_recipe as run_recipe
    from understudy.data.dataset import Dataset as Dataset
    from understudy.data.loading import load as load
    from understudy.data.torch_datasets import from_torch as from_torch
    from understudy.data.views import ViewPolicy as ViewPolicy
    from understudy.data.views import Views as Views
    from understudy.errors import UnderstudyError as UnderstudyError
    from understudy.ladder.shapes import Rung as Rung
    from understudy.ladder.stage import Network as Network
    from understudy.ladder.stage import Stage as Stage
    from understudy.outcome import RunResult as RunResult
    from understudy.outcome import read_run as read_run
    from understudy.shapes import Ladder as Ladder
    from understudy.shapes import chain as chain
    from understudy.shapes import dense as dense
    from understudy.shapes import direct as direct
    from understudy.shapes import given as given
    from understudy.shapes import paths as paths
    from understudy.shapes import scratch as scratch
    from understudy.teaching.labels import Labels as Labels
    from understudy.teaching.method import Method as Method
    from understudy.teaching.method import Needs as Needs
    from understudy.teaching.method import Step as Step
    from understudy.teaching.soft_targets import SoftTargets as SoftTargets
    from understudy.teaching.soft_targets import Stochastic as Stochastic
    from understudy.training.memory import keep_pages as keep_pages
    from understudy.training.settings import Training as Training
    from understudy.training.signals import Signals as Signals

__all__ = [
    "Callback",
    "Dataset",
    "Labels",
    "Ladder",
    "Method",
    "Needs",
    "Network",
    "RunResult",
    "Rung",
    "Signals",
    "SoftTargets",
    "Stage",
    "Step",
    "Stochastic",
    "Training",
    "UnderstudyError",
    "ViewPolicy",
    "Views",
    "callbacks",
    "chain",
    "dense",
    "direct",
    "from_torch",
    "given",
    "keep_pages",
    "load",
    "paths",
    "read_run",
    "run",
    "run_recipe",
    "scratch",
]

_ROOMS = {
    "understudy.callbacks": ("Callback",),
    "understudy.climb": ("run", "run_recipe"),
    "understudy.data.dataset": ("Dataset",),
    "understudy.data.loading": ("load",),
    "understudy.data.torch_datasets": ("from_torch",),
    "understudy.data.views": ("ViewPolicy", "Views"),
    "understudy.errors": ("UnderstudyError",),
    "understudy.ladder.shapes": ("Rung",),
    "understudy.ladder.stage": ("Network", "Stage"),
    "understudy.outcome": ("RunResult", "read_run"),
    "understudy.shapes": ("Ladder", "chain", "dense", "direct", "given", "paths", "scratch"),
    "understudy.teaching.labels": ("Labels",),
    "understudy.teaching.method": ("Method", "Needs", "Step"),
    "understudy.teaching.soft_targets": ("SoftTargets", "Stochastic"),
    "understudy.training.memory": ("keep_pages",),
    "understudy.training.settings": ("Training",),
    "understudy.training.signals": ("Signals",),
}


def __getattr__(name: str) -> Any:
    if name == "callbacks":
        return importlib.import_module("understudy.callbacks")
    for room, names in _ROOMS.items():
        if name in names:
            found = getattr(importlib.import_module(room), name)
            globals()[name] = found
            return found
    raise AttributeError(f"module 'understudy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
