from __future__ import annotations

import copy
import hashlib
import json
import pickle
import random
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from understudy import processes
from understudy.data import views
from understudy.data.views import (
    PLAIN,
    TRANSFORMS,
    Transform,
    View,
    ViewPolicy,
    Views,
    apply_view,
    draw_mixing,
    mix,
    random_words,
)
from understudy.errors import BadInput, MissingExtra

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
RICH = ViewPolicy(crop=2, flip=True, erase=0.5, fill=9)


def images_of(samples: int, height: int = 8, width: int = 8, channels: int = 3) -> Tensor:
    draws = np.random.default_rng(0).integers(1, 256, (samples, height, width, channels), dtype=np.uint8)
    return torch.from_numpy(draws)


def view_of(policy: ViewPolicy, *, seed: int = 0, number: int = 0, copy: int = 0) -> View:
    return View(policy=policy, seed=seed, number=number, copy=copy)


def shown(view: View, index: NDArray[np.int64], images: Tensor) -> Tensor:
    return apply_view(view, index, images[torch.from_numpy(index)])


def chi_square(counts: NDArray[np.int64]) -> float:
    return float(stats.chisquare(counts.ravel()).pvalue)


# ------------------------------------------------------------------------------------------------ random numbers
def test_the_finaliser_is_that_of_splitmix64() -> None:
    # the first outputs of SplitMix64 from state 0: the finaliser of one, two and three gammas
    gammas = np.arange(1, 4, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    known = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert views._mixed(gammas).tolist() == known


def test_words_follow_their_definition_in_plain_whole_numbers() -> None:
    def mixed(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    gamma, key, draws, index = 0x9E3779B97F4A7C15, 2**63 - 5, [0, 7, 1199], [0, 1, 49_999, 2**40]
    for row, draw in zip(random_words(key, draws, np.array(index)).tolist(), draws, strict=True):
        k = mixed((key + gamma * (draw + 1)) % 2**64)
        assert row == [mixed((mixed((k + gamma * i) % 2**64) + k) % 2**64) for i in index]


@given(key=st.integers(0, 2**63 - 1), index=st.lists(st.integers(0, 2**40), min_size=1, max_size=20))
def test_a_word_depends_on_its_own_key_draw_and_sample_only(key: int, index: list[int]) -> None:
    together = random_words(key, [0, 5], np.array(index))
    alone = [[int(random_words(key, [d], np.array([i]))[0, 0]) for i in index] for d in (0, 5)]
    assert together.tolist() == alone


def test_every_bit_is_set_half_the_time() -> None:
    words = random_words(1, [0], np.arange(100_000))[0]
    share = np.array([((words >> np.uint64(bit)) & np.uint64(1)).mean() for bit in range(64)])
    assert (np.abs(share - 0.5) < 4.5 * 0.5 / np.sqrt(len(words))).all()


def test_words_of_one_view_and_draw_never_repeat() -> None:
    assert len(np.unique(random_words(3, [2], np.arange(200_000))[0])) == 200_000


def along(what: str, steps: int) -> NDArray[np.uint64]:
    """(steps, 512) words: neighbours in the first axis differ by one in ``what`` and in nothing else."""
    index = np.arange(512) * 1000

    def key(**changes: int) -> int:
        return views._key(view_of(ViewPolicy(), **changes))

    if what == "sample":
        return np.stack([random_words(key(), [0], index + step)[0] for step in range(steps)])
    if what == "draw":
        return random_words(key(), range(steps), index)
    return np.stack([random_words(key(**{what: step}), [0], index)[0] for step in range(steps)])


@pytest.mark.parametrize("what", ["sample", "draw", "number", "copy", "seed"])
def test_numbers_are_uniform_and_independent_of_their_neighbours(what: str) -> None:
    words = along(what, 101)
    high, low = (words >> np.uint64(60)).astype(int), (words & np.uint64(15)).astype(int)
    for part in (high, low):
        assert chi_square(np.bincount(part.ravel(), minlength=16)) > 1e-3
        pairs = part[:-1] * 16 + part[1:]
        assert chi_square(np.bincount(pairs.ravel(), minlength=256)) > 1e-3
    assert stats.kstest(views._uniform(words).ravel(), "uniform").pvalue > 1e-3
    correlation = np.corrcoef(views._uniform(words)[:-1].ravel(), views._uniform(words)[1:].ravel())[0, 1]
    assert abs(correlation) < 4.5 / np.sqrt(100 * 512)


def test_whole_numbers_below_a_bound_reach_all_and_nothing_else() -> None:
    extremes = np.array([0, 2**64 - 1], dtype=np.uint64)
    assert views._below(extremes, 9).tolist() == [0, 8]
    assert views._below(extremes, 1).tolist() == [0, 0]
    assert views._below(extremes, 2**32).tolist() == [0, 2**32 - 1]
    assert views._uniform(extremes)[0] == 0
    assert views._uniform(extremes)[1] < 1


def test_the_drawing_version_stands_for_these_words() -> None:
    # Kept outputs of teachers are found by keys that hold this version: whoever changes what is drawn raises it.
    assert views.DRAWING_VERSION == 1
    key = views._key(view_of(RICH, seed=5, number=3, copy=1))
    assert key == 8483787559915874275
    assert random_words(key, [0, 1000], np.array([0, 49_999])).tolist() == [
        [9788248687422760047, 16676843784109922778],
        [791877814296464954, 10180600847171848349],
    ]
    ramp = torch.arange(6 * 4 * 4 * 3).reshape(6, 4, 4, 3).to(torch.uint8)
    seen = apply_view(view_of(RICH, seed=5, number=3), np.arange(6), ramp).numpy().tobytes()
    assert hashlib.sha256(seen).hexdigest().startswith("fd3639f0f8541c92c9ae8d45")
    assert {draw.name: int(draw) for draw in views._Draw} == {
        "CROP_ROW": 0,
        "CROP_COLUMN": 1,
        "FLIP": 2,
        "ERASE": 3,
        "ERASE_ROW": 4,
        "ERASE_COLUMN": 5,
        "PARTNER": 6,
        "SHARE": 7,
        "TRANSFORMS": 8,
        "ERASE_SIZE": 1000,
    }


# ------------------------------------------------------------------------------------------------ crop and flip
def test_every_window_of_a_tiny_image_is_seen_and_no_other() -> None:
    # [[1, 2], [3, 4]] with one pixel of black around it has these nine windows, and their mirror images
    windows = ["00/01", "00/12", "00/20", "01/03", "12/34", "20/40", "03/00", "34/00", "40/00"]
    mirrored = [f"{window[1]}{window[0]}/{window[4]}{window[3]}" for window in windows]
    samples = 36_000
    image = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8).reshape(1, 2, 2, 1).expand(samples, 2, 2, 1)
    for policy, possible in [
        (ViewPolicy(crop=1), windows),
        (ViewPolicy(crop=1, flip=True), windows + mirrored),
        (ViewPolicy(flip=True), ["12/34", "21/43"]),
    ]:
        seen = apply_view(view_of(policy), np.arange(samples), image).reshape(samples, 4).tolist()
        texts = ["{}{}/{}{}".format(*pixels) for pixels in seen]
        assert set(texts) == set(possible)
        assert chi_square(np.array([texts.count(text) for text in possible])) > 1e-3


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.sampled_from([1, 2, 3, 4]),
    samples=st.integers(1, 6),
    crop=st.integers(0, 8),
    flip=st.booleans(),
    seed=st.integers(-(2**70), 2**70),
)
def test_crops_and_flips_are_those_of_a_loop_over_slices(
    height: int, width: int, channels: int, samples: int, crop: int, flip: bool, seed: int
) -> None:
    crop = min(crop, min(height, width) - 1)
    images = images_of(samples, height, width, channels)
    view = view_of(ViewPolicy(crop=crop, flip=flip), seed=seed)
    index = np.arange(samples) * 7
    got = apply_view(view, index, images).numpy()
    assert got.shape == (samples, height, width, channels)
    assert got.dtype == np.uint8
    words = random_words(views._key(view), [0, 1, 2], index).tolist()
    padded = np.pad(images.numpy(), ((0, 0), (crop, crop), (crop, crop), (0, 0)))
    for i in range(samples):
        top, left = ((words[k][i] >> 32) * (2 * crop + 1) >> 32 for k in (0, 1))
        window = padded[i, top : top + height, left : left + width]
        mirrored = flip and words[2][i] >> 63
        np.testing.assert_array_equal(got[i], window[:, ::-1] if mirrored else window)


