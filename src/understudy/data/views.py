"""Replayable views: which pixels a sample has in view ``number``, drawn from the view and the sample alone.

Every random number is a hash of (policy-free key of the view, what the number is for, sample index); nothing is
consumed, so no order, batch, process or thread can matter, and a sample of any view can be made again at any
time. Each purpose has numbers of its own: switching the flip on leaves the crops as they were.

The hash is counter-based in the sense of Salmon et al. 2011 ("Parallel random numbers: as easy as 1, 2, 3"): the
64-bit finaliser of SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators",
figure 15 with Stafford's variant 13) is applied twice, keyed both times.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from importlib import metadata
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from understudy.errors import BadInput, MissingExtra, listed, suggestion
from understudy.randomness import stream_seed

DRAWING_VERSION = 1
"""Belongs in every key that holds a view: it rises when the same view would give other pixels than before."""

TRANSFORMS: dict[str, tuple[str, ...]] = {
    "AugMix": ("severity", "mixture_width", "chain_depth", "alpha", "all_ops", "interpolation", "fill"),
    "AutoAugment": ("policy", "interpolation", "fill"),
    "CenterCrop": ("size",),
    "ColorJitter": ("brightness", "contrast", "saturation", "hue"),
    "ElasticTransform": ("alpha", "sigma", "interpolation", "fill"),
    "GaussianBlur": ("kernel_size", "sigma"),
    "Pad": ("padding", "fill", "padding_mode"),
    "RandAugment": ("num_ops", "magnitude", "num_magnitude_bins", "interpolation", "fill"),
    "RandomAdjustSharpness": ("sharpness_factor", "p"),
    "RandomAffine": ("degrees", "translate", "scale", "shear", "interpolation", "fill", "center"),
    "RandomAutocontrast": ("p",),
    "RandomChannelPermutation": (),
    "RandomCrop": ("size", "padding", "pad_if_needed", "fill", "padding_mode"),
    "RandomEqualize": ("p",),
    "RandomGrayscale": ("p",),
    "RandomHorizontalFlip": ("p",),
    "RandomInvert": ("p",),
    "RandomPerspective": ("distortion_scale", "p", "interpolation", "fill"),
    "RandomPhotometricDistort": ("brightness", "contrast", "saturation", "hue", "p"),
    "RandomPosterize": ("bits", "p"),
    "RandomResizedCrop": ("size", "scale", "ratio", "interpolation", "antialias"),
    "RandomRotation": ("degrees", "interpolation", "expand", "center", "fill"),
    "RandomSolarize": ("threshold", "p"),
    "RandomVerticalFlip": ("p",),
    "Resize": ("size", "interpolation", "max_size", "antialias"),
    "TrivialAugmentWide": ("num_magnitude_bins", "interpolation", "fill"),
}
"""The transforms of ``torchvision.transforms.v2`` that a policy may name, with the arguments they take."""


# ------------------------------------------------------------------------------------------------ random numbers
class _Draw(IntEnum):
    """What a random number is for. A number, once given, keeps its meaning: others would change old views."""

    CROP_ROW = 0
    CROP_COLUMN = 1
    FLIP = 2
    ERASE = 3
    ERASE_ROW = 4
    ERASE_COLUMN = 5
    PARTNER = 6
    SHARE = 7
    TRANSFORMS = 8
    ERASE_SIZE = 1000  # and the 2 * _ERASE_TRIES - 1 numbers after it


_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, odd


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser, in place. Arrays only: numpy warns where a uint64 *scalar* wraps around."""
    words ^= words >> np.uint64(30)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words


def random_words(key: int, draws: Sequence[int], index: NDArray[np.int64]) -> NDArray[np.uint64]:
    """64 random bits for each draw and sample: a pure function of (key, draw, sample index).

    ``k = mix(key + gamma * (draw + 1))`` and then ``mix(mix(k + gamma * index) + k)``, all modulo 2**64. The
    second addition keeps the streams of two keys from being shifted copies of one another.

    Args:
        key: of the view, below 2**64.
        draws: what the numbers are for, ``(draws,)``.
        index: ``(batch,)`` sample indices, not negative.

    Returns:
        ``(draws, batch)``.

    >>> together = random_words(1, [0, 1], np.arange(5))
    >>> bool((together[1, 3:4] == random_words(1, [1], np.array([3]))).all())
    True
    """
    keys = np.asarray(draws, dtype=np.uint64) + np.uint64(1)
    keys *= _GOLDEN_GAMMA
    keys += np.uint64(key)
    keys = _mixed(keys)[:, None]
    words = _mixed(index.astype(np.uint64) * _GOLDEN_GAMMA + keys)
    words += keys
    return _mixed(words)


