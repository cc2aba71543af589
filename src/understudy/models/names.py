"""The names of networks, checked without importing torch (so that a recipe is read in no time)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from understudy.errors import BadInput, listed, suggestion

PLAIN_CNN = range(2, 11)
PLAIN_CNN_NARROW = (2, 4, 6, 8, 10)
RESNET = (8, 14, 20, 26, 32, 44, 56, 110)
WIDE_RESNET_DEPTHS = range(10, 101, 6)
WIDE_RESNET_FACTORS = range(1, 21)
VGG = (8, 11, 13, 16)
DENSENET = (121,)
DENSENET_BC_DEPTHS = (40, 100)
DENSENET_BC_GROWTHS = (12,)
BOTTLENECK_RESNET = (20, 56, 110, 164)
OKD_WRN_DEPTHS = (20,)
OKD_WRN_FACTORS = (8,)
OKD_VGG = (16,)

ELSEWHERE = ("timm", "torchvision")


@dataclass(frozen=True, kw_only=True)
class Family:
    """How a family's names are written: one tuple of possible whole numbers for each number in the name."""

    numbers: tuple[Iterable[int], ...]
    possible: str


FAMILIES: dict[str, Family] = {
    "plain_cnn": Family(numbers=(PLAIN_CNN,), possible="plain_cnn-2 to plain_cnn-10"),
    "plain_cnn_narrow": Family(
        numbers=(PLAIN_CNN_NARROW,), possible=listed(f"plain_cnn_narrow-{size}" for size in PLAIN_CNN_NARROW)
    ),
    "resnet": Family(numbers=(RESNET,), possible=listed(f"resnet-{depth}" for depth in RESNET)),
    "wrn": Family(
        numbers=(WIDE_RESNET_DEPTHS, WIDE_RESNET_FACTORS),
        possible="wrn-DEPTH-FACTOR with DEPTH 10, 16, 22, 28, 34, 40, … 100 (6n + 4) and FACTOR 1 to 20",
    ),
    "vgg": Family(numbers=(VGG,), possible=listed(f"vgg-{depth}" for depth in VGG)),
    "mobilenet_v2": Family(numbers=(), possible="mobilenet_v2, whose size is set by width"),
    "allcnn": Family(numbers=(), possible="allcnn, whose size is set by width"),
    "densenet": Family(numbers=(DENSENET,), possible=listed(f"densenet-{depth}" for depth in DENSENET)),
    "densenet_bc": Family(
        numbers=(DENSENET_BC_DEPTHS, DENSENET_BC_GROWTHS),
        possible=listed(f"densenet_bc-{depth}-12" for depth in DENSENET_BC_DEPTHS),
    ),
    "bottleneck_resnet": Family(
        numbers=(BOTTLENECK_RESNET,),
        possible=listed(f"bottleneck_resnet-{depth}" for depth in BOTTLENECK_RESNET),
    ),
    "okd_wrn": Family(numbers=(OKD_WRN_DEPTHS, OKD_WRN_FACTORS), possible="okd_wrn-20-8"),
    "okd_vgg": Family(numbers=(OKD_VGG,), possible=listed(f"okd_vgg-{depth}" for depth in OKD_VGG)),
}

_POSSIBLE = (
    "Possible: plain_cnn-2 to -10, plain_cnn_narrow-2/4/6/8/10, resnet-8/14/20/26/32/44/56/110, "
    "wrn-16-2 and its like, vgg-8/11/13/16, mobilenet_v2, allcnn, densenet-121, "
    "densenet_bc-40-12, densenet_bc-100-12, bottleneck_resnet-20/56/110/164, okd_wrn-20-8, okd_vgg-16, "
    "timm/NAME, torchvision/NAME"
)


@dataclass(frozen=True, kw_only=True)
class NetworkName:
    """A name taken apart: ``wrn-40-2`` is family ``wrn`` with numbers ``(40, 2)``."""

    family: str
    numbers: tuple[int, ...] = ()
    elsewhere: str = ""  # what follows `timm/` or `torchvision/`


