"""What a batch is, its hard loss, its outputs and its metrics. Classification first."""

from __future__ import annotations

from understudy.tasks.classification import Classification

__all__ = ["Classification"]