def _uniform(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Uniform in [0, 1), from the upper 53 bits."""
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _below(words: NDArray[np.uint64], bound: int | NDArray[np.int64]) -> NDArray[np.int64]:
    """Whole numbers in 0 .. bound - 1 (bound at most 2**32), from the upper 32 bits; biased by bound / 2**32."""
    scaled = (words >> np.uint64(32)) * np.asarray(bound, dtype=np.uint64)
    return (scaled >> np.uint64(32)).astype(np.int64)


# -------------------------------------------------------------------------------------------------------- policy
def _plain(value: object, where: str) -> Any:
    """``value`` as JSON has it, in one canonical form (lists, and 1 for 1.0), so that equal settings have one key."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)) and math.isfinite(value):
        return int(value) if float(value).is_integer() else float(value)
    if isinstance(value, (list, tuple)):
        return [_plain(entry, where) for entry in value]
    raise BadInput(
        f"{where} is {value!r}: only text, finite numbers, true, false, null and lists of them can be written "
        "into a recipe (interpolations are given by name, such as 'bilinear')."
    )


class Transform(Mapping[str, Any]):
    """One checked transform of a policy: reads like the mapping it was made from, frozen and hashable.

    >>> Transform({"name": "ColorJitter", "hue": 0.1})["hue"]
    0.1
    """

    __slots__ = ("_text",)

    def __init__(self, given: Mapping[str, Any], where: str = "transform") -> None:
        if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
            raise BadInput(
                f"{where} is {given!r}: a transform is a mapping with a name and its arguments, "
                "such as {name: RandomResizedCrop, size: 224}."
            )
        name = given["name"]
        if name not in TRANSFORMS:
            raise BadInput(
                f"{where} is named {name!r}, which is not one of the transforms that can be used: "
                f"{listed(TRANSFORMS)}.{suggestion(name, TRANSFORMS)}"
            )
        for argument in given:
            if argument != "name" and argument not in TRANSFORMS[name]:
                raise BadInput(
                    f"{where}: {name} takes no {argument!r}; it takes {listed(TRANSFORMS[name])}."
                    f"{suggestion(str(argument), TRANSFORMS[name])}"
                )
        content = {key: _plain(value, f"{where}: {name}'s {key}") for key, value in given.items()}
        self._text = json.dumps(content, sort_keys=True)

    def definition(self) -> dict[str, Any]:
        """The plain mapping, sorted by key."""
        content: dict[str, Any] = json.loads(self._text)
        return content

    def __getitem__(self, key: str) -> Any:
        return self.definition()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.definition())

    def __len__(self) -> int:
        return len(self.definition())

    def __eq__(self, other: object) -> bool:
        # by text among transforms, because True == 1 in Python and not in a recipe
        return self._text == other._text if isinstance(other, Transform) else super().__eq__(other)

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return repr(self.definition())


def _whole(value: object, name: str, meaning: str, *, most: float = math.inf) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value <= most:
        upwards = "from 0 up" if most == math.inf else f"from 0 to {most}"
        raise BadInput(f"{name} is {value!r}: it must be a whole number {upwards} ({meaning}).")
    return int(value)


