"""What timm and torchvision have: their names, and what their published weights were trained with.

Neither is imported before one of its names is used.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from dataclasses import dataclass
from typing import Any

import torch

from understudy.errors import BadInput, MissingExtra, suggestion
from understudy.models.weights import first_line


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What images were prepared with when published weights were trained.

    Attributes:
        mean: of each channel, in units of 1.0 = pixel value 255.
        std: likewise.
        size: height and width in pixels.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]


def check_elsewhere(source: str, name: str) -> None:
    """Raises BadInput with the nearest name unless ``source`` (``timm`` or ``torchvision``) has a classifier ``name``."""
    if source == "timm":
        _check_timm(package("timm"), name)
    else:
        _check_torchvision(package("torchvision"), name)


def published_statistics(source: str, name: str, *, channels: int) -> Statistics:
    """Mean, std and input size that the published weights were trained with.

    timm folds the first convolution for 1 channel; mean and std are then averaged over the three.

    Raises:
        BadInput: no published weights, or none that can serve ``channels`` channels.
    """
    check_elsewhere(source, name)
    if source == "timm":
        timm = package("timm")
        if not timm.is_model_pretrained(name):
            raise BadInput(
                f"timm/{name} has no published weights. Leave pretrained off, or give weights as a file"
            )
        config = timm.get_pretrained_cfg(name)
        mean, std, side = tuple(config.mean), tuple(config.std), tuple(config.input_size[1:])
        if channels == 1 and len(mean) == 3:
            mean, std = (sum(mean) / 3,), (sum(std) / 3,)
    else:
        models = package("torchvision").models
        presets = models.get_model_weights(name).DEFAULT.transforms()
        mean, std, side = tuple(presets.mean), tuple(presets.std), (presets.crop_size * 2)[:2]
    if len(mean) != channels:
        raise BadInput(
            f"the published weights of {source}/{name} are for {len(mean)} channels, the images have {channels}. "
            f"Set the data's channels to {len(mean)}, or leave pretrained off"
        )
    return Statistics(mean=mean, std=std, size=(side[0], side[1]))


def _check_timm(timm: Any, name: str) -> None:
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise BadInput(
            f"timm has no model {name!r}.{suggestion(architecture, timm.list_models())} "
            "timm.list_models() lists what it has"
        )
    tagged = timm.list_pretrained(f"{architecture}.*")
    if tag and name not in tagged:
        raise BadInput(
            f"timm has no weights {tag!r} of {architecture}.{suggestion(name, tagged)} "
            f"Possible: {', '.join(tagged) or 'none'}"
        )


def _check_torchvision(torchvision: Any, name: str) -> None:
    classifiers = torchvision.models.list_models(module=torchvision.models)
    if name not in classifiers:
        raise BadInput(
            f"torchvision has no classification model {name!r}.{suggestion(name, classifiers)} "
            "torchvision.models.list_models(module=torchvision.models) lists what it has"
        )


def package(name: str) -> Any:
    """Imports timm or torchvision.

    Raises:
        MissingExtra: it is not installed.
        BadInput: it is there and does not load beside this torch.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtra(f"{name} models", "vision") from error
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        # the usual text is "operator torchvision::nms does not exist": compiled parts for another build of torch
        raise BadInput(
            f"{name} does not load: the builds of torchvision {_version('torchvision')} and torch {torch.__version__} "
            f"do not match ({first_line(error)}). Install torch and torchvision together, both for CPU or both for "
            "the same CUDA, as pytorch.org/get-started says for this machine"
        ) from error


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"