def test_switching_the_flip_on_leaves_the_crops() -> None:
    images, index = images_of(200), np.arange(200)
    cropped = apply_view(view_of(ViewPolicy(crop=2)), index, images)
    both = apply_view(view_of(ViewPolicy(crop=2, flip=True)), index, images)
    flips = apply_view(view_of(ViewPolicy(flip=True)), index, images)
    mirrored = (flips != images).flatten(1).any(dim=1)
    assert 70 < int(mirrored.sum()) < 130
    assert torch.equal(both[~mirrored], cropped[~mirrored])
    assert torch.equal(both[mirrored], cropped[mirrored].flip(2))


def test_switching_the_erasing_or_the_mixing_on_leaves_the_rest() -> None:
    images, index = images_of(200), np.arange(200)
    before = apply_view(view_of(ViewPolicy(crop=2, flip=True)), index, images)
    after = apply_view(view_of(ViewPolicy(crop=2, flip=True, erase=1.0, mixup=0.3)), index, images)
    covered = (after != before).any(dim=3)
    assert torch.equal(after[~covered], before[~covered])
    assert (after[covered] == 0).all()


# ---------------------------------------------------------------------------------------------------- erasing
def covered_rectangles(policy: ViewPolicy, *, samples: int, height: int, width: int) -> NDArray[np.bool_]:
    white = torch.full((samples, height, width, 3), 255, dtype=torch.uint8)
    seen = apply_view(view_of(policy), np.arange(samples), white)
    assert (white == 255).all()
    assert (seen.amin(dim=3) == seen.amax(dim=3)).all()
    covered: NDArray[np.bool_] = (seen[..., 0] == policy.fill).numpy()
    assert (seen[..., 0].numpy()[~covered] == 255).all()
    return covered