def _real(value: object, name: str, meaning: str, *, most: float = math.inf) -> float:
    good = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not good or not (math.isfinite(value) and 0 <= value <= most):  # type: ignore[arg-type, operator]
        upwards = "from 0 up" if most == math.inf else f"from 0 to {most:g}"
        raise BadInput(f"{name} is {value!r}: it must be a number {upwards} ({meaning}).")
    return float(value)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class ViewPolicy:
    """What is done to images, in this order: transforms, crop, flip, erase, mixup. Nothing unless asked for.

    Args:
        crop: pixels of black added on each side, after which a random window of the original size is taken
            (He et al. 2016, arXiv:1512.03385, section 4.2, has 4 at 32x32).
        flip: mirror left and right with probability 1/2.
        erase: probability of covering one random rectangle of 2 to 33 % of the area, height/width 0.3 to 3.3,
            with ``fill`` (Zhong et al. 2020, arXiv:1708.04896, Algorithm 1, which goes up to 40 % and covers
            with random values). Where the drawn size does not fit, the size alone is drawn again, 100 times at
            most, and then the corner among the places where it fits; Algorithm 1 draws the corner again too,
            which makes large rectangles rarer.
        fill: the value, 0 to 255, of erased pixels in every channel; matters only with ``erase``.
        mixup: alpha of the Beta(alpha, alpha) share that a sample keeps when it is mixed with a partner (Zhang et
            al. 2018, arXiv:1710.09412, section 2). The partner is drawn from the whole split and not from the
            batch as there, so that it replays; it may be unlabelled, or the sample itself. 0 mixes nothing.
        transforms: mappings of a ``name`` in ``TRANSFORMS`` and its arguments, applied in order to one uint8
            image at a time. They need torchvision, and another release of it may give other pixels.

    Raises:
        BadInput: a value is outside its range, or a transform or one of its arguments is not known.
    """

    crop: int = 0
    flip: bool = False
    erase: float = 0.0
    fill: int = 0
    mixup: float = 0.0
    transforms: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        put("crop", _whole(self.crop, "crop", "pixels added on each side before a random window is taken"))
        if not isinstance(self.flip, (bool, np.bool_)):
            raise BadInput(f"flip is {self.flip!r}: it must be true or false.")
        put("flip", bool(self.flip))
        put("erase", _real(self.erase, "erase", "the probability that a rectangle is covered", most=1))
        put("fill", _whole(self.fill, "fill", "the value of erased pixels", most=255))
        put("mixup", _real(self.mixup, "mixup", "alpha of the Beta distribution of shares, 0 for no mixing"))
        if isinstance(self.transforms, (str, Mapping)) or not isinstance(self.transforms, Sequence):
            raise BadInput(
                f"transforms is {self.transforms!r}: it must be a list of mappings, "
                "such as [{name: RandomResizedCrop, size: 224}]."
            )
        put("transforms", tuple(Transform(t, f"transforms[{i}]") for i, t in enumerate(self.transforms)))
        if self.transforms:
            # planning and reading need no torchvision; without it the values are checked where the view is made
            with contextlib.suppress(MissingExtra):
                _made_transforms(self.transforms)

    def definition(self) -> dict[str, Any]:
        """What decides the pixels, as plain JSON: equal policies give equal mappings.

        What is at its default, or without effect, is left out: a setting that is added later changes no old key.

        >>> ViewPolicy(crop=4, flip=True).definition()
        {'crop': 4, 'flip': True}
        """
        definition: dict[str, Any] = {}
        if self.crop:
            definition["crop"] = self.crop
        if self.flip:
            definition["flip"] = True
        if self.erase:
            definition["erase"] = self.erase
            if self.fill:
                definition["fill"] = self.fill
        if self.mixup:
            definition["mixup"] = self.mixup
        if self.transforms:
            definition["transforms"] = [Transform(transform).definition() for transform in self.transforms]
        return definition

    def check_fits(self, *, height: int, width: int) -> None:
        """Raises BadInput if windows of images of this size (after the transforms) could miss them altogether."""
        if self.crop >= min(height, width):
            raise BadInput(
                f"crop is {self.crop}, but the images have {height}x{width} pixels (height x width), so a window "
                f"could miss the image: crop can be at most {min(height, width) - 1} here."
            )


@dataclass(frozen=True, kw_only=True)
class View:
    """One way to see a whole split.

    Args:
        policy: what is done to the images.
        seed: any whole number; two seeds have nothing in common.
        number: which pass over the split, from 0 (epochs or full-set equivalents of samples seen).
        copy: which of several independent looks in the same pass, from 0.

    Raises:
        BadInput: ``number`` or ``copy`` is negative, or one of the three is not a whole number.
    """

    policy: ViewPolicy
    seed: int
    number: int
    copy: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, (int, np.integer)):
            raise BadInput(f"the seed of a view is {self.seed!r}: it must be a whole number.")
        object.__setattr__(self, "seed", int(self.seed))
        object.__setattr__(
            self, "number", _whole(self.number, "the number of a view", "the pass over the data")
        )
        object.__setattr__(self, "copy", _whole(self.copy, "the copy of a view", "looks within one pass"))


