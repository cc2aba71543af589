"""What a network costs: parameters and multiply-adds for one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from understudy.errors import BadInput
from understudy.models.limits import check_shapes

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Cost:
    """``parameters`` of the whole network, frozen ones too; ``multiply_adds`` (MACs) of one image."""

    parameters: int
    multiply_adds: int


def cost(model: nn.Module, *, channels: int, size: tuple[int, int]) -> Cost:
    """Counts parameters, and the multiply-adds of one image with torch's own counter.

    Counted are convolutions and matrix products, attention among them; biases, normalisation, activations and
    pooling are not, as usual in the field. A paper that says FLOPs mostly means these, or twice these.
    One image passes in eval mode through stand-ins without data (the meta device); only a model that needs data to
    run is run with zeros, where it lies. The model's modes, buffers and gradients and torch's global generator are
    left as they were; forward hooks on the model do run.

    Args:
        size: height and width of the image in pixels.

    Raises:
        BadInput: the network cannot be run on such an image.

    >>> from torch import nn
    >>> cost(nn.Conv2d(3, 8, 3, padding=1), channels=3, size=(32, 32))
    Cost(parameters=224, multiply_adds=221184)
    """
    import torch

    check_shapes(classes=2, channels=channels, size=size)
    shape = (1, channels, size[0], size[1])
    own = next(iter(model.parameters()), torch.empty(0)).device
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        try:
            flops = _flops(model, shape, torch.device("meta"))
        except Exception:  # whatever a forward method does with numbers it does not have; the run below tells
            flops = _flops(model, shape, own)
    except Exception as error:  # and whatever it does with an image of the wrong shape
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise BadInput(
            f"{type(model).__name__} cannot be run on one {channels}-channel image of {size[0]}x{size[1]}: {reason}. "
            "Give the size and channels it was made for"
        ) from error
    finally:
        for module, training in modes:
            module.training = training
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(parameters=parameters, multiply_adds=flops // 2)


def _flops(model: nn.Module, shape: tuple[int, ...], device: torch.device) -> int:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    dtype = next((tensor.dtype for tensor in model.parameters() if tensor.is_floating_point()), torch.float32)
    image = torch.zeros(shape, device=device, dtype=dtype)
    # a module may write to its buffers in eval mode too: it gets copies
    stand_ins = {name: buffer.detach().clone().to(device) for name, buffer in model.named_buffers()}
    if device.type == "meta":
        stand_ins |= {name: parameter.detach().to(device) for name, parameter in model.named_parameters()}
    counter = FlopCounterMode(display=False)
    # the fused attention of the CPU is not known to the counter; the plain one is made of matrix products
    plain_attention = sdpa_kernel(SDPBackend.MATH)
    drawn_from = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=drawn_from), torch.no_grad(), plain_attention, counter:
        torch.func.functional_call(model, stand_ins, (image,))
    return counter.get_total_flops()