def test_what_is_erased_is_one_rectangle_of_the_stated_size_and_shape() -> None:
    covered = covered_rectangles(ViewPolicy(erase=1.0, fill=7), samples=3000, height=64, width=64)
    rows, columns = np.asarray(covered.any(axis=2)), np.asarray(covered.any(axis=1))
    tall, wide = rows.sum(axis=1), columns.sum(axis=1)
    assert (covered == rows[:, :, None] & columns[:, None, :]).all()
    for line in (rows, columns):  # without gaps: it begins once at most
        assert (np.diff(line.astype(int), axis=1, prepend=0) == 1).sum(axis=1).max() == 1
    area, aspect = tall * wide / 64**2, tall / wide
    assert 0.015 < area.min() < 0.03
    assert 0.31 < area.max() < 0.345
    assert 0.25 < aspect.min() < 0.35
    assert 3.0 < aspect.max() < 3.8
    assert stats.kstest((area - 0.02) / 0.31, "uniform").statistic < 0.04
    # corners reach every side
    assert rows[:, 0].any()
    assert rows[:, -1].any()
    assert columns[:, 0].any()
    assert columns[:, -1].any()


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_as_many_samples_are_erased_as_asked(probability: float) -> None:
    covered = covered_rectangles(ViewPolicy(erase=probability), samples=4000, height=16, width=16)
    assert abs(covered.any(axis=(1, 2)).mean() - probability) < 0.03


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (3, 50)])
def test_images_into_which_few_rectangles_fit_are_erased_or_left_alone(height: int, width: int) -> None:
    covered = covered_rectangles(ViewPolicy(erase=1.0), samples=50, height=height, width=width)
    assert covered.any()


# ----------------------------------------------------------------------------------------------------- replaying
def test_the_plain_view_gives_the_very_pixels() -> None:
    images = images_of(5)
    assert apply_view(PLAIN, np.arange(5), images) is images
    assert apply_view(view_of(ViewPolicy(), seed=8, number=3, copy=1), np.arange(5), images) is images


