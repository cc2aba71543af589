"""Sparse codes: a teacher's features as a few similarities to learnt atoms, and labels for a student made of them.

The atoms d_m are the columns of a dictionary. At each position of a feature map, x, the similarity to atom m is
``s_m = sigmoid(d_m . x + c)`` with one intercept c, and the code is s where it is among the k largest, else 0.

A teacher's dictionary learns to give its features back from their codes. The codes then label every position with its
nearest atom and every image with its mean code, and a student with atoms of its own learns to tell these labels.

References:
    Tran, Gabbouj & Iosifidis 2021, arXiv:2103.17012 (sparse representation matching, SRM), and the authors' code, which
    "official" means below.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from understudy.losses.hints import as_maps

PixelLogits = Literal["sigmoid", "pre_sigmoid"]


def atoms_of(channels: int, multiplier: float) -> int:
    """``int(mu * D)``: how many atoms a layer has.

    Args:
        channels: D, of the teacher's layer.
        multiplier: mu.

    Raises:
        ValueError: that is no atom at all.

    >>> atoms_of(128, 1.5)
    192
    """
    atoms = int(multiplier * channels)
    if atoms < 1:
        raise ValueError(f"{multiplier} atoms for each of {channels} channels are less than one atom in all")
    return atoms


def sparsity_of(channels: int, *, atoms: float, sparsity: float) -> int:
    """``max(1, int(D * (lambda * mu)))``: how many atoms a code may use at one position.

    The product lambda * mu is rounded first, as in the official code, so that truncation gives the same numbers.

    Args:
        channels: D, of the teacher's layer.
        atoms: mu, the atoms for each channel, as ``multiplier`` in ``atoms_of``.
        sparsity: lambda, the share of the atoms that a code uses; in (0, 1].

    Raises:
        ValueError: ``sparsity`` lies outside (0, 1], or there is no atom at all.

    >>> sparsity_of(1024, atoms=2.0, sparsity=0.02)
    40
    """
    if not 0 < sparsity <= 1:
        raise ValueError(f"sparsity lies in (0, 1]; got {sparsity}")
    return min(max(1, int(channels * (sparsity * atoms))), atoms_of(channels, atoms))


class Dictionary(nn.Module):
    """Atoms for one layer and their intercept, for a teacher's codes or a student's predictions.

    The atoms are drawn kaiming-uniform as the official code draws them: torch takes the number of columns for the
    fan-in, so they are uniform within ``sqrt(6 / atoms)``. The intercept is uniform within 1.

    All methods take features ``(batch, channels, height, width)`` or pooled ``(batch, channels)``, which count as one
    position, and compute in float32 or better whatever the features' number format, autocast included.

    Args:
        channels: D, of the layer.
        atoms: M; of a student's dictionary as many as of its teacher's.

    Attributes:
        weight: ``(channels, atoms)``.
        intercept: a scalar.
    """

    def __init__(self, channels: int, atoms: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, atoms))
        self.intercept = nn.Parameter(torch.empty(()))
        nn.init.kaiming_uniform_(self.weight)
        nn.init.uniform_(self.intercept, -1.0, 1.0)

    def extra_repr(self) -> str:
        """Channels and atoms."""
        return f"channels={self.weight.shape[0]}, atoms={self.weight.shape[1]}"

    def pre_similarities(self, features: Tensor) -> Tensor:
        """``d_m . x + c`` at every position.

        Args:
            features: see the class.

        Returns:
            ``(batch, atoms, height, width)``.

        Raises:
            ValueError: the features have another number of dimensions or channels.
        """
        maps = as_maps(features)
        channels = len(self.weight)
        if maps.shape[1] != channels:
            raise ValueError(
                f"this dictionary reads {channels} channels; got features of {tuple(features.shape)}"
            )
        number_format = torch.promote_types(features.dtype, torch.float32)
        with torch.autocast(maps.device.type, enabled=False):
            pixels = maps.to(number_format).movedim(1, -1)
            products = F.linear(pixels, self.weight.to(number_format).t())
            return (products + self.intercept.to(number_format)).movedim(-1, 1)

    def similarities(self, features: Tensor) -> Tensor:
        """``sigmoid(d_m . x + c)`` at every position.

        Args:
            features: see the class.

        Returns:
            ``(batch, atoms, height, width)`` in [0, 1].

        Raises:
            ValueError: as in ``pre_similarities``.
        """
        return self.pre_similarities(features).sigmoid()

    def codes(self, features: Tensor, k: int) -> Tensor:
        """The similarities that are at least the k-th largest of their position; the others are 0.

        Where similarities tie, as those do that are saturated at exactly 1, more than k may stay. Which of them stay
        has no gradient.

        Args:
            features: see the class.
            k: from 1 to the number of atoms.

        Returns:
            ``(batch, atoms, height, width)`` in [0, 1].

        Raises:
            ValueError: as in ``pre_similarities``, or ``k`` lies outside that range.
        """
        atoms = self.weight.shape[1]
        if not 1 <= k <= atoms:
            raise ValueError(f"a code uses 1 to {atoms} atoms, as many as there are; got k {k}")
        similarities = self.similarities(features)
        with torch.no_grad():
            least = similarities.topk(k, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
            kept = similarities >= least
        # a product, so that what is no number stays none
        return similarities * kept

    def decoded(self, codes: Tensor) -> Tensor:
        """Features from codes: the sum of the atoms, each times its similarity.

        Args:
            codes: ``(batch, atoms, height, width)``.

        Returns:
            ``(batch, channels, height, width)``.

        Raises:
            ValueError: the codes are of other atoms.
        """
        atoms = self.weight.shape[1]
        if codes.ndim != 4 or codes.shape[1] != atoms:
            raise ValueError(f"codes are (batch, {atoms}, height, width); got {tuple(codes.shape)}")
        number_format = torch.promote_types(codes.dtype, torch.float32)
        with torch.autocast(codes.device.type, enabled=False):
            decoded: Tensor = F.linear(codes.to(number_format).movedim(1, -1), self.weight.to(number_format))
            return decoded.movedim(-1, 1)


def reconstruction_loss(dictionary: Dictionary, features: Tensor, k: int) -> Tensor:
    """Squared difference of features and what their codes give back, averaged over channels and positions.

    Args:
        dictionary: receives the gradient, by way of the codes as well as of the decoding.
        features: ``(batch, channels, height, width)`` or ``(batch, channels)``, of a teacher. Treated as constant.
        k: how many atoms a code may use.

    Returns:
        ``(batch,)`` in the square of the features' units.

    Raises:
        ValueError: as in ``Dictionary.codes``.
    """
    maps = as_maps(features.detach())
    decoded = dictionary.decoded(dictionary.codes(maps, k))
    return (decoded - maps.to(decoded.dtype)).square().mean((1, 2, 3))


@torch.no_grad()
def pixel_labels(codes: Tensor) -> Tensor:
    """The nearest atom of every position, the first of those that tie.

    Args:
        codes: ``(batch, atoms, height, width)``; the similarities that they are made of have the same labels.

    Returns:
        ``(batch, height, width)`` int64, atom numbers.
    """
    return codes.argmax(dim=1)


@torch.no_grad()
def image_labels(codes: Tensor) -> Tensor:
    """The mean code of every image.

    Args:
        codes: ``(batch, atoms, height, width)``.

    Returns:
        ``(batch, atoms)`` in [0, 1].
    """
    return codes.mean((2, 3))


def pixel_loss(pre: Tensor, labels: Tensor, *, logits: PixelLogits = "sigmoid") -> Tensor:
    """Cross-entropy of the student's atoms with the nearest atom of the teacher, averaged over positions.

    Args:
        pre: ``(batch, atoms, height, width)``, the student's similarities before the sigmoid. Receives the gradient.
        labels: ``(batch, height, width)`` from ``pixel_labels``.
        logits: what the softmax of the cross-entropy is taken of. ``"sigmoid"``, the official form: similarities,
            which lie in (0, 1), so that with M atoms the loss lies between ``log(e + M - 1) - 1`` and
            ``log(e * (M - 1) + 1)``, and at ``log M`` where all are alike. ``"pre_sigmoid"``, the textbook's form: what
            the sigmoid is taken of, so that the loss can vanish.

    Returns:
        ``(batch,)`` in nats, computed in float32 or better.

    Raises:
        ValueError: the shapes do not fit, or ``logits`` is none of the two.
    """
    if logits not in get_args(PixelLogits):
        raise ValueError(f"logits is one of {', '.join(get_args(PixelLogits))}; got {logits!r}")
    if pre.ndim != 4 or labels.shape != (len(pre), *pre.shape[2:]):
        raise ValueError(
            f"pre is (batch, atoms, height, width) and labels (batch, height, width): matched layers have the same "
            f"height and width; got {tuple(pre.shape)} and {tuple(labels.shape)}"
        )
    scores = pre.to(torch.promote_types(pre.dtype, torch.float32))
    if logits == "sigmoid":
        scores = scores.sigmoid()
    return F.cross_entropy(scores, labels, reduction="none").mean((1, 2))


def image_loss(similarities: Tensor, g: Tensor) -> Tensor:
    """Binary cross-entropy of the student's mean similarities with the teacher's mean code, averaged over atoms.

    Its least value, where the two are equal, is not 0 but the mean entropy of g.

    Args:
        similarities: ``(batch, atoms, height, width)`` in [0, 1], of the student, all of them (no top k). Receives the
            gradient. Height and width may differ from the teacher's.
        g: ``(batch, atoms)`` in [0, 1] from ``image_labels``. Treated as constant.

    Returns:
        ``(batch,)`` in nats, computed in float32 or better. Means at 0 or 1 count as the nearest numbers that differ
        from those, without gradient there. (Torch's binary cross-entropy, as in the official code, cuts the logarithm
        at -100 instead; it also stops the process on a GPU where the student has diverged.)

    Raises:
        ValueError: the shapes do not fit.
    """
    if similarities.ndim != 4 or g.shape != similarities.shape[:2]:
        raise ValueError(
            f"similarities are (batch, atoms, height, width) and g (batch, atoms); "
            f"got {tuple(similarities.shape)} and {tuple(g.shape)}"
        )
    number_format = torch.promote_types(similarities.dtype, torch.float32)
    limits = torch.finfo(number_format)
    # rounding of the mean may also lead just beyond 1
    p = similarities.to(number_format).mean((2, 3)).clamp(limits.tiny, 1 - limits.eps / 2)
    target = g.detach().to(number_format)
    return -(target * p.log() + (1 - target) * torch.log1p(-p)).mean(1)
