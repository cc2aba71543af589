"""Hints: the student's features, brought to the teacher's channels, match the teacher's features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def as_maps(features: Tensor) -> Tensor:
    """Features as maps: pooled ones ``(batch, channels)`` become ``(batch, channels, 1, 1)``.

    Args:
        features: ``(batch, channels, height, width)`` or ``(batch, channels)``.

    Returns:
        ``(batch, channels, height, width)``.

    Raises:
        ValueError: the features have another number of dimensions.

    >>> as_maps(torch.zeros(2, 3)).shape
    torch.Size([2, 3, 1, 1])
    """
    if features.ndim == 2:
        return features[:, :, None, None]
    if features.ndim != 4:
        raise ValueError(
            f"features are (batch, channels, height, width), or (batch, channels) when pooled; "
            f"got {tuple(features.shape)}"
        )
    return features


class Regressor(nn.Module):
    """A 1x1 convolution with bias from the student's channels to the teacher's; it keeps height and width.

    Weight and bias are drawn as torch draws those of any convolution.

    Args:
        student_channels: of the features that it is given.
        teacher_channels: of those that it returns.

    References:
        Romero et al. 2015, arXiv:1412.6550, section 2.2: the regressor r of Eq. 3. There it is a convolution without
        padding, large enough to bring the guided layer to the hint's size; with equal sizes that is 1x1, which the
        authors of SRM (arXiv:2103.17012; the baseline in their code) also use. They draw the bias from N(0, 1).
    """

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(student_channels, teacher_channels, kernel_size=1)

    def forward(self, features: Tensor) -> Tensor:
        """The student's features in the teacher's channels.

        Args:
            features: ``(batch, student_channels, height, width)`` or pooled ``(batch, student_channels)``.

        Returns:
            ``(batch, teacher_channels, height, width)``, computed in float32 or better, autocast included.

        Raises:
            ValueError: the features have another number of dimensions or channels.
        """
        maps = as_maps(features)
        if maps.shape[1] != self.project.in_channels:
            raise ValueError(
                f"this regressor reads {self.project.in_channels} channels; got features of {tuple(features.shape)}"
            )
        number_format = torch.promote_types(features.dtype, torch.float32)
        weight, bias = self.project.weight, self.project.bias
        assert bias is not None
        with torch.autocast(maps.device.type, enabled=False):
            return F.conv2d(maps.to(number_format), weight.to(number_format), bias.to(number_format))


def hint_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Squared difference of features, averaged over channels and positions.

    Args:
        student_features: ``(batch, channels, height, width)`` or ``(batch, channels)``, after the regressor. Receives
            the gradient.
        teacher_features: the same shape. Treated as constant.

    Returns:
        ``(batch,)`` in the square of the features' units, computed in float32 or better. Averaged over the batch it
        is torch's mean squared error. (The paper has half the sum of the squares instead of their mean, so its
        weights mean something else.)

    Raises:
        ValueError: the shapes differ.

    References:
        Romero et al. 2015, arXiv:1412.6550, Eq. 3.

    >>> hint_loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([2.])
    """
    student, teacher = as_maps(student_features), as_maps(teacher_features)
    if student.shape != teacher.shape:
        raise ValueError(
            f"student and teacher features have the same shape (channels by way of a Regressor, height and width by "
            f"the choice of layers); got {tuple(student_features.shape)} and {tuple(teacher_features.shape)}"
        )
    number_format = torch.promote_types(student.dtype, torch.float32)
    difference = student.to(number_format) - teacher.detach().to(number_format)
    return difference.square().mean((1, 2, 3))