@settings(max_examples=30, deadline=None)
@given(index=st.lists(st.integers(0, 39), min_size=1, max_size=30), number=st.integers(0, 5))
def test_a_sample_looks_the_same_alone_in_any_batch_and_in_any_order(index: list[int], number: int) -> None:
    images = images_of(40)
    view = view_of(RICH, number=number)
    whole = shown(view, np.arange(40), images)
    got = shown(view, np.array(index), images)
    assert torch.equal(got, whole[index])
    for position in index[:3]:
        assert torch.equal(shown(view, np.array([position]), images), whole[position : position + 1])


@pytest.mark.parametrize("device", DEVICES)
def test_a_view_is_the_same_on_every_device_and_images_are_not_written_to(device: str) -> None:
    images = images_of(20)
    given_images = images.to(device, copy=True)
    seen = apply_view(view_of(RICH), np.arange(20), given_images)
    assert seen.device.type == device
    assert torch.equal(seen.cpu(), apply_view(view_of(RICH), np.arange(20), images))
    assert torch.equal(given_images.cpu(), images)


def test_images_need_not_be_contiguous() -> None:
    images = images_of(6)
    strided = images.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert not strided.is_contiguous()
    assert torch.equal(
        apply_view(view_of(RICH), np.arange(6), strided), apply_view(view_of(RICH), np.arange(6), images)
    )


def seen_bytes(view: View, index: list[int]) -> bytes:
    return shown(view, np.array(index), images_of(40)).numpy().tobytes()


def test_another_process_makes_the_same_view() -> None:
    view, index = view_of(RICH, seed=3, number=2), [7, 3, 39, 3]
    with ProcessPoolExecutor(1, mp_context=processes.context()) as pool:
        assert pool.submit(seen_bytes, view, index).result() == seen_bytes(view, index)


@pytest.mark.parametrize("change", [{"seed": 1}, {"number": 1}, {"copy": 1}])
def test_seeds_numbers_and_copies_show_something_else(change: dict[str, int]) -> None:
    images, index = images_of(100), np.arange(100)
    one = apply_view(view_of(ViewPolicy(crop=2, flip=True)), index, images)
    other = apply_view(view_of(ViewPolicy(crop=2, flip=True), **change), index, images)
    same = (one == other).flatten(1).all(dim=1).float().mean()
    assert same < 0.1  # two draws from 5 x 5 windows and a flip agree in 1 of 50


def test_no_global_random_numbers_are_used_or_changed() -> None:
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    view = view_of(ViewPolicy(crop=2, flip=True, erase=0.5, mixup=0.4))
    before = apply_view(view, np.arange(9), images_of(9))
    draw_mixing(view, np.arange(9), samples=9)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert str(numpy_state) == str(np.random.get_state())
    assert python_state == random.getstate()
    torch.manual_seed(77)
    try:
        assert torch.equal(apply_view(view, np.arange(9), images_of(9)), before)
    finally:
        torch.set_rng_state(torch_state)


# -------------------------------------------------------------------------------------------------------- mixing
def test_partners_are_drawn_from_the_whole_split_and_by_sample() -> None:
    view = view_of(ViewPolicy(mixup=0.4), seed=1, number=2)
    partners, share = draw_mixing(view, np.arange(20_000), samples=50)
    assert chi_square(np.bincount(partners, minlength=50)) > 1e-3
    some = np.array([17, 3, 19_999, 17])
    partners_of_some, share_of_some = draw_mixing(view, some, samples=50)
    np.testing.assert_array_equal(partners_of_some, partners[some])
    np.testing.assert_array_equal(share_of_some, share[some])


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_follow_the_beta_distribution(alpha: float) -> None:
    _, share = draw_mixing(view_of(ViewPolicy(mixup=alpha)), np.arange(5000), samples=10)
    assert share.dtype == np.float32
    assert stats.kstest(share, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [1e-300, 1e-3, 1e6, 1e300])
def test_extreme_alphas_give_shares_between_none_and_all(alpha: float) -> None:
    _, share = draw_mixing(view_of(ViewPolicy(mixup=alpha)), np.arange(1000), samples=10)
    assert ((share >= 0) & (share <= 1)).all()
    assert 0.4 < share.mean() < 0.6


