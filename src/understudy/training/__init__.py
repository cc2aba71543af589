"""One short loop that knows no method and no task, and what it stands on."""

from __future__ import annotations

from understudy.training.settings import Training

__all__ = ["Training"]
