"""Sparse codes against explicit loops, the tables of sizes, and the ranges of the two label losses."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from understudy.losses.sparse_codes import (
    Dictionary,
    atoms_of,
    image_labels,
    image_loss,
    pixel_labels,
    pixel_loss,
    reconstruction_loss,
    sparsity_of,
)


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def dictionary(channels: int = 4, atoms: int = 7, *, seed: int = 0) -> Dictionary:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Dictionary(channels, atoms)


def by_hand(known: Dictionary, features: Tensor, k: int) -> tuple[Tensor, Tensor, list[float]]:
    """Codes, decoded features and reconstruction losses with loops over Python floats."""
    columns, c = known.weight.double().t().tolist(), known.intercept.item()
    batch, channels, height, width = features.shape
    codes = torch.zeros(batch, len(columns), height, width, dtype=torch.float64)
    decoded = torch.zeros_like(features)
    losses = []
    for b in range(batch):
        squares = []
        for i in range(height):
            for j in range(width):
                x = features[b, :, i, j].tolist()
                s = [
                    1 / (1 + math.exp(-(sum(d * value for d, value in zip(atom, x, strict=True)) + c)))
                    for atom in columns
                ]
                least = sorted(s, reverse=True)[k - 1]
                code = [value if value >= least else 0.0 for value in s]
                back = [
                    sum(a * atom[n] for a, atom in zip(code, columns, strict=True)) for n in range(channels)
                ]
                codes[b, :, i, j], decoded[b, :, i, j] = torch.tensor(code), torch.tensor(back)
                squares += [(one - other) ** 2 for one, other in zip(back, x, strict=True)]
        losses.append(sum(squares) / len(squares))
    return codes, decoded, losses


# --------------------------------------------------------------------------------------------------------- sizes
@pytest.mark.parametrize(
    ("multiplier", "atoms"), [(1.5, [192, 384, 1536]), (2.0, [256, 512, 2048]), (3.0, [384, 768, 3072])]
)
def test_the_atoms_of_the_papers_layers(multiplier: float, atoms: list[int]) -> None:
    assert [atoms_of(channels, multiplier) for channels in (128, 256, 1024)] == atoms


@pytest.mark.parametrize(
    ("atoms", "sparsity", "k"),
    [
        (1.5, 0.01, [1, 3, 15]),
        (1.5, 0.02, [3, 7, 30]),
        (1.5, 0.03, [5, 11, 46]),
        (2.0, 0.01, [2, 5, 20]),
        (2.0, 0.02, [5, 10, 40]),
        (2.0, 0.03, [7, 15, 61]),
        (3.0, 0.01, [3, 7, 30]),
        (3.0, 0.02, [7, 15, 61]),
        (3.0, 0.03, [11, 23, 92]),
    ],
)
def test_the_sparsity_of_the_papers_layers(atoms: float, sparsity: float, k: list[int]) -> None:
    assert [sparsity_of(channels, atoms=atoms, sparsity=sparsity) for channels in (128, 256, 1024)] == k


def test_the_product_of_the_multipliers_is_rounded_first() -> None:
    # 0.3 * 1.5 is a little less than 0.45; the other way round the product is 45 exactly
    assert int(100 * 0.3 * 1.5) == 45
    assert sparsity_of(100, atoms=1.5, sparsity=0.3) == 44
    assert sparsity_of(100, atoms=3.0, sparsity=0.57) == 171


@settings(deadline=None)
@given(channels=st.integers(1, 4096), atoms=st.floats(1, 8), sparsity=st.floats(1e-6, 1))
def test_a_code_uses_at_least_one_atom_and_no_more_than_there_are(
    channels: int, atoms: float, sparsity: float
) -> None:
    assert 1 <= sparsity_of(channels, atoms=atoms, sparsity=sparsity) <= atoms_of(channels, atoms)


# ---------------------------------------------------------------------------------------------------- dictionary
@pytest.mark.parametrize("k", [1, 3, 7])
def test_equals_the_loops_written_by_hand(k: int) -> None:
    known, features = dictionary(), 2 * drawn(3, 4, 2, 3, seed=1)
    codes, decoded, losses = by_hand(known, features, k)
    torch.testing.assert_close(known.codes(features, k), codes)
    torch.testing.assert_close(known.decoded(codes), decoded)
    torch.testing.assert_close(reconstruction_loss(known, features, k).tolist(), losses)
    single = reconstruction_loss(known, features.float(), k)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.tolist(), losses, rtol=1e-4, atol=1e-5)


def test_the_first_atoms_are_drawn_as_in_the_official_code() -> None:
    known = dictionary(64, 96)
    assert known.weight.shape == (64, 96)
    assert 0.95 * math.sqrt(6 / 96) < known.weight.abs().max().item() <= math.sqrt(6 / 96)
    assert known.intercept.shape == ()
    drawn_intercepts = [dictionary(1, 1, seed=seed).intercept.item() for seed in range(50)]
    assert -1 <= min(drawn_intercepts) < -0.8 < 0.8 < max(drawn_intercepts) <= 1
    assert dict(known.named_parameters()).keys() == {"weight", "intercept"}


@settings(deadline=None, max_examples=30)
@given(k=st.integers(1, 9), seed=st.integers(0, 1000))
def test_without_ties_exactly_k_similarities_stay_and_they_are_the_largest(k: int, seed: int) -> None:
    known, features = dictionary(3, 9), drawn(2, 3, 2, 2, seed=seed)
    similarities, codes = known.similarities(features), known.codes(features, k)
    assert torch.equal((codes > 0).sum(1), torch.full((2, 2, 2), k))
    assert torch.equal(codes.sort(1, descending=True).values[:, :k], similarities.topk(k, dim=1).values)


def test_ties_may_keep_more_than_k() -> None:
    known = dictionary(1, 5)
    with torch.no_grad():
        known.weight.copy_(torch.tensor([[100.0, 200.0, 300.0, 0.1, 0.2]]))
    codes = known.codes(torch.ones(1, 1), 1)  # three similarities that float32 cannot tell from 1
    assert (codes > 0).sum() == 3
    assert pixel_labels(codes).item() == 0  # the first of them


def test_all_atoms_are_the_similarities_themselves() -> None:
    known, features = dictionary(), drawn(2, 4, 2, 2)
    assert torch.equal(known.codes(features, 7), known.similarities(features))
    torch.testing.assert_close(known.similarities(features), known.pre_similarities(features).sigmoid())


def test_the_gradient_goes_through_the_codes_but_not_through_the_choice() -> None:
    known, features = dictionary(), drawn(2, 4, 2, 2).requires_grad_()
    known.codes(features, 2).sum().backward()
    got = known.weight.grad, known.intercept.grad, features.grad
    with torch.no_grad():
        kept = known.codes(features, 2) > 0
    again = dictionary()
    other = features.detach().clone().requires_grad_()
    (again.similarities(other) * kept).sum().backward()
    for one, expected in zip(got, (again.weight.grad, again.intercept.grad, other.grad), strict=True):
        assert one is not None
        assert expected is not None
        assert one.abs().sum() > 0
        assert torch.equal(one, expected)


def test_the_reconstruction_loss_has_the_gradient_of_its_values_and_leaves_the_teacher_alone() -> None:
    class Loss(torch.nn.Module):
        def __init__(self, known: Dictionary) -> None:
            super().__init__()
            self.known = known

        def forward(self, features: Tensor) -> Tensor:
            return reconstruction_loss(self.known, features, 3)

    loss, features = Loss(dictionary().double()), drawn(2, 4, 2, 2).requires_grad_()

    def of(weight: Tensor, intercept: Tensor) -> Tensor:
        parameters = {"known.weight": weight, "known.intercept": intercept}
        return torch.func.functional_call(loss, parameters, (features,))

    assert torch.autograd.gradcheck(of, tuple(loss.parameters()))
    loss(features).sum().backward()
    assert features.grad is None


def test_a_dictionary_learns_to_give_features_back() -> None:
    known, features = dictionary(8, 32), drawn(64, 8, dtype=torch.float32)
    optimiser = torch.optim.Adam(known.parameters(), lr=0.01)
    first = reconstruction_loss(known, features, 8).mean().item()
    for _ in range(150):
        optimiser.zero_grad()
        loss = reconstruction_loss(known, features, 8).mean()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.5 * first


def test_pooled_features_are_maps_of_one_position() -> None:
    known, pooled = dictionary(), drawn(3, 4)
    maps = pooled[:, :, None, None]
    assert known.codes(pooled, 2).shape == (3, 7, 1, 1)
    assert torch.equal(known.codes(pooled, 2), known.codes(maps, 2))
    assert torch.equal(reconstruction_loss(known, pooled, 2), reconstruction_loss(known, maps, 2))


def test_half_precision_is_computed_in_single() -> None:
    known, features = dictionary(), drawn(2, 4, 3, 3).bfloat16()
    single = features.float()
    g, labels = image_labels(known.codes(single, 2)), pixel_labels(known.codes(single, 2))
    pre = known.pre_similarities(single)
    expected = [
        pre,
        reconstruction_loss(known, single, 2),
        pixel_loss(pre.bfloat16().float(), labels),
        image_loss(known.similarities(single), g),
    ]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = [
            known.pre_similarities(features),
            reconstruction_loss(known, features, 2),
            pixel_loss(pre.bfloat16(), labels),
            image_loss(known.similarities(features), g),
        ]
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)


def test_examples_do_not_see_one_another_nor_the_memory_format() -> None:
    known, features = dictionary(), drawn(4, 4, 3, 3)
    together = reconstruction_loss(known, features, 2)
    for i in range(4):
        torch.testing.assert_close(reconstruction_loss(known, features[i : i + 1], 2), together[i : i + 1])
    last = features.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(known.codes(last, 2), known.codes(features, 2))


def test_features_that_are_no_numbers_are_not_hidden() -> None:
    features = drawn(2, 4, 2, 2)
    features[1, 0, 0, 0] = math.nan
    assert reconstruction_loss(dictionary(), features, 2).isfinite().tolist() == [True, False]


def test_wrong_shapes_of_features_and_codes_are_named() -> None:
    known = dictionary()
    with pytest.raises(ValueError, match=r"reads 4 channels; got features of \(2, 5, 1, 1\)"):
        known.codes(torch.zeros(2, 5, 1, 1), 2)
    with pytest.raises(ValueError, match=r"when pooled; got \(2, 4, 9\)"):
        known.similarities(torch.zeros(2, 4, 9))
    for k in (0, 8):
        with pytest.raises(ValueError, match=f"uses 1 to 7 atoms, as many as there are; got k {k}"):
            known.codes(torch.zeros(2, 4, 1, 1), k)
    with pytest.raises(ValueError, match=r"codes are \(batch, 7, height, width\); got \(2, 6, 1, 1\)"):
        known.decoded(torch.zeros(2, 6, 1, 1))
    with pytest.raises(ValueError, match=r"0\.001 atoms for each of 8 channels are less than one"):
        atoms_of(8, 0.001)
    with pytest.raises(ValueError, match=r"sparsity lies in \(0, 1\]; got 0"):
        sparsity_of(8, atoms=2.0, sparsity=0)


# -------------------------------------------------------------------------------------------------------- labels
def test_labels_are_the_nearest_atom_and_the_mean_code() -> None:
    known, features = dictionary(), drawn(3, 4, 2, 3)
    codes, _, _ = by_hand(known, features, 2)
    got = known.codes(features, 2)
    labels, g = pixel_labels(got), image_labels(got)
    assert labels.shape == (3, 2, 3)
    assert g.shape == (3, 7)
    for b in range(3):
        for i in range(2):
            for j in range(3):
                row = codes[b, :, i, j].tolist()
                assert labels[b, i, j].item() == row.index(max(row))
        for m in range(7):
            assert g[b, m].item() == pytest.approx(sum(codes[b, m].flatten().tolist()) / 6)
    assert not labels.requires_grad
    assert not g.requires_grad
    assert torch.equal(pixel_labels(known.similarities(features)), labels)  # top k does not change them


# ---------------------------------------------------------------------------------------------------- pixel loss
@pytest.mark.parametrize("logits", ["sigmoid", "pre_sigmoid"])
def test_the_pixel_loss_equals_the_sum_written_by_hand(logits: str) -> None:
    pre, labels = drawn(2, 5, 2, 2), torch.tensor([[[0, 1], [2, 3]], [[4, 0], [0, 2]]])
    loss = pixel_loss(pre, labels, logits=logits)  # type: ignore[arg-type]
    for b in range(2):
        total = 0.0
        for i in range(2):
            for j in range(2):
                row = pre[b, :, i, j].tolist()
                if logits == "sigmoid":
                    row = [1 / (1 + math.exp(-z)) for z in row]
                total += math.log(sum(map(math.exp, row))) - row[int(labels[b, i, j])]
        assert loss[b].item() == pytest.approx(total / 4)


# atoms, the least loss that similarities as logits allow, and the loss where all are alike
RANGES = [(256, 4.5519, 5.5452), (512, 5.2417, 6.2383), (2048, 6.6255, 7.6246)]


@pytest.mark.parametrize(("atoms", "floor", "chance"), RANGES)
def test_the_pixel_loss_of_similarities_has_a_floor(atoms: int, floor: float, chance: float) -> None:
    labels = torch.zeros(1, 1, 1, dtype=torch.long)
    perfect = torch.full((1, atoms, 1, 1), -1000.0, dtype=torch.float64)
    perfect[:, 0] = 1000.0
    assert pixel_loss(perfect, labels).item() == pytest.approx(floor, abs=1e-4)
    assert pixel_loss(perfect, labels).item() == pytest.approx(math.log(math.e + atoms - 1) - 1)
    assert pixel_loss(-perfect, labels).item() == pytest.approx(math.log(math.e * (atoms - 1) + 1))
    assert pixel_loss(0 * perfect, labels).item() == pytest.approx(chance, abs=1e-4)
    assert pixel_loss(perfect, labels, logits="pre_sigmoid").item() == 0
    assert pixel_loss(0 * perfect, labels, logits="pre_sigmoid").item() == pytest.approx(math.log(atoms))


def test_three_layers_of_the_paper_lie_between_16_and_19() -> None:
    labels = torch.zeros(1, 1, 1, dtype=torch.long)
    floor = chance = 0.0
    for atoms, _, _ in RANGES:
        perfect = torch.full((1, atoms, 1, 1), -1000.0)
        perfect[:, 0] = 1000.0
        floor += pixel_loss(perfect, labels).item()
        chance += pixel_loss(torch.zeros(1, atoms, 1, 1), labels).item()
    assert floor == pytest.approx(16.42, abs=0.005)
    assert chance == pytest.approx(19.41, abs=0.005)


def test_the_pixel_losses_gradient_is_that_of_its_values() -> None:
    pre, labels = drawn(2, 4, 2, 1).requires_grad_(), torch.tensor([[[0], [3]], [[1], [1]]])
    assert torch.autograd.gradcheck(lambda z: pixel_loss(z, labels), (pre,))
    assert torch.autograd.gradcheck(lambda z: pixel_loss(z, labels, logits="pre_sigmoid"), (pre,))


def test_wrong_arguments_of_the_pixel_loss_are_named() -> None:
    with pytest.raises(ValueError, match="logits is one of sigmoid, pre_sigmoid; got 'softmax'"):
        pixel_loss(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1).long(), logits="softmax")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"the same height and width; got \(1, 2, 4, 4\) and \(1, 2, 2\)"):
        pixel_loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 2).long())


# ---------------------------------------------------------------------------------------------------- image loss
def test_the_image_loss_is_the_usual_binary_cross_entropy_of_the_means() -> None:
    similarities, g = drawn(3, 5, 2, 2).sigmoid(), drawn(3, 5, seed=1).sigmoid()
    loss = image_loss(similarities, g)
    for b in range(3):
        total = 0.0
        for m in range(5):
            p, target = sum(similarities[b, m].flatten().tolist()) / 4, g[b, m].item()
            total -= target * math.log(p) + (1 - target) * math.log(1 - p)
        assert loss[b].item() == pytest.approx(total / 5)
    usual = F.binary_cross_entropy(similarities.mean((2, 3)), g, reduction="none").mean(1)
    torch.testing.assert_close(loss, usual)


def test_the_image_loss_is_least_at_agreement_where_it_is_the_entropy() -> None:
    g = drawn(4, 6).sigmoid()
    agreed = g[:, :, None, None].expand(4, 6, 3, 3).clone().requires_grad_()
    loss = image_loss(agreed, g)
    entropy = -(g * g.log() + (1 - g) * (1 - g).log()).mean(1)
    torch.testing.assert_close(loss, entropy)
    loss.sum().backward()
    assert agreed.grad is not None
    torch.testing.assert_close(agreed.grad, torch.zeros_like(agreed), atol=1e-12, rtol=0)
    for seed in range(5):
        elsewhere = (agreed.detach() + 0.1 * drawn(4, 6, 3, 3, seed=seed)).clamp(0.01, 0.99)
        assert (image_loss(elsewhere, g) > entropy).all()


def test_the_image_losses_gradient_is_that_of_its_values_and_the_labels_get_none() -> None:
    similarities, g = (
        drawn(2, 3, 2, 1).sigmoid().requires_grad_(),
        drawn(2, 3, seed=1).sigmoid().requires_grad_(),
    )
    assert torch.autograd.gradcheck(lambda s: image_loss(s, g.detach()), (similarities,))
    image_loss(similarities, g).sum().backward()
    assert g.grad is None


def test_saturated_similarities_do_no_harm() -> None:
    pre = torch.tensor([[-500.0, 500.0, 0.0]]).view(1, 3, 1, 1).expand(1, 3, 7, 7).clone().requires_grad_()
    for g in ([0.0, 1.0, 0.5], [1.0, 0.0, 0.5]):
        loss = image_loss(pre.sigmoid(), torch.tensor([g]))
        loss.sum().backward()
        assert loss.isfinite().all()
        assert pre.grad is not None
        assert pre.grad.isfinite().all()
    nearly_none = image_loss(pre.sigmoid(), torch.tensor([[0.0, 1.0, 0.5]])).item()
    assert nearly_none == pytest.approx(math.log(2) / 3, rel=1e-5)


def test_similarities_that_are_no_numbers_are_not_hidden() -> None:
    similarities = torch.full((2, 3, 1, 1), 0.5)
    similarities[1, 2] = math.nan
    assert image_loss(similarities, torch.full((2, 3), 0.5)).isfinite().tolist() == [True, False]


def test_the_image_loss_names_wrong_shapes() -> None:
    with pytest.raises(ValueError, match=r"g \(batch, atoms\); got \(2, 3, 1, 1\) and \(2, 4\)"):
        image_loss(torch.zeros(2, 3, 1, 1), torch.zeros(2, 4))