def test_mixing_is_the_weighted_mean_and_stays_within_its_two_images() -> None:
    images, partners = images_of(64), images_of(64).flip(0)
    share = np.linspace(0, 1, 64, dtype=np.float32)
    mixed = mix(images, partners, share)
    weight = torch.from_numpy(share).double()[:, None, None, None]
    torch.testing.assert_close(
        mixed.double(), weight * images + (1 - weight) * partners, atol=1e-4, rtol=0, check_dtype=False
    )
    assert mixed.dtype == torch.float32
    assert (mixed >= torch.minimum(images, partners)).all()
    assert (mixed <= torch.maximum(images, partners)).all()
    assert torch.equal(mixed[0], partners[0].float())
    assert torch.equal(mixed[-1], images[-1].float())


# -------------------------------------------------------------------------------------------------------- policy
@pytest.mark.parametrize(
    ("given_values", "message"),
    [
        ({"crop": -1}, r"crop is -1: it must be a whole number from 0 up \(pixels added on each side"),
        ({"crop": 2.5}, "crop is 2.5"),
        ({"crop": True}, "crop is True"),
        ({"flip": 1}, "flip is 1: it must be true or false"),
        ({"flip": "yes"}, "flip is 'yes'"),
        ({"erase": 1.5}, r"erase is 1.5: it must be a number from 0 to 1 \(the probability"),
        ({"erase": -0.1}, "erase is -0.1"),
        ({"erase": float("nan")}, "erase is nan"),
        ({"erase": "half"}, "erase is 'half'"),
        ({"fill": 256}, "fill is 256: it must be a whole number from 0 to 255"),
        ({"mixup": -1}, r"mixup is -1: it must be a number from 0 up \(alpha"),
        ({"mixup": float("nan")}, "mixup is nan"),
        ({"mixup": float("inf")}, "mixup is inf"),
        ({"mixup": None}, "mixup is None"),
        ({"transforms": {"name": "Resize"}}, "transforms is {'name': 'Resize'}: it must be a list"),
        ({"transforms": "Resize"}, "transforms is 'Resize': it must be a list"),
        ({"transforms": ["Resize"]}, r"transforms\[0\] is 'Resize': a transform is a mapping with a name"),
        (
            {"transforms": [{"size": 3}]},
            r"transforms\[0\] is {'size': 3}: a transform is a mapping with a name",
        ),
        (
            {"transforms": [{"name": "RandomResizeCrop"}]},
            "transforms.0. is named 'RandomResizeCrop', which .* Did you mean 'RandomResizedCrop'",
        ),
        ({"transforms": [{"name": "Lambda"}]}, "transforms.0. is named 'Lambda'"),
        ({"transforms": [{"name": "__class__"}]}, "transforms.0. is named '__class__'"),
        (
            {"transforms": [{"name": "RandomGrayscale", "p": 1}, {"name": "ColorJitter", "brightnes": 1}]},
            "transforms.1.: ColorJitter takes no 'brightnes'; it takes .* Did you mean 'brightness'",
        ),
        (
            {"transforms": [{"name": "Resize", "size": object()}]},
            "transforms.0.: Resize's size is <object .*only text",
        ),
        ({"transforms": [{"name": "Resize", "size": float("nan")}]}, "Resize's size is nan"),
    ],
)
def test_a_wrong_policy_is_refused_in_one_line(given_values: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        ViewPolicy(**given_values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given_values", "message"),
    [
        ({"seed": 0.5, "number": 0}, "the seed of a view is 0.5"),
        ({"seed": 0, "number": -1}, "the number of a view is -1: it must be a whole number from 0 up"),
        ({"seed": 0, "number": 0, "copy": -2}, "the copy of a view is -2"),
    ],
)
def test_a_wrong_view_is_refused(given_values: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        View(policy=ViewPolicy(), **given_values)


def test_a_crop_that_could_miss_the_image_is_refused_when_applied() -> None:
    message = r"crop is 8, but the images have 9x8 pixels \(height x width\).* at most 7 here"
    with pytest.raises(BadInput, match=message):
        apply_view(view_of(ViewPolicy(crop=8)), np.arange(2), images_of(2, 9, 8))
    ViewPolicy(crop=7).check_fits(height=9, width=8)


def test_numbers_of_numpy_are_taken_like_plain_ones() -> None:
    policy = ViewPolicy(crop=np.int64(2), flip=np.bool_(True), erase=np.float32(0.5), mixup=1)  # type: ignore[arg-type]
    assert policy == ViewPolicy(crop=2, flip=True, erase=0.5, mixup=1.0)
    assert json.dumps(policy.definition()) == '{"crop": 2, "flip": true, "erase": 0.5, "mixup": 1.0}'
    assert view_of(policy, seed=np.int64(3)) == view_of(policy, seed=3)  # type: ignore[arg-type]


def test_what_is_not_used_is_not_in_the_definition() -> None:
    assert ViewPolicy().definition() == {}
    assert PLAIN.policy == ViewPolicy()
    assert ViewPolicy(fill=3).definition() == {}
    assert ViewPolicy(erase=0.5, fill=3).definition() == {"erase": 0.5, "fill": 3}
    assert ViewPolicy(crop=4, flip=True).definition() == {"crop": 4, "flip": True}


@pytest.fixture
def no_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the extra is not installed, so that names can be tested without loading it."""
    views._made_transforms.cache_clear()
    for name in list(sys.modules):
        if name.partition(".")[0] == "torchvision":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchvision", None)


@pytest.mark.usefixtures("no_torchvision")
def test_equal_policies_have_one_definition_one_hash_and_survive_pickling() -> None:
    listed = ViewPolicy(transforms=[{"size": [32.0, 32], "name": "Resize"}])  # type: ignore[arg-type]
    policy = ViewPolicy(transforms=({"name": "Resize", "size": (32, 32)},))
    assert policy == listed
    assert hash(policy) == hash(listed)
    assert json.dumps(policy.definition()) == json.dumps(listed.definition())
    assert policy.definition() == {"transforms": [{"name": "Resize", "size": [32, 32]}]}
    assert ViewPolicy(**policy.definition()) == policy
    assert policy.transforms[0]["size"] == [32, 32]
    assert dict(policy.transforms[0]) == {"name": "Resize", "size": [32, 32]}
    for again in (pickle.loads(pickle.dumps(policy)), copy.deepcopy(policy)):  # noqa: S301
        assert again == policy
    with pytest.raises(TypeError):
        policy.transforms[0]["size"] = 3  # type: ignore[index]
    assert ViewPolicy(transforms=({"name": "Resize", "size": 32},)) != policy


@pytest.mark.usefixtures("no_torchvision")
def test_later_changes_to_what_was_given_do_not_reach_the_policy() -> None:
    size = [8, 8]
    given_transforms = [{"name": "Resize", "size": size}]
    policy = ViewPolicy(transforms=given_transforms)  # type: ignore[arg-type]
    size[0] = 9
    given_transforms.clear()
    policy.definition()["transforms"].clear()
    assert policy.definition() == {"transforms": [{"name": "Resize", "size": [8, 8]}]}


def test_true_and_one_are_different_arguments() -> None:
    true, one = (
        Transform({"name": "Resize", "antialias": True}),
        Transform({"name": "Resize", "antialias": 1}),
    )
    assert true != one
    assert true == {"name": "Resize", "antialias": True}


@pytest.mark.usefixtures("no_torchvision")
def test_without_torchvision_a_policy_can_be_planned_but_not_applied() -> None:
    policy = ViewPolicy(transforms=({"name": "RandomGrayscale"},))
    with pytest.raises(
        MissingExtra, match=r'torchvision transforms needs .* pip install "understudy\[vision\]"'
    ):
        apply_view(view_of(policy), np.arange(2), images_of(2))


def test_a_torchvision_that_does_not_load_is_explained(tmp_path: Path) -> None:
    broken = tmp_path / "torchvision"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    program = (
        "from understudy.data.views import ViewPolicy\n"
        "from understudy.errors import BadInput\n"
        "try:\n"
        "    ViewPolicy(transforms=({'name': 'RandomGrayscale'},))\n"
        "except BadInput as error:\n"
        "    print(error)\n"
    )
    paths = [str(tmp_path), *sys.path]
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {paths!r}\n{program}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "torchvision is installed but does not load beside torch" in ran.stdout
    assert "(operator torchvision::nms does not exist): their builds do not match" in ran.stdout
    assert ran.stdout.count("\n") == 1


def test_transforms_refuse_images_that_are_not_in_main_memory() -> None:
    policy = ViewPolicy(transforms=({"name": "RandomGrayscale"},))
    with pytest.raises(BadInput, match="transforms act on images in main memory, not on meta"):
        apply_view(view_of(policy), np.arange(2), images_of(2).to("meta"))


# -------------------------------------------------------------------------------------- with torchvision installed
STRONG = (
    {"name": "RandomResizedCrop", "size": [6, 5], "interpolation": "bilinear"},
    {"name": "RandAugment", "num_ops": 2},
    {"name": "ColorJitter", "brightness": 0.4, "hue": [-0.1, 0.1]},
    {"name": "RandomHorizontalFlip"},
)


def test_the_list_of_transforms_is_what_torchvision_takes() -> None:
    import inspect

    v2 = pytest.importorskip("torchvision.transforms.v2")
    for name, arguments in TRANSFORMS.items():
        takes = inspect.signature(getattr(v2, name).__init__).parameters
        assert set(arguments) <= set(takes), name


def test_transforms_replay_alone_in_a_batch_and_in_any_order() -> None:
    pytest.importorskip("torchvision")
    images = images_of(12)
    view = view_of(ViewPolicy(transforms=STRONG, crop=1, erase=0.5), number=1)
    whole = shown(view, np.arange(12), images)
    assert whole.shape == (12, 6, 5, 3)
    assert whole.dtype == torch.uint8
    assert whole.is_contiguous()
    order = np.array([5, 0, 5, 11])
    assert torch.equal(shown(view, order, images), whole[order])
    for position in range(12):
        assert torch.equal(shown(view, np.array([position]), images)[0], whole[position])
    other = view_of(view.policy, number=2)
    assert not torch.equal(shown(other, np.arange(12), images), whole)


def test_transforms_make_the_same_view_in_another_process() -> None:
    pytest.importorskip("torchvision")
    view, index = view_of(ViewPolicy(transforms=STRONG)), [7, 3, 39, 3]
    with ProcessPoolExecutor(1, mp_context=processes.context()) as pool:
        assert pool.submit(seen_bytes, view, index).result() == seen_bytes(view, index)


def test_transforms_leave_the_global_random_numbers_alone() -> None:
    pytest.importorskip("torchvision")
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    shown(view_of(ViewPolicy(transforms=STRONG)), np.arange(5), images_of(5))
    assert torch.equal(torch_state, torch.get_rng_state())
    assert str(numpy_state) == str(np.random.get_state())
    assert python_state == random.getstate()


def test_the_crop_is_checked_against_what_the_transforms_return() -> None:
    pytest.importorskip("torchvision")
    policy = ViewPolicy(crop=3, transforms=({"name": "Resize", "size": [3, 3]},))
    with pytest.raises(BadInput, match="crop is 3, but the images have 3x3 pixels"):
        apply_view(view_of(policy), np.arange(2), images_of(2))


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ({"name": "RandomGrayscale", "p": "often"}, "torchvision's RandomGrayscale cannot be made with"),
        (
            {"name": "Resize", "size": 8, "interpolation": "blurry"},
            "'blurry' is not a valid InterpolationMode",
        ),
        ({"name": "RandomRotation"}, "torchvision's RandomRotation cannot be made with {}: .*degrees"),
    ],
)
def test_arguments_that_torchvision_refuses_are_refused_with_the_policy(
    transform: dict[str, Any], message: str
) -> None:
    pytest.importorskip("torchvision")
    with pytest.raises(BadInput, match=message) as caught:
        ViewPolicy(transforms=(transform,))
    assert "\n" not in str(caught.value)


def test_transforms_whose_results_differ_in_size_are_refused() -> None:
    pytest.importorskip("torchvision")
    policy = ViewPolicy(transforms=({"name": "RandomRotation", "degrees": 90, "expand": True},))
    with pytest.raises(BadInput, match=r"the transforms made \d+x\d+ pixels of sample \d+ and .*one size"):
        apply_view(view_of(policy), np.arange(8), images_of(8))


def test_a_transform_that_cannot_take_the_image_is_named() -> None:
    pytest.importorskip("torchvision")
    policy = ViewPolicy(
        transforms=({"name": "Resize", "size": [8, 8]}, {"name": "GaussianBlur", "kernel_size": 31})
    )
    with pytest.raises(
        BadInput, match="GaussianBlur cannot be applied to sample 3, 8x8 pixels and 3 channels"
    ):
        apply_view(view_of(policy), np.array([3]), images_of(1))


def test_a_transform_that_changes_the_type_is_refused() -> None:
    pytest.importorskip("torchvision")
    torch_state = torch.get_rng_state()
    policy = ViewPolicy(transforms=({"name": "RandomGrayscale"},))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views, "_made_transforms", lambda transforms: (lambda image: image.float(),))
        with pytest.raises(
            BadInput, match=r"the transforms made \(3, 8, 8\) torch.float32 of sample 0, where \(3"
        ):
            apply_view(view_of(policy), np.arange(2), images_of(2))
    assert torch.equal(torch_state, torch.get_rng_state())


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_every_listed_transform_gives_images_that_replay(name: str) -> None:
    pytest.importorskip("torchvision")
    needed: dict[str, dict[str, Any]] = {
        "AutoAugment": {"policy": "cifar10"},
        "CenterCrop": {"size": 6},
        "ColorJitter": {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.2},
        "ElasticTransform": {"alpha": 5, "sigma": 1},
        "GaussianBlur": {"kernel_size": 3},
        "Pad": {"padding": 1},
        "RandomAdjustSharpness": {"sharpness_factor": 2},
        "RandomAffine": {"degrees": 20, "translate": [0.1, 0.1]},
        "RandomCrop": {"size": 6},
        "RandomPosterize": {"bits": 3},
        "RandomResizedCrop": {"size": [6, 6]},
        "RandomRotation": {"degrees": 30},
        "RandomSolarize": {"threshold": 128},
        "Resize": {"size": [12, 12]},
    }
    images = images_of(6)
    view = view_of(ViewPolicy(transforms=({"name": name, **needed.get(name, {})},)))
    whole = shown(view, np.arange(6), images)
    assert torch.equal(shown(view, np.array([4]), images)[0], whole[4])
    assert torch.equal(images, images_of(6))


# --- which view an epoch shows ----------------------------------------------------------------------------------


def test_every_epoch_shows_another_view_unless_they_are_bounded() -> None:
    views = Views(policy=ViewPolicy(flip=True), seed=4)
    assert [views.at(epoch).number for epoch in range(5)] == [0, 1, 2, 3, 4]
    assert [replace(views, distinct=2).at(epoch).number for epoch in range(5)] == [0, 1, 0, 1, 0]
    assert views.at(3, copy=1) == View(policy=views.policy, seed=4, number=3, copy=1)


def test_images_that_are_left_alone_have_one_view() -> None:
    assert {Views(seed=seed).at(epoch, copy) for seed in (0, 1) for epoch in (0, 7) for copy in (0, 1)} == {
        PLAIN
    }
    assert Views(seed=3, distinct=2).definition() == {}


def test_a_bound_on_views_is_for_those_who_have_teachers() -> None:
    views = Views(policy=ViewPolicy(flip=True), distinct=3)
    assert views.of_stage(taught=True, epochs=9, seed=0).distinct == 3
    assert views.of_stage(taught=False, epochs=9, seed=0).distinct is None
    assert views.of_stage(taught=True, epochs=3, seed=0).distinct is None  # as many as there are


def test_views_of_a_seed_of_its_own_depend_on_both_seeds() -> None:
    def seed(of_views: int, of_training: int) -> int:
        views = Views(policy=ViewPolicy(flip=True), seed=of_views, per_seed=True)
        return views.of_stage(taught=True, epochs=9, seed=of_training).seed

    assert len({seed(a, b) for a in range(3) for b in range(3)}) == 9
    assert seed(1, 2) == seed(1, 2)


@pytest.mark.parametrize("distinct", [0, -1, 1.5, True, "4"])
def test_a_number_of_views_that_is_none_is_refused(distinct: Any) -> None:
    with pytest.raises(BadInput, match=r"distinct is .*: it must be a whole number from 1 up"):
        Views(distinct=distinct)


def test_whether_seeds_have_views_of_their_own_is_yes_or_no() -> None:
    with pytest.raises(BadInput, match="per_seed is 1: it must be true or false"):
        Views(per_seed=1)  # type: ignore[arg-type]
