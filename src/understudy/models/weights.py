"""Weights from a file: read without running code, checked in full, then put into a network or refused in one line."""

from __future__ import annotations

import json
import pickle
import shlex
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from understudy.errors import BadInput, listed

_TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
_SUFFIXES = (".safetensors", *_TORCH_SUFFIXES)
# under these names training scripts keep the tensors beside an epoch number, an optimiser and so on
_NESTED_UNDER = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
# what DataParallel, torch.compile and a wrapping module put before every name
_WRAPPERS = ("module.", "_orig_mod.", "model.")
_HEAD_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads tensors by name from ``.safetensors``, or from ``.pt``, ``.pth``, ``.bin``, ``.ckpt`` without unpickling.

    A dict that holds the tensors under ``state_dict``, ``model`` and the like is opened.

    Returns:
        Tensors on the CPU, by name as in the file.

    Raises:
        BadInput: no such file, a folder, empty, damaged, of another kind, or not made of tensors alone. A file that
            would have to run code to be read is refused, with the command that converts it.
    """
    path = Path(path)
    if path.is_dir():
        inside = sorted(entry.name for entry in path.iterdir() if entry.suffix in _SUFFIXES)[:5]
        raise BadInput(f"{path} is a folder, not a file of weights. Files of weights in it: {listed(inside)}")
    if not path.exists():
        raise BadInput(f"there is no file {path} to read weights from. Check the path")
    if path.suffix not in _SUFFIXES:
        raise BadInput(f"weights are read from {listed(_SUFFIXES)}, got {path}. Name the file by its format")
    try:
        if path.stat().st_size == 0:
            raise BadInput(f"{path} is empty: copy or save the weights again")
        if path.suffix == ".safetensors":
            tensors: Mapping[str, Any] = safetensors.torch.load_file(path)
        else:
            tensors = _unwrapped(_load_torch(path), path)
    except OSError as error:
        raise BadInput(
            f"{path} cannot be read: {error.strerror or error}. Check the file and its permissions"
        ) from error
    except safetensors.SafetensorError as error:
        raise BadInput(
            f"{path} is not a whole safetensors file ({first_line(error)}): it is cut short, damaged or of another "
            "format. Copy or save it again"
        ) from error
    return _only_tensors(tensors, path)


def put_weights(
    model: nn.Module, tensors: Mapping[str, Tensor], *, source: str, new_head: bool = False
) -> list[str]:
    """Copies ``tensors`` into ``model``: all of them or, where anything does not fit, none.

    Names that all begin with ``module.`` (DataParallel), ``_orig_mod.`` (torch.compile) or ``model.`` are read
    without it, unless the network's own begin so. A missing ``num_batches_tracked`` stays as it is: files from before
    it existed lack it, and only a batch norm without momentum uses it.

    Args:
        source: what the tensors came from, for messages; a path mostly.
        new_head: leaves the head at its initial values where it is for another number of classes, or not in the file.

    Returns:
        The names that were left at their initial values: the head's, or none.

    Raises:
        BadInput: another number of classes (without ``new_head``), names or shapes that do not fit, values that are
            not finite.
    """
    own: dict[str, Tensor] = model.state_dict()
    given = _without_wrappers(dict(tensors), own)
    heads = tuple(f"{head}." for head in _heads_of(model))
    head_names = [name for name in own if name.startswith(heads)]

    left: list[str] = []
    if new_head:
        differing = [name for name in head_names if name in given and given[name].shape != own[name].shape]
        for_other_classes = all(_only_classes_differ(given[name], own[name]) for name in differing)
        absent = not any(name in given for name in head_names)
        if absent or (differing and for_other_classes):
            left = head_names
    optional = {name for name in own if name.rpartition(".")[2] == "num_batches_tracked"}
    missing = [name for name in own if name not in given and name not in optional and name not in left]
    unexpected = [name for name in given if name not in own]
    if missing or unexpected:
        raise BadInput(
            f"{source} does not fit this network: {_count(missing, 'is missing', 'are missing')}, "
            f"{_count(unexpected, 'is not known here', 'are not known here')}. "
            "Give weights of the same architecture"
        )
    wrong = [name for name in given if name not in left and given[name].shape != own[name].shape]
    if wrong and all(name in head_names and _only_classes_differ(given[name], own[name]) for name in wrong):
        name = wrong[0]
        raise BadInput(
            f"{source} has {given[name].shape[0]} outputs at {name.rpartition('.')[0]}, but {own[name].shape[0]} classes "
            "are needed here. Give weights that were trained on these classes, or fine-tune these under a new head "
            "with start:"
        )
    if wrong:
        name = next(key for key in own if key in wrong)
        raise BadInput(
            f"{source} does not fit this network: {name} is {_shape(given[name])} in the file and {_shape(own[name])} "
            "here. Give weights of the same architecture, width, image size and channels"
        )
    for name, tensor in given.items():
        if name in left:
            continue
        if tensor.is_floating_point() != own[name].is_floating_point():
            raise BadInput(
                f"{source} holds {name} as {_dtype(tensor)}, where {_dtype(own[name])} is needed. "
                "Save the weights as floating point numbers"
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            bad = int((~torch.isfinite(tensor)).sum())
            raise BadInput(
                f"{source} holds {bad} values in {name} that are NaN or infinite: that training went wrong. "
                "Give an earlier checkpoint"
            )
    fitting = {name: own[name] if name in left or name not in given else given[name] for name in own}
    model.load_state_dict(fitting, strict=True)
    return left


def head_of(model: nn.Module) -> str:
    """The dotted name of the last classifier layer: what a timm model says, else the last linear layer or convolution.

    Raises:
        BadInput: the network has no such layer.
    """
    return _heads_of(model)[0]


def _heads_of(model: nn.Module) -> tuple[str, ...]:
    # timm keeps in every model which layer classifies: a network with two heads has both there
    published = getattr(model, "pretrained_cfg", None)
    named = published.get("classifier") if isinstance(published, Mapping) else None
    known = dict(model.named_modules())
    heads = tuple(name for name in ((named,) if isinstance(named, str) else named or ()) if name in known)
    if heads:
        return heads
    layers = [name for name, module in model.named_modules() if isinstance(module, _HEAD_LAYERS)]
    if not layers:
        raise BadInput(
            f"{type(model).__name__} has no linear layer or convolution that could be its head. "
            "Give a network that ends in one"
        )
    return (layers[-1],)


def _load_torch(path: Path) -> Any:
    with path.open("rb") as file:  # what the system forbids is said as such
        start = file.read(2)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # of a file that is refused we say why; of one that is read, nothing
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage shows as nearly any exception: EINVAL, struct.error, AssertionError …
        if "TorchScript" in str(error):
            load = f'torch.jit.load({_quoted(path)}, map_location="cpu")'
            raise BadInput(
                f"{path} is a TorchScript program, not a file of weights. If you trust it, convert it: "
                f"{_conversion(path, load)}"
            ) from error
        # protocol 2 and later begin with 0x80; a zip that is whole can still hold objects
        if isinstance(error, pickle.UnpicklingError) and (zipfile.is_zipfile(path) or start[:1] == b"\x80"):
            load = f'torch.load({_quoted(path)}, map_location="cpu", weights_only=False)'
            raise BadInput(
                f"{path} would have to run code to be read: it holds more than tensors, or is damaged. "
                f"If you trust it, convert it: {_conversion(path, load)}"
            ) from error
        raise BadInput(
            f"{path} is not a whole file of torch.save ({first_line(error)}): it is cut short, damaged or of another "
            "format. Copy or save it again"
        ) from error


def _conversion(path: Path, load: str) -> str:
    """The shell command that makes safetensors of anything that holds a network or its tensors."""
    code = (
        f"import torch, safetensors.torch as s; m = {load}; "
        'm = next((m[k] for k in ("state_dict", "model_state_dict", "model") if k in m), m) if isinstance(m, dict) else m; '
        "m = m if isinstance(m, dict) else m.state_dict(); "
        "s.save_file({k: v.clone().contiguous() for k, v in m.items() if torch.is_tensor(v)}, "
        f"{_quoted(path.with_suffix('.safetensors'))})"
    )
    return f"python -c {shlex.quote(code)}"


def _quoted(path: Path) -> str:
    """The path as Python text in double quotes, so that the command around it can use single ones."""
    return json.dumps(str(path), ensure_ascii=False)


def _unwrapped(loaded: Any, path: Path) -> Mapping[str, Any]:
    for _ in range(3):
        if not isinstance(loaded, Mapping):
            raise BadInput(
                f"{path} holds a {type(loaded).__name__}, not tensors by name. Save model.state_dict()"
            )
        inner = next((loaded[key] for key in _NESTED_UNDER if isinstance(loaded.get(key), Mapping)), None)
        if inner is None:
            break
        loaded = inner
    assert isinstance(loaded, Mapping)
    return loaded


def _only_tensors(tensors: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    if not tensors:
        raise BadInput(f"{path} holds no tensors. Save model.state_dict()")
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise BadInput(
                f"{path} holds a {type(value).__name__} under {name!r}, where only tensors by name can be read "
                f"(or a dict of them under {listed(_NESTED_UNDER)}). Save model.state_dict()"
            )
        if value.layout != torch.strided or value.is_quantized:
            raise BadInput(f"{path} holds {name} as a sparse or quantised tensor. Save it as a dense one")
    return {str(name): value.detach() for name, value in tensors.items()}


def _without_wrappers(given: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    def wraps(prefix: str) -> bool:
        return all(name.startswith(prefix) for name in given) and not any(
            name.startswith(prefix) for name in own
        )

    while given and (prefix := next((prefix for prefix in _WRAPPERS if wraps(prefix)), None)):
        given = {name.removeprefix(prefix): tensor for name, tensor in given.items()}
    return given


def _only_classes_differ(given: Tensor, own: Tensor) -> bool:
    same_inputs = given.ndim > 0 and given.ndim == own.ndim and given.shape[1:] == own.shape[1:]
    return same_inputs and given.shape[0] != own.shape[0]


def _count(names: list[str], singular: str, plural: str) -> str:
    if not names:
        return f"none {plural}"
    shown = listed(names[:3]) + (", …" if len(names) > 3 else "")
    return f"{len(names)} {singular if len(names) == 1 else plural} ({shown})"


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single number"


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def first_line(error: Exception) -> str:
    """What another library said, cut to one line for a message of ours."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
