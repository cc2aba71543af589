from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from understudy.errors import BadInput
from understudy.tasks import calibration
from understudy.tasks.calibration import entropy_of_targets, expected_calibration_error, reliability


def drawn(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def drawn_labels(samples: int, classes: int, *, seed: int = 0) -> Tensor:
    return torch.randint(classes, (samples,), generator=torch.Generator().manual_seed(seed))


def sure_by(confidences: list[float]) -> Tensor:
    """Logits of two classes that answer 0 with these probabilities, 0.5 or more."""
    return torch.tensor([[math.log(p), math.log1p(-p)] for p in confidences], dtype=torch.float64)


def softened(logits: list[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp((logit - max(logits)) / temperature) for logit in logits]
    return [power / math.fsum(powers) for power in powers]


def by_hand(logits: Tensor, labels: Tensor, bins: int) -> tuple[list[int], list[float], list[float], float]:
    """Guo et al. 2017, section 2, with lists: counts, mean confidences, accuracies, and their Eq. 3."""
    members: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        probabilities = softened(row)
        confidence = max(probabilities)
        place = next(m for m in range(bins) if m / bins < confidence <= (m + 1) / bins or m == bins - 1)
        members[place].append((confidence, row.index(max(row)) == label))
    counts = [len(member) for member in members]
    confidences = [sum(p for p, _ in member) / len(member) if member else math.nan for member in members]
    accuracies = [
        sum(right for _, right in member) / len(member) if member else math.nan for member in members
    ]
    gaps = [
        count / len(labels) * abs(accuracy - confidence)
        for count, confidence, accuracy in zip(counts, confidences, accuracies, strict=True)
        if count
    ]
    return counts, confidences, accuracies, math.fsum(gaps)


@settings(deadline=None, max_examples=50)
@given(
    samples=st.integers(1, 40),
    classes=st.integers(1, 6),
    bins=st.integers(1, 20),
    seed=st.integers(0, 10_000),
    scale=st.sampled_from([0.0, 0.3, 2.0, 30.0]),
)
def test_equals_the_definition_written_by_hand(
    samples: int, classes: int, bins: int, seed: int, scale: float
) -> None:
    logits = drawn(samples, classes, seed=seed, scale=scale).double()
    if scale == 0.0:
        logits += (
            0.25  # equal logits, whose confidence of 1 / classes may fall on an edge, where rounding decides
        )
        bins = 7
    labels = drawn_labels(samples, classes, seed=seed + 1)
    counts, confidences, accuracies, error = by_hand(logits, labels, bins)
    diagram = reliability(logits, labels, bins=bins)
    assert diagram.count.tolist() == counts
    assert diagram.confidence.tolist() == pytest.approx(confidences, nan_ok=True)
    assert diagram.accuracy.tolist() == pytest.approx(accuracies, nan_ok=True)
    assert expected_calibration_error(logits, labels, bins=bins) == pytest.approx(error, abs=1e-12)


def test_a_diagram_that_a_pencil_can_draw() -> None:
    # five bins: 0.55 in (0.4, 0.6]; 0.7 and 0.75 in (0.6, 0.8]; 0.9, 0.95, 1 - 1e-9 in (0.8, 1]
    logits = sure_by([0.55, 0.7, 0.75, 0.9, 0.95, 1 - 1e-9])
    labels = torch.tensor([1, 0, 1, 0, 0, 1])
    diagram = reliability(logits, labels, bins=5)
    assert diagram.count.tolist() == [0, 0, 1, 2, 3]
    assert diagram.confidence[:2].isnan().all()
    assert diagram.accuracy[:2].isnan().all()
    assert diagram.confidence[2:].tolist() == pytest.approx([0.55, 0.725, 2.85 / 3])
    assert diagram.accuracy[2:].tolist() == pytest.approx([0.0, 0.5, 2 / 3])
    # 1/6 * 0.55 + 2/6 * 0.225 + 3/6 * (0.95 - 0.66667) = (0.55 + 0.45 + 0.85) / 6
    assert expected_calibration_error(logits, labels, bins=5) == pytest.approx(1.85 / 6)


def test_bins_are_closed_on_the_right() -> None:
    # two equal logits are a confidence of exactly 0.5, four of 0.25
    assert reliability(torch.zeros(1, 2), torch.tensor([0]), bins=2).count.tolist() == [1, 0]
    assert reliability(torch.zeros(1, 2), torch.tensor([0]), bins=4).count.tolist() == [0, 1, 0, 0]
    assert reliability(torch.zeros(1, 4), torch.tensor([0]), bins=4).count.tolist() == [1, 0, 0, 0]


def test_fifteen_bins_unless_asked() -> None:
    # 0.61 and right, 0.69 and wrong: ten bins would put both in (0.6, 0.7], fifteen have an edge at 0.667
    logits, labels = sure_by([0.61, 0.69]), torch.tensor([0, 1])
    assert len(reliability(logits, labels).count) == 15
    assert expected_calibration_error(logits, labels) == pytest.approx((0.39 + 0.69) / 2)
    assert expected_calibration_error(logits, labels, bins=10) == pytest.approx(0.65 - 0.5)


def test_someone_sure_and_right_has_no_error_and_someone_sure_and_wrong_all_of_it() -> None:
    labels = torch.tensor([0, 1, 2, 1])
    sure = 1000 * torch.nn.functional.one_hot(labels, 3).float()
    assert expected_calibration_error(sure, labels) == 0.0
    assert expected_calibration_error(sure, (labels + 1) % 3) == 1.0


def test_someone_who_guesses_and_says_so_has_no_error() -> None:
    # always class 0 at confidence 1/4, right one time in four
    assert expected_calibration_error(torch.zeros(8, 4), torch.arange(8) % 4) == pytest.approx(0.0, abs=1e-15)


def test_with_one_bin_it_is_the_gap_of_the_means() -> None:
    logits, labels = drawn(500, 5, scale=2.0), drawn_labels(500, 5)
    confidence = logits.double().softmax(-1).amax(-1).mean()
    accuracy = (logits.argmax(-1) == labels).double().mean()
    error = expected_calibration_error(logits, labels, bins=1)
    assert error == pytest.approx(abs(accuracy - confidence).item())


def test_labels_drawn_from_the_answers_are_calibrated() -> None:
    logits = drawn(200_000, 3, scale=1.5)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=torch.Generator().manual_seed(1)).flatten()
    assert expected_calibration_error(logits, labels) < 0.01
    # twice as sure, and right as often
    assert expected_calibration_error(2 * logits, labels) > 0.05


@settings(deadline=None, max_examples=30)
@given(samples=st.integers(1, 60), bins=st.integers(1, 30), seed=st.integers(0, 10_000), data=st.data())
def test_it_is_a_fraction_that_sees_neither_the_order_of_samples_nor_a_shift_of_their_logits(
    samples: int, bins: int, seed: int, data: st.DataObject
) -> None:
    logits, labels = drawn(samples, 4, seed=seed, scale=3.0).double(), drawn_labels(samples, 4, seed=seed)
    order = torch.tensor(data.draw(st.permutations(range(samples))))
    error = expected_calibration_error(logits, labels, bins=bins)
    assert 0 <= error <= 1
    shifted = logits[order] + drawn(samples, 1, seed=seed + 1)
    assert expected_calibration_error(shifted, labels[order], bins=bins) == pytest.approx(error, abs=1e-12)
    # and finer bins do not hide what one wide bin shows
    assert error >= expected_calibration_error(logits, labels, bins=1) - 1e-12


def test_many_samples_are_softened_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = drawn(100, 7, scale=2.0), drawn_labels(100, 7)
    whole = expected_calibration_error(logits, labels), entropy_of_targets(logits, 2.0)
    monkeypatch.setattr(calibration, "ROWS", 9)
    assert expected_calibration_error(logits, labels) == whole[0]
    assert torch.equal(entropy_of_targets(logits, 2.0), whole[1])


def test_half_precision_logits_are_taken_as_the_numbers_they_are() -> None:
    logits, labels = drawn(300, 5, scale=4.0).half(), drawn_labels(300, 5)
    exact = expected_calibration_error(logits.double(), labels)
    assert expected_calibration_error(logits, labels) == exact
    assert torch.equal(entropy_of_targets(logits, 3.0), entropy_of_targets(logits.double(), 3.0))


def test_logits_with_a_gradient_are_measured_all_the_same() -> None:
    logits, labels = drawn(20, 3).requires_grad_(), drawn_labels(20, 3)
    assert not reliability(logits, labels).confidence.requires_grad
    assert not entropy_of_targets(logits, 1.0).requires_grad


@pytest.mark.parametrize("measure", [reliability, expected_calibration_error])
def test_what_cannot_be_calibrated_is_refused(measure: object) -> None:
    assert callable(measure)
    with pytest.raises(BadInput, match=r"one or more samples; got logits \(0, 3\)"):
        measure(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(BadInput, match=r"labels \(samples,\); got \(4, 3\) and \(5,\)"):
        measure(torch.zeros(4, 3), torch.zeros(5, dtype=torch.int64))
    with pytest.raises(BadInput, match=r"logits \(samples, classes\) .* got \(4,\) and \(4,\)"):
        measure(torch.zeros(4), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(
        BadInput, match=r"3 classes are in 0\.\.2; got -1\.\.2\. Leave unlabelled samples out"
    ):
        measure(torch.zeros(2, 3), torch.tensor([-1, 2]))
    with pytest.raises(BadInput, match=r"3 classes are in 0\.\.2; got 0\.\.3"):
        measure(torch.zeros(2, 3), torch.tensor([0, 3]))
    with pytest.raises(BadInput, match="one bin or more; got bins 0"):
        measure(torch.zeros(2, 3), torch.tensor([0, 1]), bins=0)
    for bad in (math.nan, math.inf):
        with pytest.raises(BadInput, match="logits of sample 1 have no softmax"):
            measure(torch.tensor([[0.0, 1.0], [0.0, bad]]), torch.tensor([0, 1]))


def test_a_class_ruled_out_by_minus_infinity_does_no_harm() -> None:
    logits = torch.tensor([[0.0, 0.0, -math.inf]])
    assert expected_calibration_error(logits, torch.tensor([0])) == pytest.approx(0.5)
    assert entropy_of_targets(logits, 4.0).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_entropy_by_hand(temperature: float) -> None:
    # softened probabilities 3/4 and 1/4 at every temperature: 3/4 log(4/3) + 1/4 log 4 = log 4 - 3/4 log 3
    logits = torch.tensor([[temperature * math.log(3), 0.0]], dtype=torch.float64)
    assert entropy_of_targets(logits, temperature).item() == pytest.approx(math.log(4) - 0.75 * math.log(3))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("classes", [1, 2, 10, 100])
def test_entropy_equals_the_sum_written_by_hand(temperature: float, classes: int) -> None:
    logits = drawn(6, classes, scale=3.0).double()
    expected = [
        -math.fsum(p * math.log(p) for p in softened(row, temperature) if p > 0) for row in logits.tolist()
    ]
    entropy = entropy_of_targets(logits, temperature)
    assert entropy.shape == (6,)
    assert entropy.dtype == torch.float64
    assert entropy.tolist() == pytest.approx(expected, abs=1e-12)


rows = st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=8)


@settings(deadline=None)
@given(row=rows, temperature=st.floats(0.1, 50), warmer=st.floats(1, 10))
def test_entropy_lies_between_one_class_and_all_of_them_and_grows_with_temperature(
    row: list[float], temperature: float, warmer: float
) -> None:
    logits = torch.tensor([row])
    entropy = entropy_of_targets(logits, temperature).item()
    assert 0 <= entropy <= math.log(len(row)) + 1e-12
    assert entropy_of_targets(logits, temperature * warmer).item() >= entropy - 1e-12
    assert entropy_of_targets(logits + 3.0, temperature).item() == pytest.approx(entropy, abs=1e-4)
    assert entropy_of_targets(logits.flip(-1), temperature).item() == pytest.approx(entropy, abs=1e-12)
    both = entropy_of_targets(torch.cat([logits.double() * 7, logits.double() * warmer]), 7 * warmer)
    assert both[0].item() == pytest.approx(entropy_of_targets(logits, warmer).item(), abs=1e-9)


def test_entropy_in_the_limits_of_temperature() -> None:
    logits = drawn(10, 6)
    torch.testing.assert_close(
        entropy_of_targets(logits, 1e6), torch.full((10,), math.log(6), dtype=torch.float64)
    )
    assert entropy_of_targets(logits, 1e-4).max() < 1e-6
    assert len(entropy_of_targets(torch.zeros(0, 6), 1.0)) == 0


def test_entropy_of_what_are_no_targets_is_refused() -> None:
    with pytest.raises(BadInput, match=r"logits \(samples, classes\); got \(4,\)"):
        entropy_of_targets(torch.zeros(4), 1.0)
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(BadInput, match=f"temperature is positive; got {temperature}"):
            entropy_of_targets(torch.zeros(4, 2), temperature)
