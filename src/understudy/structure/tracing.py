"""Which rows and columns of a network's layers live and die together, read from the graph of torch-pruning."""

from __future__ import annotations

import copy
import warnings
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import nn

from understudy.errors import BadInput, MissingExtra
from understudy.models.limits import check_shapes

Kind = Literal["dense", "depthwise", "norm", "slope", "other"]
Ids = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """One layer whose channels can be told apart.

    Attributes:
        name: of its module.
        kind: ``dense``: a convolution or linear layer; ``depthwise``; ``norm``: batch norm; ``slope``: PReLU with one
            slope for each channel; ``other``: a layer that mixes channels and cannot lose any.
        out: for each output channel the number of the set that it lives and dies with. Sets that can be removed have
            numbers from 0; those that cannot, from -2 downwards; -1 is no set: the image.
        into: likewise for the input channels of a dense or other layer; for all other kinds the same as ``out``.
        after_depthwise: a norm that reads what a depthwise convolution gives.
    """

    name: str
    kind: Kind
    out: Ids
    into: Ids
    after_depthwise: bool = False


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The layers of a network in the order of ``model.named_modules()``, and the sets that are its answers.

    Sets are numbered in no order that means anything.
    """

    parts: tuple[Part, ...]
    answers: frozenset[int]


def trace(model: nn.Module, *, channels: int, size: tuple[int, int]) -> Trace:
    """Finds the sets of rows and columns that must be removed together, by the dependency graph of torch-pruning.

    A set holds the rows of all layers whose outputs are added or multiplied with each other, the columns of the
    layers that read them, what normalises them, and depthwise convolutions between. Not removable are the image, the
    classes, and channels of layers that cannot lose some of them: convolutions in groups, layer and group norm,
    attention, recurrent layers, parameters outside of layers, weights that two layers have in common.
    The model is copied and run once; it, and torch's global generator, are left as they were.

    Args:
        size: height and width of the image in pixels.

    Raises:
        BadInput: the network cannot be copied, run or traced.
        MissingExtra: torch-pruning is not installed.
    """
    try:
        import torch_pruning
    except ModuleNotFoundError as error:
        raise MissingExtra("learning a structure", "compress") from error
    check_shapes(classes=2, channels=channels, size=size)
    try:
        plain = copy.deepcopy(model).cpu().float().requires_grad_(True)
        image = torch.zeros(1, channels, *size)
        no_draws = torch.random.fork_rng(devices=[])
        with no_draws, torch.enable_grad(), torch.autocast("cpu", enabled=False), warnings.catch_warnings():
            # it tells of parameters outside of layers and of operators that it does not know: both are fixed here
            warnings.simplefilter("ignore")
            graph = torch_pruning.DependencyGraph().build_dependency(plain, image, verbose=False)
            return _traced(plain, graph, torch_pruning.ops)
    except Exception as error:  # whatever forward methods raise, and what tracing them raises
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        near = _layer_before(error)
        raise BadInput(
            f"the channels of {type(model).__name__} cannot be grouped: it cannot be traced"
            f"{f' behind the layer {near}' if near else ''} ({reason}). "
            "Choose a convolutional network that does not shuffle or regroup its channels"
        ) from error


def _layer_before(error: BaseException) -> str:
    """The layer that comes before what torch-pruning was looking at when it stopped; empty where none is known."""
    found, trace_back = "", error.__traceback__
    while trace_back is not None:
        for node in trace_back.tb_frame.f_locals.values():
            if type(node).__module__ == "torch_pruning.dependency.node":
                found = _named_before(node) or found
        trace_back = trace_back.tb_next
    return found


def _named_before(node: Any) -> str:
    queue, seen = deque([node]), {node}
    while queue:
        one = queue.popleft()
        if one._name:
            return str(one._name)
        new = [before for before in one.inputs if before not in seen]
        seen.update(new)
        queue.extend(new)
    return ""


def _traced(model: nn.Module, graph: Any, ops: Any) -> Trace:
    nodes = graph.module2node
    ties = _Ties(graph)
    for module, node in nodes.items():
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear) and ties.two_sided(node):
            ties.follow(node, "out", ties.outputs(module))
    # the columns that nobody writes are the image's; all others have been reached by now
    sets = ties.sets()
    shared = _shared(model)
    fixed: set[int] = set()
    answers: set[int] = set()
    for node, side in ties.seen:
        if side != "into" and not node.outputs:
            answers.update(sets[node, side].values())
        if _cannot_shrink(node, ops, shared):
            fixed.update(sets[node, side].values())
    fixed |= answers

    def ids(node: Any, side: str) -> Ids:
        found = sets.get((node, side), {})
        count = ties.inputs(node.module) if side == "into" else ties.outputs(node.module)
        numbers = (found.get(index, -1) for index in range(count))
        return np.array([-2 - number if number in fixed else number for number in numbers], dtype=np.int64)

    parts = []
    for name, module in model.named_modules():
        node, kind = nodes.get(module), _kind(module)
        two_sides = (node, "out") in ties.seen
        if node is None or (kind is None and not two_sides):
            continue
        parts.append(
            Part(
                name=name,
                kind=kind or "other",
                out=ids(node, "out" if two_sides else "both"),
                into=ids(node, "into" if two_sides else "both"),
                after_depthwise=kind == "norm"
                and any(_kind(one.module) == "depthwise" for one in node.inputs),
            )
        )
    return Trace(parts=tuple(parts), answers=frozenset(-2 - number for number in answers))


def _kind(module: Any) -> Kind | None:
    if isinstance(module, nn.Conv2d):
        if module.groups == 1:
            return "dense"
        return "depthwise" if module.groups == module.in_channels == module.out_channels else None
    if isinstance(module, nn.Linear):
        return "dense"
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        return "norm"
    return "slope" if isinstance(module, nn.PReLU) and module.num_parameters > 1 else None


def _shared(model: nn.Module) -> set[int]:
    """Modules that have a parameter with another one in common, or one that is computed at each call."""
    owners: dict[int, nn.Module] = {}
    found = set()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            other = owners.setdefault(id(parameter), module)
            if other is not module:
                found |= {id(other), id(module)}
        if _kind(module) is not None and not isinstance(module.weight, nn.Parameter | None):
            found.add(id(module))
    return found


def _cannot_shrink(node: Any, ops: Any, shared: set[int]) -> bool:
    module = node.module
    kinds = ops.OPTYPE
    if node.type == kinds.PARAMETER:
        return bool(module.numel() > 1)
    if id(module) in shared:
        return True
    if node.type in (kinds.CONV, kinds.DEPTHWISE_CONV, kinds.LINEAR, kinds.BN):
        return _kind(module) is None
    return node.type in (
        kinds.OUTPUT,
        kinds.CUSTOMIZED,
        kinds.LN,
        kinds.GN,
        kinds.IN,
        kinds.EMBED,
        kinds.MHA,
        kinds.LSTM,
    )


class _Ties:
    """Follows channels through the graph, from each layer that writes them to everything that must go with them.

    Attributes:
        seen: which indices of a node have been reached, on which side: ``out`` or ``into`` of a layer whose rows and
            columns are removed one by one, ``both`` of any other node.
    """

    def __init__(self, graph: Any) -> None:
        self.seen: dict[tuple[Any, str], set[int]] = {}
        self._graph = graph
        self._edges: list[tuple[tuple[Any, str], Ids, tuple[Any, str], Ids]] = []

    def outputs(self, module: Any) -> int:
        """How many channels a layer gives."""
        count = self._graph.get_out_channels(module)
        return int(count)

    def inputs(self, module: Any) -> int:
        """How many channels a layer reads."""
        count = self._graph.get_in_channels(module)
        return int(count)

    def follow(self, node: Any, side: str, indices: int) -> None:
        """Reaches everything that goes with the first ``indices`` channels of ``node``."""
        start = set(range(indices)) - self.seen.setdefault((node, side), set())
        self.seen[node, side] |= start
        queue = deque([(node, side, np.array(sorted(start), dtype=np.int64))])
        while queue:
            source, side, here = queue.popleft()
            if not len(here):
                continue
            trigger = self._function(source, side)
            for edge in source.dependencies:
                if not edge.is_triggered_by(trigger):
                    continue
                target = edge.target, self._side(edge.target, edge.handler)
                there, origin = _mapped(edge, here)
                self._edges.append(((source, side), origin, target, there))
                known = self.seen.setdefault(target, set())
                new = set(there.tolist()) - known
                known |= new
                queue.append((*target, np.array(sorted(new), dtype=np.int64)))

    def sets(self) -> dict[tuple[Any, str], dict[int, int]]:
        """For each node and side, the number of the set of each index."""
        first, total = {}, 0
        for key, indices in self.seen.items():
            first[key] = total
            total += max(indices, default=-1) + 1
        a = [first[source] + origin for source, origin, _, _ in self._edges]
        b = [first[target] + there for _, _, target, there in self._edges]
        rows = np.concatenate(a) if a else np.zeros(0, dtype=np.int64)
        columns = np.concatenate(b) if b else np.zeros(0, dtype=np.int64)
        matrix = coo_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(total, total))
        labels = connected_components(matrix, directed=False)[1]
        return {
            key: {index: int(labels[first[key] + index]) for index in indices}
            for key, indices in self.seen.items()
        }

    def _function(self, node: Any, side: str) -> Any:
        pruner = self._graph.get_pruner_of_module(node.module)
        return pruner.prune_in_channels if side == "into" else pruner.prune_out_channels

    def two_sided(self, node: Any) -> bool:
        """Whether what a layer reads and what it gives are removed one without the other."""
        pruner = self._graph.get_pruner_of_module(node.module)
        return bool(pruner.prune_in_channels != pruner.prune_out_channels)

    def _side(self, node: Any, handler: Any) -> str:
        pruner = self._graph.get_pruner_of_module(node.module)
        if not self.two_sided(node):
            return "both"
        return "into" if handler == pruner.prune_in_channels else "out"


def _mapped(edge: Any, indices: Ids) -> tuple[Ids, Ids]:
    """Indices at the end of an edge, and for each the index at its start that it comes from."""
    if all(mapping is None for mapping in edge.index_mapping):
        return indices, indices
    from torch_pruning._helpers import _HybridIndex

    pairs = [_HybridIndex(idx=index, root_idx=index) for index in indices.tolist()]
    for mapping in edge.index_mapping:
        if mapping is not None:
            pairs = mapping(pairs)
    there = np.array([pair.idx for pair in pairs], dtype=np.int64)
    return there, np.array([pair.root_idx for pair in pairs], dtype=np.int64)