PLAIN = View(policy=ViewPolicy(), seed=0, number=0)
"""The view without augmentation: the pixels as they are kept."""


@dataclass(frozen=True, kw_only=True)
class Views:
    """Which view each pass over the training images shows.

    Args:
        policy: what is done to the images.
        seed: of the views; apart from the seeds of training, so that these see the same views and share what
            teachers said of them.
        distinct: so many different views at most, in turn; None: every pass shows another. It holds for stages that
            have teachers, because it is their work that it bounds; others see a new view in every pass.
        per_seed: every seed of training has views of its own, and shares nothing.

    Raises:
        BadInput: ``distinct`` is not a whole number from 1 up, or ``per_seed`` is not true or false.
    """

    policy: ViewPolicy = field(default_factory=ViewPolicy)
    seed: int = 0
    distinct: int | None = None
    per_seed: bool = False

    def __post_init__(self) -> None:
        if self.distinct is not None and (
            isinstance(self.distinct, bool) or not isinstance(self.distinct, int) or self.distinct < 1
        ):
            raise BadInput(
                f"distinct is {self.distinct!r}: it must be a whole number from 1 up (how many different views there "
                "are), or null for a new view in every epoch."
            )
        if not isinstance(self.per_seed, bool):
            raise BadInput(f"per_seed is {self.per_seed!r}: it must be true or false.")

    def of_stage(self, *, taught: bool, epochs: int, seed: int) -> Views:
        """The views of one stage: ``per_seed`` has become a seed, and ``distinct`` is there only where it matters."""
        distinct = self.distinct if taught and self.policy.definition() else None
        if distinct is not None and distinct >= epochs:
            distinct = None
        own = stream_seed(self.seed, "views", seed) if self.per_seed else self.seed
        return Views(policy=self.policy, seed=own, distinct=distinct)

    def at(self, epoch: int, copy: int = 0) -> View:
        """The view that pass ``epoch``, from 0, shows; the plain one where nothing is done to the images."""
        if not self.policy.definition():
            return PLAIN
        number = epoch if self.distinct is None else epoch % self.distinct
        return View(policy=self.policy, seed=self.seed, number=number, copy=copy)

    def definition(self) -> dict[str, Any]:
        """What decides the pixels of all passes, as plain JSON; empty where nothing is done to the images."""
        if not self.policy.definition():
            return {}  # one view, whatever its seed
        said = {"policy": self.policy.definition(), "seed": self.seed, "drawing": DRAWING_VERSION}
        if self.policy.transforms:  # another release of torchvision may draw other pixels
            said["torchvision"] = metadata.version("torchvision")
        return said if self.distinct is None else {**said, "distinct": self.distinct}


def _key(view: View) -> int:
    # the policy stays out: it must matter in what it uses only
    return stream_seed(view.seed, "view", view.number, view.copy)


# -------------------------------------------------------------------------------------------------------- pixels
def apply_view(view: View, index: NDArray[np.int64], images: Tensor) -> Tensor:
    """Everything that a view does to single images: transforms, crop, flip and erase, but not the mixing.

    Args:
        index: ``(batch,)`` positions in the split, which decide what is drawn.
        images: ``(batch, height, width, channels)`` uint8 on any device; not written to.

    Returns:
        The same layout, type and device; ``images`` itself where the policy leaves them alone. Height and width
        are others only where a transform changes them.

    Raises:
        BadInput: ``crop`` is too large for the images, or a transform did not give images of one size.
        MissingExtra: there are transforms and torchvision is not installed.
    """
    policy, key = view.policy, _key(view)
    if policy.transforms:
        images = _transformed(policy.transforms, key, index, images)
    policy.check_fits(height=images.shape[1], width=images.shape[2])
    if policy.crop or policy.flip:
        images = _cropped_and_flipped(policy, key, index, images)
    if policy.erase:
        images = _erased(policy, key, index, images)
    return images


def _beside(images: Tensor, drawn: NDArray[Any]) -> Tensor:
    """What was drawn, on the device of the images. A GPU is not waited for: pageable memory is taken at once."""
    return torch.from_numpy(drawn).to(images.device, non_blocking=True)


