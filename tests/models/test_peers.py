"""Networks of peers: published sizes, what is shared, where families part, and what cannot be taken apart."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from tests.ladder.tiny import same_tensors
from torch import Tensor, nn

from understudy.errors import BadInput
from understudy.models import build
from understudy.models.peers import PeerForm, PeerNetwork, last_stage, peer_network, steps_of, weights_of_peer
from understudy.models.weights import put_weights

SMALL: dict[str, dict[str, Any]] = {
    "plain_cnn-4": {"size": (16, 16)},
    "plain_cnn_narrow-4": {"size": (16, 16)},
    "resnet-8": {"size": (16, 16)},
    "wrn-10-1": {"size": (16, 16)},
    "vgg-8": {"size": (32, 32)},
    "mobilenet_v2": {"size": (16, 16)},
    "allcnn": {"size": (16, 16)},
    "densenet-121": {"size": (16, 16)},
    "densenet_bc-40-12": {"size": (16, 16)},
    "bottleneck_resnet-20": {"size": (16, 16)},
    "okd_wrn-20-8": {"size": (16, 16)},
    "okd_vgg-16": {"size": (32, 32)},
}
DEFAULTS = {
    "plain_cnn-4": "features.conv4",
    "plain_cnn_narrow-4": "features.conv4",
    "resnet-8": "stage3",
    "wrn-10-1": "stage3",
    "vgg-8": "features.conv5",
    "mobilenet_v2": "stage7",
    "allcnn": "stage4",
    "densenet-121": "block4",
    "densenet_bc-40-12": "block3",
    "bottleneck_resnet-20": "stage3",
    "okd_wrn-20-8": "stage3",
    "okd_vgg-16": "stage5",
}


def small(name: str) -> nn.Module:
    return build(name, classes=3, channels=1, width=0.125, **SMALL[name])


def peers_of(name: str = "resnet-8", *, count: int = 3, split: str = "", seed: int = 0) -> PeerNetwork:
    torch.manual_seed(seed)
    form = PeerForm(count=count, split=split)
    return peer_network(partial(small, name), form, channels=1, size=SMALL[name]["size"])


def images(name: str = "resnet-8", count: int = 4) -> Tensor:
    return torch.randn(count, 1, *SMALL[name]["size"], generator=torch.Generator().manual_seed(0))


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# --------------------------------------------------------------------------------------------------------- sizes
@pytest.mark.parametrize(
    ("name", "single", "together", "head"),
    [
        ("resnet-32", 472_756, 1_212_384, 19_300),
        ("bottleneck_resnet-110", 1_170_868, 3_038_944, 76_900),
        ("okd_vgg-16", 15_299_748, 30_771_664, 153_700),
        ("okd_wrn-20-8", 6_871_220, 17_431_008, 76_900),
    ],
)
def test_three_peers_have_the_published_size(name: str, single: int, together: int, head: int) -> None:
    networks = [build(name, classes=100) for _ in range(3)]
    assert parameters(networks[0]) == single
    model = PeerNetwork(networks)
    assert parameters(model) == together
    assert parameters(model.ensemble) == head


# ------------------------------------------------------------------------------------------- what is shared or not
def test_peers_share_the_trunk_and_nothing_else() -> None:
    model = peers_of()
    modules = [set(map(id, peer.modules())) for peer in model.peers]
    tensors = [{parameter.data_ptr() for parameter in peer.parameters()} for peer in model.peers]
    trunk = set(map(id, model.trunk.modules()))
    for one in range(3):
        assert not modules[one] & trunk
        for other in range(one):
            assert not modules[one] & modules[other]
            assert not tensors[one] & tensors[other]
    assert parameters(model) == sum(map(parameters, (model.trunk, model.ensemble, *model.peers)))


def test_every_peer_begins_with_weights_of_its_own_its_classifier_too() -> None:
    model = peers_of()
    states = [peer.state_dict() for peer in model.peers]
    for name, tensor in states[0].items():
        if name.endswith(("conv1.weight", "conv2.weight", "head.weight")):
            assert not torch.equal(tensor, states[1][name])
            assert not torch.equal(tensor, states[2][name])
            assert not torch.equal(states[1][name], states[2][name])
    assert states[0].keys() == states[1].keys() == states[2].keys()


def test_the_first_network_is_the_trunk_and_the_first_peer_and_its_weights_keep_their_names() -> None:
    torch.manual_seed(0)
    networks = [small("resnet-8") for _ in range(3)]
    states = [{name: tensor.clone() for name, tensor in one.state_dict().items()} for one in networks]
    model = PeerNetwork(networks)
    for position, state in enumerate(states):
        taken = weights_of_peer(model.state_dict(), position)
        assert set(taken) == set(state)
        for name, tensor in taken.items():
            source = states[0] if name.startswith(("stem", "stage1", "stage2")) else state
            assert torch.equal(tensor, source[name])


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("position", [0, 1])
def test_the_trunk_and_a_peer_are_a_plain_network(name: str, position: int) -> None:
    model = peers_of(name, count=2)
    pixels = images(name)
    with torch.no_grad():
        model.train()(pixels)  # other statistics than the initial ones
        model.eval()
        logits, features = model.peer(position, pixels)
        alone = small(name)
        put_weights(alone, weights_of_peer(model.state_dict(), position), source="a test")
        torch.testing.assert_close(alone.eval()(pixels), logits)
        head = steps_of(model.peers[position])[-1][1]
        assert isinstance(head, nn.Linear)
        assert torch.equal(head(features), logits)


def test_called_it_answers_as_the_ensemble_on_all_features() -> None:
    model, pixels = peers_of().eval(), images()
    with torch.no_grad():
        features = torch.cat([model.peer(j, pixels)[1] for j in range(3)], dim=1)
        expected = features @ model.ensemble.weight.T + model.ensemble.bias
        torch.testing.assert_close(model(pixels), expected)
    assert model(pixels).shape == (4, 3)


def test_a_peers_loss_has_a_gradient_for_the_trunk_and_that_peer_alone() -> None:
    model = peers_of()
    model.peer(1, images())[0].square().sum().backward()
    touched = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    expected = {name for name, _ in model.named_parameters() if name.startswith(("trunk.", "peers.1."))}
    assert touched == expected
    assert touched


def test_the_same_seed_gives_the_same_network() -> None:
    one, same, other = (
        peers_of(seed=1).state_dict(),
        peers_of(seed=1).state_dict(),
        peers_of(seed=2).state_dict(),
    )
    assert all(torch.equal(tensor, same[name]) for name, tensor in one.items())
    assert any(not torch.equal(tensor, other[name]) for name, tensor in one.items())


# -------------------------------------------------------------------------------------------------- where they part
@pytest.mark.parametrize("name", SMALL)
def test_the_last_stage_is_where_peers_part_unless_said_otherwise(name: str) -> None:
    usual, said = peers_of(name, count=2), peers_of(name, count=2, split=DEFAULTS[name])
    assert last_stage(small(name)) == DEFAULTS[name]
    assert list(usual.state_dict()) == list(said.state_dict())
    for weights in (usual.state_dict(), said.state_dict()):
        assert any(one.startswith("trunk.") for one in weights)
        assert any(one.startswith("peers.1.") for one in weights)


def places(name: str) -> list[str]:
    """Every stage and every layer of a family where its peers could part."""
    names = [one for one, _ in steps_of(small(name))]
    first, last = names[0], names[-1]
    stages = dict.fromkeys(one.partition(".")[0] for one in names)
    return [
        *(stage for stage in stages if stage not in (first.partition(".")[0], last.partition(".")[0])),
        *(one for one in names[1:-1] if one not in stages),
    ]


@pytest.mark.parametrize("name", SMALL)
def test_every_family_parts_at_every_stage(name: str) -> None:
    torch.manual_seed(0)
    pixels, alone, other = images(name, 2), small(name).eval(), small(name).eval()
    with torch.no_grad():
        expected = alone(pixels)
    kept = alone.state_dict()
    stages = [place for place in places(name) if "." not in place]
    inner = [place for place in places(name) if "." in place]
    before = 0
    for split in [*stages, *inner[:: max(1, len(inner) // 2)]]:
        model = PeerNetwork([alone, other], split).eval()
        with torch.no_grad():
            torch.testing.assert_close(model.peer(0, pixels)[0], expected)
        assert not any(key == split or key.startswith(f"{split}.") for key in model.trunk.state_dict())
        assert same_tensors(weights_of_peer(model.state_dict()), kept)
        own = [key for key in kept if key == split or key.startswith(f"{split}.")]
        assert all(key in model.peers[1].state_dict() for key in own)
        if split in stages:  # the later they part, the more is shared
            assert parameters(model.trunk) >= before
            before = parameters(model.trunk)


# ------------------------------------------------------------------------------------------------------- refusals
def test_a_split_that_is_no_layer_is_answered_with_the_nearest() -> None:
    with pytest.raises(BadInput) as error:
        peers_of(split="stag3")
    assert str(error.value) == (
        "peers cannot part at 'stag3': it is no layer of it. Possible: stage1, stage2, stage3, pool, flatten. "
        "Did you mean 'stage3'?"
    )


@pytest.mark.parametrize(
    ("name", "split", "why"),
    [
        ("resnet-8", "stem", "leaves nothing to share"),
        ("resnet-8", "stem.conv", "leaves nothing to share"),
        ("resnet-8", "head", "is the head"),
        ("plain_cnn-4", "features", "leaves nothing to share"),
        ("plain_cnn-4", "classifier", "is the head"),
        ("resnet-8", "stage", "is no layer of it"),
    ],
)
def test_something_is_shared_and_more_than_the_classifier_parted(name: str, split: str, why: str) -> None:
    with pytest.raises(BadInput) as error:
        peers_of(name, split=split)
    message = str(error.value)
    assert message.startswith(f"peers cannot part at {split!r}: it {why}. Possible: ")
    assert "\n" not in message
    possible = message.partition("Possible: ")[2].partition(". Did")[0].rstrip(".").split(", ")
    assert split not in possible
    for one in possible:  # what is said to be possible is
        assert isinstance(peers_of(name, split=one), PeerNetwork)


@pytest.mark.parametrize("count", [1, 0, -2])
def test_one_network_is_no_peer(count: int) -> None:
    with pytest.raises(BadInput) as error:
        PeerForm(count=count)
    assert str(error.value) == (
        f"peers are 2 or more; got {count}. One network alone is what scratch trains."
    )
    with pytest.raises(BadInput, match="peers are 2 or more; got 1"):
        PeerNetwork([small("resnet-8")])


class Skipping(nn.Module):
    """Adds what it began with: no chain of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.stage1 = nn.Conv2d(4, 4, 3, padding=1)
        self.stage2 = nn.Conv2d(4, 4, 3, padding=1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(4 * 64, 3)

    def forward(self, pixels: Tensor) -> Tensor:
        first = self.stem(pixels)
        answer: Tensor = self.head(self.flatten(self.stage2(self.stage1(first)) + first))
        return answer


class Torn(Skipping):
    """Hands its layers more than one thing."""

    def __init__(self) -> None:
        super().__init__()
        self.stage2 = Pairs()  # type: ignore[assignment]

    def forward(self, pixels: Tensor) -> Tensor:
        first = self.stem(pixels)
        answer: Tensor = self.head(self.flatten(self.stage2((self.stage1(first), first))))
        return answer


class Pairs(nn.Module):
    def forward(self, pair: Any) -> Tensor:
        one, other, *_ = pair
        answer: Tensor = one.missing + other
        return answer


class Unordered(Skipping):
    """Calls its layers in another order than they have."""

    def forward(self, pixels: Tensor) -> Tensor:
        answer: Tensor = self.head(self.flatten(self.stage1(self.stage2(self.stem(pixels)))))
        return answer


@pytest.mark.parametrize("kind", [Skipping, Unordered, Torn])
def test_a_network_that_is_no_chain_is_refused(kind: type[nn.Module]) -> None:
    with pytest.raises(BadInput) as error:
        peer_network(kind, PeerForm(), channels=1, size=(8, 8))
    assert str(error.value) == (
        f"peers cannot be made of {kind.__name__}: it does more than to call its layers one after the other. "
        f"Take a built-in network such as resnet-20."
    )


def test_a_network_of_ones_own_that_is_a_chain_will_do() -> None:
    def chain() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
        )

    model = peer_network(chain, PeerForm(count=2), channels=1, size=(8, 8))
    assert last_stage(chain()) == "2"
    assert [name for name, _ in model.trunk.named_children()] == ["0", "1"]
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


def test_what_does_not_end_in_a_linear_layer_is_refused() -> None:
    def pooled() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    with pytest.raises(
        BadInput, match="Sequential does not end in a linear layer: peers cannot be made of it"
    ):
        peer_network(pooled, PeerForm(), channels=1, size=(8, 8))


def test_a_network_without_convolutions_needs_a_split() -> None:
    def linear() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3))

    with pytest.raises(BadInput, match="Sequential has no convolution to part at: name the split"):
        peer_network(linear, PeerForm(), channels=1, size=(8, 8))
    model = peer_network(linear, PeerForm(count=2, split="1"), channels=1, size=(8, 8))
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
