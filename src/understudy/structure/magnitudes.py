"""How strong each channel of a network is: the magnitudes that a structure is learnt from."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from understudy.structure.channels import Alive, Channels
from understudy.structure.tracing import Ids


class Magnitudes:
    """Reads the magnitude r of every removable channel from a network's weights, with gradient.

    A channel with batch norms has the largest ``|gamma|`` of those of its group: it can be removed where it is small
    in all of them. Norms that follow a depthwise convolution are left out; what they cost is charged to the layer that
    feeds them. A channel without any norm has the root of the mean square of its filter, ``sqrt(mean(w**2))``, the
    largest of them where several layers write it.

    Where some channels have norms and others none, a filter is measured by ``sqrt(sum(w**2))`` instead: its root mean
    square falls with the number of its weights and could not be compared with a gamma, whereas this is near 1 in a
    fresh network too. That is our choice; MorphNet's code has one kind or the other.

    Args:
        reading: of the network, or of one that is built like it.
        model: whose modules are asked for what never changes, such as which norms have a scale.

    References:
        Gordon et al. 2018, arXiv:1711.06798, and its official code (element-wise maximum, group lasso).
    """

    def __init__(self, reading: Channels, model: nn.Module) -> None:
        modules = dict(model.named_modules())
        norms, filters = [], []
        for layer in reading.layers:
            part = layer.part
            if not (part.out >= 0).any():
                continue
            if part.kind == "norm" and not part.after_depthwise and modules[part.name].weight is not None:
                norms.append(part)
            elif part.kind == "dense":
                filters.append(part)
        self.count = reading.count
        self._norms = _Sources([part.name for part in norms], [part.out for part in norms], self.count)
        without = np.ones(self.count, dtype=bool)
        without[self._norms.channels.numpy()] = False
        bare = [part for part in filters if without[part.out[part.out >= 0]].any()]
        # rows whose channel has a norm do not count: they are treated as if they could not be removed
        ids = [np.where(np.append(without, False)[part.out], part.out, -1) for part in bare]
        self._filters = _Sources([part.name for part in bare], ids, self.count)
        self._mean = not norms

    def norm_scales(self, among: Alive) -> tuple[str, ...]:
        """Names of the parameters of batch norms that some of these channels are measured by.

        Args:
            among: ``(channels,)``.
        """
        ids = self._norms.ids
        return tuple(
            f"{name}.weight"
            for name, own in zip(self._norms.names, ids, strict=True)
            if among[own[own >= 0]].any()
        )

    def give(self, model: nn.Module) -> NDArray[np.float64]:
        """``(channels,)`` by how much a magnitude falls where gradient descent pulls at it by 1.

        The gradient of a maximum is shared among those that are equal, as the scales of fresh norms are: of k in a group
        each falls by 1/k. A root mean square of n weights falls by 1/n.
        """
        give = np.zeros(self.count)
        for sources, of_filters in ((self._norms, False), (self._filters, True)):
            for name, own in zip(sources.names, sources.ids, strict=True):
                weight = model.get_parameter(f"{name}.weight")
                weights = weight[0].numel() if of_filters and self._mean else 1
                np.add.at(give, own[own >= 0], weights)
        return np.divide(1.0, give, out=np.zeros(self.count), where=give > 0)

    def __call__(self, model: nn.Module) -> Tensor:
        """``(channels,)`` float32, on the network's device."""
        magnitudes = torch.zeros(self.count, device=next(model.parameters()).device)
        if self._norms.names:
            scales = [model.get_parameter(f"{name}.weight").float().abs() for name in self._norms.names]
            magnitudes = self._norms.largest(torch.cat(scales), magnitudes)
        if self._filters.names:
            rows = [self._of_rows(model.get_parameter(f"{name}.weight")) for name in self._filters.names]
            magnitudes = self._filters.largest(torch.cat(rows), magnitudes)
        return magnitudes

    def _of_rows(self, weight: Tensor) -> Tensor:
        rows = weight.float().flatten(1)
        # unlike the root of a sum, it has a gradient (of 0) where all weights are 0
        lengths: Tensor = torch.linalg.vector_norm(rows, dim=1)
        return lengths / rows.shape[1] ** 0.5 if self._mean else lengths


class _Sources:
    """Rows of several layers' tensors, laid end to end, and the channel of each.

    Attributes:
        names: of the layers. ids: the channel of each of their rows, below 0 for none.
        rows: which rows have a channel. channels: of each of them.
    """

    def __init__(self, names: list[str], ids: list[Ids], count: int) -> None:
        together = np.concatenate(ids) if ids else np.zeros(0, dtype=np.int64)
        self.names, self.ids = names, ids
        self.rows = torch.from_numpy(np.flatnonzero(together >= 0))
        self.channels = torch.from_numpy(together[together >= 0])

    def largest(self, values: Tensor, magnitudes: Tensor) -> Tensor:
        """``magnitudes`` or the largest value of each channel's rows, whichever is larger."""
        if values.device != self.rows.device:
            self.rows, self.channels = self.rows.to(values.device), self.channels.to(values.device)
        return magnitudes.scatter_reduce(0, self.channels, values[self.rows], "amax")
