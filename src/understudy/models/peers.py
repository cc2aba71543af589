"""Networks of peers: a shared trunk, several branches that end in classifiers of their own, and an ensemble head."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from understudy.errors import BadInput, listed, suggestion

STAGES = ("stage", "block")  # what children that hold many layers are called


@dataclass(frozen=True, kw_only=True)
class PeerForm:
    """How a network becomes one of peers.

    Attributes:
        count: m, how many branches; 2 or more.
        split: name of the first layer or stage that each peer has for itself; empty: the network's last stage.
    """

    count: int = 3
    split: str = ""

    def __post_init__(self) -> None:
        if self.count < 2:
            raise BadInput(
                f"peers are 2 or more; got {self.count}. One network alone is what scratch trains."
            )


class PeerNetwork(nn.Module):
    """m networks that share their first layers, and a linear head on the features of all of them.

    Args:
        networks: m networks of one kind, each with initial weights of its own; they are taken apart. The trunk is the
            first one's.
        split: name of the first layer or stage that each peer has for itself; empty: the last stage.

    Called, it answers as the ensemble: images ``(batch, channels, height, width)`` to logits ``(batch, classes)``.
    Layers keep their names, below ``trunk.`` and ``peers.0.`` and so on.

    Raises:
        BadInput: fewer than two networks, one that does not end in a linear layer, or a split that it does not have.

    References:
        Wu and Gong 2021 (PCL, AAAI): shared low layers, m peers, an ensemble classifier on their concatenated features.
        That peers begin with weights of their own is our choice.
    """

    def __init__(self, networks: Sequence[nn.Module], split: str = "") -> None:
        super().__init__()
        PeerForm(count=len(networks), split=split)
        chains = [_chain(network) for network in networks]
        here = place_of(chains[0], split or last_stage(networks[0]))
        head = chains[0][-1][1]
        assert isinstance(head, nn.Linear)  # checked by _chain
        self.trunk = _assembled(chains[0][:here])
        self.peers = nn.ModuleList(_assembled(chain[here:]) for chain in chains)
        self.ensemble = nn.Linear(len(networks) * head.in_features, head.out_features)

    def peer(self, position: int, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(batch, classes)`` of one peer, and the features ``(batch, features)`` before its classifier."""
        return self._branch(position, self.trunk(images))

    def _branch(self, position: int, shared: Tensor) -> tuple[Tensor, Tensor]:
        *body, (_, head) = steps_of(self.peers[position])
        features = shared
        for _, layer in body:
            features = layer(features)
        return head(features), features

    def forward(self, images: Tensor) -> Tensor:
        """``(batch, channels, height, width)`` to the ensemble's logits ``(batch, classes)``."""
        shared = self.trunk(images)
        features = [self._branch(position, shared)[1] for position in range(len(self.peers))]
        logits: Tensor = self.ensemble(torch.cat(features, dim=1))
        return logits


def peer_network(
    build: Callable[[], nn.Module], form: PeerForm, *, channels: int, size: tuple[int, int]
) -> PeerNetwork:
    """A network of peers, each built anew from torch's global generator.

    Args:
        build: makes one network.
        form: how many, and where they part.
        channels, size: of the images.

    Raises:
        BadInput: see ``PeerNetwork``; also a network that does more than to call its layers one after the other.
    """
    networks = [build() for _ in range(form.count)]
    tried = copy.deepcopy(networks[0]).eval()
    example = torch.linspace(-1, 1, channels * size[0] * size[1]).reshape(1, channels, *size)
    with torch.no_grad():
        found = example
        try:
            for _, layer in steps_of(tried):
                found = layer(found)
            same = torch.allclose(found, tried(example), rtol=1e-3, atol=1e-4)
        except Exception:  # whatever a layer does with what it is not given otherwise
            same = False
    if not same and not example.is_meta:  # without numbers nothing can be compared
        raise BadInput(
            f"peers cannot be made of {type(tried).__name__}: it does more than to call its layers one after the other. "
            f"Take a built-in network such as resnet-20."
        )
    return PeerNetwork(networks, form.split)


def weights_of_peer(weights: Mapping[str, Tensor], position: int = 0) -> dict[str, Tensor]:
    """Weights of the plain network that the trunk and one peer are, from those of a ``PeerNetwork``."""
    found: dict[str, Tensor] = {}
    for begin in ("trunk.", f"peers.{position}."):
        found |= {
            name.removeprefix(begin): value for name, value in weights.items() if name.startswith(begin)
        }
    return found


def last_stage(model: nn.Module) -> str:
    """Where peers part unless said otherwise: the last child called a stage or a block, else the last convolution."""
    names = [name for name, _ in model.named_children() if name.startswith(STAGES)]
    if names:
        return names[-1]
    deep = [
        name
        for name, layer in steps_of(model)
        if any(isinstance(inner, nn.Conv2d) for inner in layer.modules())
    ]
    if not deep:
        raise BadInput(f"{type(model).__name__} has no convolution to part at: name the split.")
    return deep[-1]


def place_of(chain: Sequence[tuple[str, nn.Module]], split: str) -> int:
    """The step at which the peers part.

    Raises:
        BadInput: no step of that name, or nothing would be shared, or nothing but the classifier parted.
    """
    names = [name for name, _ in chain]
    found = [i for i, name in enumerate(names) if name == split or name.startswith(f"{split}.")]
    begins: dict[str, int] = {}
    for i, name in enumerate(names):
        for part in (name.partition(".")[0], name):
            begins.setdefault(part, i)
    possible = [part for part, begin in begins.items() if 0 < begin < len(chain) - 1]
    if not found or found[0] in (0, len(chain) - 1):
        why = (
            "is no layer of it"
            if not found
            else "leaves nothing to share"
            if found[0] == 0
            else "is the head"
        )
        whole = [part for part in possible if "." not in part]
        shown = whole if any(part.startswith(STAGES) for part in whole) else possible
        raise BadInput(
            f"peers cannot part at {split!r}: it {why}. Possible: {listed(shown[:12])}.{suggestion(split, possible)}"
        )
    return found[0]


def steps_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The layers of a network in the order of their names, sequences of layers taken apart."""
    steps: list[tuple[str, nn.Module]] = []
    for name, child in model.named_children():
        if type(child) is nn.Sequential:
            steps += [(f"{name}.{inner}", layer) for inner, layer in child.named_children()]
        else:
            steps.append((name, child))
    return steps


def _chain(model: nn.Module) -> list[tuple[str, nn.Module]]:
    steps = steps_of(model)
    if not steps or not isinstance(steps[-1][1], nn.Linear):
        raise BadInput(f"{type(model).__name__} does not end in a linear layer: peers cannot be made of it.")
    return steps


def _assembled(steps: Sequence[tuple[str, nn.Module]]) -> nn.Sequential:
    """Layers with dotted names as a sequence of sequences, so that their weights are called as before."""
    groups: OrderedDict[str, nn.Module] = OrderedDict()
    for name, layer in steps:
        outer, dot, inner = name.partition(".")
        if not dot:
            groups[outer] = layer
            continue
        group = groups.setdefault(outer, nn.Sequential())
        group.add_module(inner, layer)
    return nn.Sequential(groups)
