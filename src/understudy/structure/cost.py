"""What a network costs: parameters and multiply-adds for one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from understudy.errors import BadInput
from understudy.models.limits import check_shapes

if TYPE_CHECKING:
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
    One image of zeros is run in eval mode where the model lies, so a model built under ``torch.device("meta")`` is
    counted without computing anything. The model's modes, buffers and gradients and torch's global generator are left
    as they were; forward hooks on the model do run.

    Args:
        size: height and width of the image in pixels.

    Raises:
        BadInput: the network cannot be run on such an image.

    >>> from torch import nn
    >>> cost(nn.Conv2d(3, 8, 3, padding=1), channels=3, size=(32, 32))
    Cost(parameters=224, multiply_adds=221184)
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    check_shapes(classes=2, channels=channels, size=size)
    first = next(iter(model.parameters()), torch.empty(0))
    image = torch.zeros(1, channels, size[0], size[1], device=first.device, dtype=first.dtype)
    # a module may write to its buffers in eval mode too: it gets copies
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    modes = [(module, module.training) for module in model.modules()]
    devices = [first.device] if first.device.type == "cuda" else []
    counter = FlopCounterMode(display=False)
    # the fused attention of the CPU is not known to the counter; the plain one is made of matrix products
    plain_attention = sdpa_kernel(SDPBackend.MATH)
    try:
        model.eval()
        with torch.random.fork_rng(devices=devices), torch.no_grad(), plain_attention, counter:
            torch.func.functional_call(model, buffers, (image,))
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise BadInput(
            f"{type(model).__name__} cannot be run on one {channels}-channel image of {size[0]}x{size[1]}: {reason}. "
            "Give the size and channels it was made for"
        ) from error
    finally:
        for module, training in modes:
            module.training = training
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(parameters=parameters, multiply_adds=counter.get_total_flops() // 2)