def parse_name(name: str) -> NetworkName:
    """Takes a network's name apart; for ``timm/…`` and ``torchvision/…`` only the part before the slash is checked.

    Raises:
        BadInput: no such family, or the family has no network of that size.

    >>> parse_name("wrn-40-2")
    NetworkName(family='wrn', numbers=(40, 2), elsewhere='')
    >>> parse_name("plain_cnn-11")
    Traceback (most recent call last):
    understudy.errors.BadInput: there is no plain_cnn-11. Possible: plain_cnn-2 to plain_cnn-10
    """
    if not isinstance(name, str):
        raise BadInput(f"a model is named by text such as plain_cnn-10, got {name!r}. {_POSSIBLE}")
    source, slash, rest = name.partition("/")
    if slash:
        if source not in ELSEWHERE or not rest:
            raise BadInput(
                f"there is no model {name!r}: before a slash stands timm or torchvision, as in timm/resnet18"
            )
        return NetworkName(family=source, elsewhere=rest)
    stem, *texts = name.split("-")
    family = FAMILIES.get(stem)
    if family is None:
        raise BadInput(f"there is no model {name!r}.{_nearest(name)} {_POSSIBLE}")
    # a leading zero would give one network two names, and its results two keys
    whole = all(re.fullmatch(r"0|[1-9][0-9]{0,5}", text) for text in texts)
    numbers = tuple(int(text) for text in texts) if whole else ()
    fits = len(numbers) == len(family.numbers) and all(
        number in possible for number, possible in zip(numbers, family.numbers, strict=True)
    )
    if not fits:
        raise BadInput(f"there is no {name}. Possible: {family.possible}")
    return NetworkName(family=stem, numbers=numbers)


def check_name(name: str) -> None:
    """Says at once whether ``name`` can be built; imports timm or torchvision only for a name that is theirs.

    Raises:
        BadInput: unknown name, with the nearest known one.
        MissingExtra: a timm or torchvision name where that package is not installed.
    """
    parsed = parse_name(name)
    if parsed.family in ELSEWHERE:
        from understudy.models.published import check_elsewhere

        check_elsewhere(parsed.family, parsed.elsewhere)


def is_built_in(name: str) -> bool:
    """Whether ``name`` is one of understudy's own networks."""
    try:
        return parse_name(name).family in FAMILIES
    except BadInput:
        return False


def built_in_names() -> list[str]:
    """Every built-in network by name, smallest first within a family; of the wide ResNets those that papers use."""
    return [
        *(f"plain_cnn-{size}" for size in PLAIN_CNN),
        *(f"plain_cnn_narrow-{size}" for size in PLAIN_CNN_NARROW),
        *(f"resnet-{depth}" for depth in RESNET),
        *(f"wrn-{depth}-{factor}" for depth in range(10, 41, 6) for factor in (1, 2, 4, 8, 10)),
        *(f"vgg-{depth}" for depth in VGG),
        "mobilenet_v2",
        "allcnn",
        *(f"densenet-{depth}" for depth in DENSENET),
        *(f"densenet_bc-{depth}-{growth}" for depth in DENSENET_BC_DEPTHS for growth in DENSENET_BC_GROWTHS),
        *(f"bottleneck_resnet-{depth}" for depth in BOTTLENECK_RESNET),
        *(f"okd_wrn-{depth}-{factor}" for depth in OKD_WRN_DEPTHS for factor in OKD_WRN_FACTORS),
        *(f"okd_vgg-{depth}" for depth in OKD_VGG),
    ]


def _nearest(name: str) -> str:
    """Finds what ``resnet20``, ``Plain_CNN_10``, ``plain-cnn-10`` or ``wrn_40_2`` probably meant."""
    bare = {re.sub(r"[^a-z0-9]", "", known): known for known in built_in_names()}
    wanted = re.sub(r"[^a-z0-9]", "", name.lower())
    if wanted in bare:
        return f" Did you mean {bare[wanted]!r}?"
    return suggestion(name.lower(), built_in_names())
