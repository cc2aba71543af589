"""Ladders: graphs of stages, their keys, the usual shapes, and the runner."""

from __future__ import annotations

from understudy.ladder.graph import Ladder
from understudy.ladder.stage import Network, Stage

__all__ = ["Ladder", "Network", "Stage"]