def _cropped_and_flipped(policy: ViewPolicy, key: int, index: NDArray[np.int64], images: Tensor) -> Tensor:
    # One gather of whole pixels does both. At 32x32x3, batch 128, one thread, it was faster than windows of an
    # as_strided view followed by a flip with `where` (by 1.8) and than slicing image by image in numpy (by 1.3).
    batch, height, width, channels = images.shape
    words = random_words(key, (_Draw.CROP_ROW, _Draw.CROP_COLUMN, _Draw.FLIP), index)
    columns = np.arange(width)
    if policy.flip:
        mirrored = (words[2] >> np.uint64(63)).astype(bool)
        columns = np.where(mirrored[:, None], columns[::-1], columns)
    else:
        columns = np.broadcast_to(columns, (batch, width))
    rows = np.broadcast_to(np.arange(height), (batch, height))
    if policy.crop:
        images = F.pad(images, (0, 0, policy.crop, policy.crop, policy.crop, policy.crop))
        rows = rows + _below(words[0], 2 * policy.crop + 1)[:, None]
        columns = columns + _below(words[1], 2 * policy.crop + 1)[:, None]
    rows = rows + (np.arange(batch) * images.shape[1])[:, None]
    row_starts = _beside(images, rows * images.shape[2])
    offsets = _beside(images, np.ascontiguousarray(columns))
    pixels = (row_starts[:, :, None] + offsets[:, None, :]).view(-1)
    return images.reshape(-1, channels).index_select(0, pixels).view(batch, height, width, channels)


_ERASE_TRIES = 100


def _erased(policy: ViewPolicy, key: int, index: NDArray[np.int64], images: Tensor) -> Tensor:
    _, height, width, channels = images.shape
    words = random_words(key, (_Draw.ERASE, _Draw.ERASE_ROW, _Draw.ERASE_COLUMN), index)
    # Only +, *, / and sqrt, which IEEE 754 rounds one way: no processor draws another rectangle.
    tall, wide = np.zeros_like(index), np.zeros_like(index)  # zero: nothing is covered
    pending = np.flatnonzero(_uniform(words[0]) < policy.erase)
    for attempt in range(_ERASE_TRIES):
        if not pending.size:
            break
        first = _Draw.ERASE_SIZE + 2 * attempt
        area, aspect = _uniform(random_words(key, (first, first + 1), index[pending]))
        area = (0.02 + 0.31 * area) * (height * width)
        aspect = 0.3 + 3.0 * aspect
        drawn_tall = np.maximum(np.rint(np.sqrt(area * aspect)), 1).astype(np.int64)
        drawn_wide = np.maximum(np.rint(np.sqrt(area / aspect)), 1).astype(np.int64)
        fits = (drawn_tall <= height) & (drawn_wide <= width)
        tall[pending[fits]], wide[pending[fits]] = drawn_tall[fits], drawn_wide[fits]
        pending = pending[~fits]
    top, left = _below(words[1], height - tall + 1), _below(words[2], width - wide + 1)
    rows = np.arange(height)
    columns = np.repeat(np.arange(width), channels)  # a row of pixels as flat bytes
    in_rows = (rows >= top[:, None]) & (rows < (top + tall)[:, None])
    in_columns = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
    # bits of bytes: masked_fill and where take several times as long on uint8
    covered = _beside(images, in_rows * np.uint8(255))[:, :, None]
    covered = covered & _beside(images, in_columns * np.uint8(255))[:, None, :]
    kept = images.reshape(covered.shape) & ~covered
    return (kept | (covered & policy.fill) if policy.fill else kept).view(images.shape)


