"""Losses: pure functions of tensors, one value for each example."""

from __future__ import annotations

from understudy.losses.hard_labels import hard_label_loss
from understudy.losses.soft_targets import dense_soft_target_loss, soft_target_loss

__all__ = ["dense_soft_target_loss", "hard_label_loss", "soft_target_loss"]
