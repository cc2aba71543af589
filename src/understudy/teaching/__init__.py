"""Ways to teach: each is one file that says what it needs and what its loss is for one step."""

from __future__ import annotations

from understudy.teaching.labels import Labels
from understudy.teaching.method import Beginning, Method, Needs, Step, Survey
from understudy.teaching.soft_targets import SoftTargets, Stochastic

__all__ = ["Beginning", "Labels", "Method", "Needs", "SoftTargets", "Step", "Stochastic", "Survey"]
