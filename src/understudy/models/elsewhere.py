"""Networks of timm and torchvision by name; neither is imported before one of its names is used."""

from __future__ import annotations

import contextlib
import sys

import torch
from torch import Tensor, nn

from understudy.errors import BadInput
from understudy.models.published import check_elsewhere, package, published_statistics
from understudy.models.weights import first_line, head_of

# these two have an extra classifier that answers in train mode only, as a second output
_WITH_AUXILIARY_HEADS = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


def build_elsewhere(
    source: str, name: str, *, classes: int, channels: int, size: tuple[int, int], pretrained: bool
) -> nn.Module:
    """Builds a timm or torchvision classifier for ``classes`` classes.

    With ``pretrained`` the head is new, unless the published one has as many classes. Without, a network of fixed
    image size is built for ``size``; a torchvision network for other than 3 channels gets a new first convolution,
    drawn as torch.nn does it.

    Raises:
        BadInput: unknown name, images too small for it, or published weights that cannot be had or do not fit.
        MissingExtra: the package is not installed.
    """
    check_elsewhere(source, name)
    full_name = f"{source}/{name}"
    published = published_statistics(source, name, channels=channels) if pretrained else None
    build = _build_timm if source == "timm" else _build_torchvision
    try:
        model = build(name, classes=classes, channels=channels, size=size, pretrained=pretrained)
    except BadInput:
        raise
    except (
        Exception
    ) as error:  # both packages let through whatever their downloader or their constructors raise
        if pretrained:
            raise BadInput(
                f"the published weights of {full_name} could not be fetched ({first_line(error)}). Fetch them once "
                "where the network can be reached, or give the weights as a file"
            ) from error
        raise BadInput(
            f"{full_name} cannot be built for {channels}-channel images of {size[0]}x{size[1]} and {classes} classes "
            f"({first_line(error)}). Choose another network or other images"
        ) from error
    seen = published.size if published is not None else size
    _check_answers(model, full_name, classes=classes, channels=channels, size=seen)
    return model


def _build_timm(
    name: str, *, classes: int, channels: int, size: tuple[int, int], pretrained: bool
) -> nn.Module:
    timm = package("timm")
    config = timm.get_pretrained_cfg(name.partition(".")[0])
    fixed = config is not None and config.fixed_input_size and not pretrained
    sized = {"img_size": size} if fixed else {}
    model: nn.Module = timm.create_model(
        name, pretrained=pretrained, num_classes=classes, in_chans=channels, **sized
    )
    return model


def _build_torchvision(
    name: str, *, classes: int, channels: int, size: tuple[int, int], pretrained: bool
) -> nn.Module:
    models = package("torchvision").models
    options = _WITH_AUXILIARY_HEADS.get(name, {})
    model: nn.Module
    if not pretrained:
        sized = {"image_size": size[0]} if name.startswith("vit_") and size[0] == size[1] else {}
        model = models.get_model(name, weights=None, num_classes=classes, **options, **sized)
        if channels != 3:
            first, stem = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
            _replace(model, first, _convolution_like(stem, in_channels=channels))
        return model
    with contextlib.redirect_stdout(
        sys.stderr
    ):  # torch announces a download on stdout, which belongs to results
        model = models.get_model(name, weights="DEFAULT", progress=False, **options)
    head = head_of(model)
    layer = model.get_submodule(head)
    if isinstance(layer, nn.Linear) and layer.out_features != classes:
        _replace(model, head, nn.Linear(layer.in_features, classes, bias=layer.bias is not None))
    elif isinstance(layer, nn.Conv2d) and layer.out_channels != classes:
        _replace(model, head, _convolution_like(layer, out_channels=classes))
    return model


def _convolution_like(
    layer: nn.Conv2d, *, in_channels: int | None = None, out_channels: int | None = None
) -> nn.Conv2d:
    assert not isinstance(layer.padding, str)
    return nn.Conv2d(
        in_channels or layer.in_channels,
        out_channels or layer.out_channels,
        (layer.kernel_size[0], layer.kernel_size[1]),
        stride=(layer.stride[0], layer.stride[1]),
        padding=(layer.padding[0], layer.padding[1]),
        bias=layer.bias is not None,
    )


def _replace(model: nn.Module, dotted: str, layer: nn.Module) -> None:
    parent, _, last = dotted.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)


def _check_answers(
    model: nn.Module, name: str, *, classes: int, channels: int, size: tuple[int, int]
) -> None:
    """Runs one image of zeros: these networks say only there that an image is too small for them."""
    training = model.training
    like = next(model.parameters())
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            logits = model.eval()(torch.zeros(1, channels, *size, device=like.device, dtype=like.dtype))
    except (
        Exception
    ) as error:  # their forward methods assert, index and divide: any of it means that the image does not fit
        raise BadInput(
            f"{name} cannot be run on {channels}-channel images of {size[0]}x{size[1]} ({first_line(error)}). "
            "Choose larger images or another network"
        ) from error
    finally:
        model.train(training)
    if not isinstance(logits, Tensor) or logits.shape != (1, classes):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise BadInput(
            f"{name} answers one image with {shape}, not with (1, {classes}) logits. Choose a classifier"
        )