def draw_mixing(
    view: View, index: NDArray[np.int64], *, samples: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """With whom each sample is mixed and how much of itself it keeps.

    Args:
        index: ``(batch,)`` positions in the split.
        samples: in the whole split, from which partners are drawn.

    Returns:
        ``(batch,)`` positions of the partners, and ``(batch,)`` shares in [0, 1] of the samples themselves. The
        last bit of a share depends on scipy's release.
    """
    from scipy.special import betaincinv  # comes with scikit-learn

    words = random_words(_key(view), (_Draw.PARTNER, _Draw.SHARE), index)
    alpha = view.policy.mixup
    share = np.asarray(betaincinv(alpha, alpha, _uniform(words[1])), dtype=np.float32)
    return _below(words[0], samples), share


def mix(images: Tensor, partners: Tensor, share: NDArray[np.float32]) -> Tensor:
    """``share * images + (1 - share) * partners``, float32 in 0 .. 255.

    Args:
        images: ``(batch, height, width, channels)`` uint8.
        partners: the same.
        share: ``(batch,)``.
    """
    weight = _beside(images, share)[:, None, None, None]
    mixed, rest = images.float(), partners.float()
    # Written so that 0 .. 255 cannot be left by rounding, and in single steps: a fused multiply-add, which lerp
    # has in its vector part only, would give a sample other bits at another place in the batch.
    return mixed.sub_(rest).mul_(weight).add_(rest)


# --------------------------------------------------------------------------------------------------- torchvision
@lru_cache(maxsize=16)
def _made_transforms(transforms: tuple[Transform, ...]) -> tuple[Any, ...]:
    try:
        from torchvision.transforms import v2
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] == "torchvision":
            raise MissingExtra("torchvision transforms", "vision") from None
        raise
    except (RuntimeError, ImportError, OSError, AttributeError) as error:
        raise BadInput(
            f"torchvision is installed but does not load beside torch {torch.__version__} ({_first_line(error)}): "
            'their builds do not match; install the pair that belongs together: pip install "understudy[vision]".'
        ) from error
    made = []
    for transform in transforms:
        arguments = transform.definition()
        name = arguments.pop("name")
        assert name in TRANSFORMS  # the only names that may reach getattr
        try:
            if isinstance(arguments.get("interpolation"), str):
                arguments["interpolation"] = v2.InterpolationMode(arguments["interpolation"])
            if name == "AutoAugment" and "policy" in arguments:
                arguments["policy"] = v2.AutoAugmentPolicy(arguments["policy"])
            made.append(getattr(v2, name)(**arguments))
        except (TypeError, ValueError) as error:
            raise BadInput(
                f"torchvision's {name} cannot be made with {arguments}: {_first_line(error)}. It takes "
                f"{listed(TRANSFORMS[name])}."
            ) from error
    return tuple(made)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _transformed(
    transforms: tuple[Mapping[str, Any], ...], key: int, index: NDArray[np.int64], images: Tensor
) -> Tensor:
    if images.device.type != "cpu":
        raise BadInput(
            f"transforms act on images in main memory, not on {images.device}: on a GPU their random numbers could "
            "not be replayed. Leave them out (crop, flip, erase and mixup work there) or keep the images on the CPU."
        )
    made = _made_transforms(tuple(Transform(transform) for transform in transforms))
    seeds = (random_words(key, (_Draw.TRANSFORMS,), index)[0] >> np.uint64(1)).tolist()
    channels = images.shape[3]
    results: list[Tensor] = []
    # torch's global generator is the only one these transforms draw from. It is set for each image and put back;
    # torch.manual_seed would set those of the GPUs as well, and nothing would put them back.
    with torch.random.fork_rng(devices=[]):
        for sample, seed, image in zip(index.tolist(), seeds, images, strict=True):
            torch.default_generator.manual_seed(seed)
            result = image.permute(2, 0, 1)
            for given, transform in zip(transforms, made, strict=True):
                try:
                    result = transform(result)
                except (RuntimeError, TypeError, ValueError) as error:
                    raise BadInput(
                        f"torchvision's {given['name']} cannot be applied to sample {sample}, {_size(result)} and "
                        f"{result.shape[0]} channels: {_first_line(error)}. Change its arguments or leave it out."
                    ) from error
            if result.dtype != torch.uint8 or result.ndim != 3 or result.shape[0] != channels:
                raise BadInput(
                    f"the transforms made {tuple(result.shape)} {result.dtype} of sample {sample}, where "
                    f"({channels}, height, width) torch.uint8 must come out: leave out the one that changes channels "
                    "or type; models normalise by themselves."
                )
            if results and result.shape != results[0].shape:
                raise BadInput(
                    f"the transforms made {_size(result)} of sample {sample} and {_size(results[0])} of sample "
                    f"{index[0]}, but a batch needs one size: end with one that fixes it, such as "
                    "{name: CenterCrop, size: 224}."
                )
            results.append(result)
    return torch.stack(results).permute(0, 2, 3, 1).contiguous()


def _size(image: Tensor) -> str:
    return f"{image.shape[1]}x{image.shape[2]} pixels"
