"""What named layers of a network give, taken while it runs and without touching its code."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from understudy.errors import BadInput, StageFailed, listed, suggestion
from understudy.models.limits import check_shapes

Shapes = Mapping[str, tuple[int, ...]]

_PUBLISHED: dict[tuple[str, str], dict[str, str]] = {
    ("allcnn", "densenet-121"): {"stage1": "transition1", "stage2": "transition2", "stage4": "block4"},
}  # by the built-in names of student and teacher

_COMPILED = "_orig_mod"  # where torch.compile keeps the module that it was given
_HOW_TO_LIST = "`understudy layers MODEL` lists those of a network by name"
_SHOWN = 4  # layers that would fit, in an error


class Features(nn.Module):
    """A network that also gives what some of its layers gave: ``images`` to ``(output, {name: features})``.

    Layers are named as in the network's own ``named_modules()``: what torch.compile, DataParallel or
    DistributedDataParallel put around it is no part of a name. Such a wrapper may be inside, around the network, or
    outside, around this. Features keep their gradient and, under autocast, their number format. Of a layer that runs
    several times in one pass, the last output counts.

    Only passes through this are recorded; the network on its own, its ``state_dict`` and copies of it are as without.
    Threads may share it (but not the compiled code of one network).

    torch.compile does not look again at a network for which it has code. So where a part of ``model`` is seen to be
    compiled, all that torch has compiled in this process is forgotten here, and compiled anew when it runs next. Where
    that was not to be seen and a layer gives nothing, the same is done then, once, and the batch runs a second time.

    Args:
        model: a network; may be wrapped or compiled, and may have run before.
        names: of layers whose output is one tensor.

    Raises:
        BadInput: there is no such layer; when it runs: a layer's output is no tensor, or is overwritten in place later.
        StageFailed: when it runs: a layer took no part.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    >>> logits, features = Features(model, ["1"])(torch.zeros(4, 3, 3, 3))
    >>> features["1"].shape
    torch.Size([4, 8, 1, 1])
    """

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(dict.fromkeys(names))
        layers = dict(_layers(model))
        if "" in self.names:
            raise BadInput("'' names no layer but the whole network, whose output is given in any case")
        check_layers(self.names, layers, whose=f"the network ({type(innermost(model)).__name__})")
        self._seen = _Seen()
        self._hooks = [layers[name].register_forward_hook(_Hook(self._seen, name)) for name in self.names]
        self._closed = False
        if self.names and _is_compiled(model):
            torch.compiler.reset()

    def forward(self, images: Tensor) -> tuple[Any, dict[str, Tensor]]:
        """``(batch, channels, height, width)`` to the network's output and its layers', in the order of the names."""
        if self._closed:
            raise BadInput("the hooks of these features were taken off by close(): make new ones")
        if torch.compiler.is_compiling():
            self._seen.compiled.clear()
            self._seen.tracing = True
            output = self.model(images)
            self._seen.tracing = False
            traced = dict(self._seen.compiled)
            self._seen.compiled.clear()
            return output, self._checked(traced)
        output, seen = self._run(images)
        may_be_compiled = "torch._dynamo" in sys.modules
        if len(seen) < len(self.names) and may_be_compiled and not self._seen.renewed:
            self._seen.renewed = True
            torch.compiler.reset()
            output, seen = self._run(images)
        return output, self._checked(seen)

    def close(self) -> None:
        """Takes the hooks off the network; after this only the network itself can run."""
        for hook in self._hooks:
            hook.remove()
        self._closed = True

    def __deepcopy__(self, memo: dict[int, Any]) -> Features:
        copied = Features(deepcopy(self.model, memo), self.names)
        copied.training = self.training
        memo[id(self)] = copied
        return copied

    def _run(self, images: Tensor) -> tuple[Any, dict[str, Any]]:
        with self._seen.recording() as here:
            output = self.model(images)
        found: dict[str, Any] = {name: value for name, (value, _) in here.items()}
        for name, (value, version) in here.items():
            if version is not None and value._version != version:
                raise BadInput(
                    f"the network overwrites the output of {name!r} in place after it was given: name the layer that "
                    f"does it, or one after it. {_HOW_TO_LIST}"
                )
        return output, {**self._seen.of_replicas(self.model), **self._seen.take_compiled(), **found}

    def _checked(self, seen: Mapping[str, Any]) -> dict[str, Tensor]:
        for name in self.names:
            if name not in seen:
                raise StageFailed(
                    f"layer {name!r} gave nothing: the network did not run it on the way to its output, or its compiled "
                    f"code leaves it out. Name another layer, or train without torch.compile. {_HOW_TO_LIST}"
                )
            if not isinstance(seen[name], Tensor):
                raise BadInput(
                    f"layer {name!r} gives a {type(seen[name]).__name__}, not one tensor: name another layer. {_HOW_TO_LIST}"
                )
        return {name: seen[name] for name in self.names}


def innermost(model: nn.Module) -> nn.Module:
    """The network itself, without what torch.compile, DataParallel and DistributedDataParallel put around it."""
    while True:
        if isinstance(model, DataParallel | DistributedDataParallel):
            model = model.module
        elif isinstance(inside := getattr(model, _COMPILED, None), nn.Module):
            model = inside
        else:
            return model


def layer_shapes(model: nn.Module, *, channels: int, size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """The output shape, without the batch, of every named layer that gives one tensor.

    Two images of zeros pass in eval mode and without gradients. The network's modes, weights and buffers and torch's
    global generator are left as they were.

    Args:
        size: height and width of the images in pixels.

    Returns:
        By name, in the order in which layers finished (last, where one ran several times): a block comes after its parts.

    Raises:
        BadInput: the network cannot be run on such images.

    >>> layer_shapes(nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.Flatten()), channels=1, size=(9, 9))
    {'0': (4, 4, 4), '1': (64,)}
    """
    check_shapes(classes=2, channels=channels, size=size)
    network = innermost(model)
    shapes: dict[str, tuple[int, ...]] = {}
    handles, hooked = [], set()

    def noting(name: str) -> Any:
        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            shapes.pop(name, None)
            if isinstance(output, Tensor):
                shapes[name] = tuple(output.shape[1:])

        return note

    tensors = list(network.parameters())
    device = tensors[0].device if tensors else torch.device("cpu")
    dtype = next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)
    modes = [(module, module.training) for module in network.modules()]
    # a module may write to its buffers in eval mode too: it gets copies
    stand_ins = {name: buffer.detach().clone() for name, buffer in network.named_buffers()}
    eager = torch.compiler.set_stance("force_eager") if _is_compiled(network) else nullcontext()
    for name, module in _layers(network):
        if name and id(module) not in hooked:
            hooked.add(id(module))
            handles.append(module.register_forward_hook(noting(name)))
    try:
        network.eval()
        images = torch.zeros(2, channels, *size, device=device, dtype=dtype)
        with torch.no_grad(), eager, torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.func.functional_call(network, stand_ins, (images,))
    except Exception as error:  # whatever a forward method does with an image of the wrong shape
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise BadInput(
            f"{type(network).__name__} cannot be run on {channels}-channel images of {size[0]}x{size[1]}: {reason}. "
            "Give the size and channels it was made for"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    return shapes


def check_layers(names: Iterable[str], shapes: Mapping[str, object], *, whose: str) -> None:
    """Raises BadInput where a name is none of the layers in ``shapes``.

    Args:
        shapes: of the network's layers, as ``layer_shapes`` gives them.
        whose: how the network is called in the message, such as ``the teacher``.
    """
    for name in names:
        if name == "" or name not in shapes:
            near = suggestion(name, shapes)
            known = {layer: shape for layer, shape in shapes.items() if isinstance(shape, tuple)}
            maps = list(_last_by_size(known).values())
            if not near and maps:
                near = f" Feature maps of it: {listed(maps)}."
            raise BadInput(f"{whose} has no layer {name!r}.{near} {_HOW_TO_LIST}")


def matched(student_shapes: Shapes, teacher_shapes: Shapes) -> dict[str, str]:
    """Pairs student layers with teacher layers: of each size of feature map that both have, the last layer of each.

    This rule is our choice; papers name their layers (``published``). Sizes are height and width, of at least 2x2, from large to
    small. The largest size of all layers, mostly the images' own, is skipped where two or more others remain.

    Returns:
        From student layer to teacher layer.

    Raises:
        BadInput: the two have no such size in common.

    >>> student = {"stage1": (16, 32, 32), "stage2": (32, 16, 16), "stage3": (64, 8, 8), "head": (10,)}
    >>> teacher = {"stem": (64, 32, 32), "block1": (128, 16, 16), "act": (128, 16, 16), "block2": (256, 8, 8)}
    >>> matched(student, teacher)
    {'stage2': 'act', 'stage3': 'block2'}
    """
    ours, theirs = _last_by_size(student_shapes), _last_by_size(teacher_shapes)
    order = sorted(ours.keys() & theirs.keys(), key=lambda size: (size[0] * size[1], size), reverse=True)
    if not order:
        raise BadInput(
            "student and teacher have no size of feature maps in common: the student has "
            f"{listed(map(_by, ours))}, the teacher {listed(map(_by, theirs))}. Choose networks that halve the image "
            "alike, or give both images of one size"
        )
    largest = max((*ours, *theirs), key=lambda size: size[0] * size[1])
    rest = [size for size in order if size != largest]
    return {ours[size]: theirs[size] for size in (rest if len(rest) >= 2 else order)}


def published(student: str, teacher: str) -> dict[str, str] | None:
    """The layers that a paper matches, from the student's to the teacher's; None where none is known for the two.

    Args:
        student: name of a built-in network, of any width.
        teacher: likewise.

    References:
        Tran et al. 2021, arXiv:2103.17012 (sparse representation matching), the first author's code, CIFAR-100: what
        the first two transitions give, and the last dense block before its normalisation.

    >>> published("allcnn", "densenet-121")
    {'stage1': 'transition1', 'stage2': 'transition2', 'stage4': 'block4'}
    """
    pairs = _PUBLISHED.get((student, teacher))
    return None if pairs is None else dict(pairs)


def check_pairs(pairs: Mapping[str, str], student_shapes: Shapes, teacher_shapes: Shapes) -> None:
    """Raises BadInput unless the layers of each pair, student's to teacher's, have one height and width.

    What is no feature map but one number for each channel, such as pooled features, counts as 1x1.
    """
    check_layers(pairs.keys(), student_shapes, whose="the student")
    check_layers(pairs.values(), teacher_shapes, whose="the teacher")
    for student, teacher in pairs.items():
        ours, theirs = _size(student_shapes[student]), _size(teacher_shapes[teacher])
        if ours is None or theirs is None or ours != theirs:
            raise BadInput(
                f"the student's {student!r} gives {_by(student_shapes[student])} and the teacher's {teacher!r} "
                f"{_by(teacher_shapes[teacher])}: a pair needs one height and width.{_fitting('student', student_shapes, theirs)}"
                f"{_fitting('teacher', teacher_shapes, ours)} {_HOW_TO_LIST}"
            )


class _Seen:
    """What the hooks of one ``Features`` have found; shared by its copies in the threads of DataParallel.

    A hook runs in the thread of the pass that it belongs to, but for a DataParallel inside: its replicas run in threads
    of their own, one for each device. In code that torch.compile has traced there is no asking for the thread;
    ``tracing`` while such code may run a part that it could not trace.
    """

    def __init__(self) -> None:
        self.by_thread: dict[int, dict[str, tuple[Any, int | None]]] = {}
        self.by_device: dict[str, dict[torch.device, Tensor]] = {}
        self.compiled: dict[str, Any] = {}
        self.tracing = False
        self.renewed = False

    @contextmanager
    def recording(self) -> Iterator[dict[str, tuple[Any, int | None]]]:
        thread = threading.get_ident()
        before = self.by_thread.get(thread)
        here: dict[str, tuple[Any, int | None]] = {}
        self.by_thread[thread] = here
        self.compiled.clear()  # what the network left there when it ran on its own
        self.by_device.clear()
        try:
            yield here
        finally:
            if before is None:
                del self.by_thread[thread]
            else:
                self.by_thread[thread] = before

    def take_compiled(self) -> dict[str, Any]:
        taken = dict(self.compiled)
        self.compiled.clear()
        return taken

    def of_replicas(self, model: nn.Module) -> dict[str, Tensor]:
        """Joins along the batch what the replicas of a DataParallel inside gave, as it joins their outputs."""
        while not isinstance(model, DataParallel):
            inside = getattr(model, _COMPILED, None)
            if not self.by_device or inside is None:
                return {}
            model = inside
        joined = {
            name: _joined(parts, model.device_ids, torch.device("cuda", model.output_device))
            for name, parts in self.by_device.items()
        }
        self.by_device.clear()
        return joined


def _joined(parts: Mapping[torch.device, Tensor], order: Sequence[int], target: torch.device) -> Tensor:
    """What the replicas on several devices gave, along the batch and in the order of the devices, on one of them."""
    there = sorted(parts, key=lambda device: order.index(device.index))
    return torch.cat([parts[device].to(target) for device in there])


class _Hook:
    """Notes what one layer gives. A copy of the layer gets one that does nothing."""

    def __init__(self, seen: _Seen, name: str) -> None:
        self.seen = seen
        self.name = name

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if torch.compiler.is_compiling():
            self.seen.compiled[self.name] = output
            return
        here = self.seen.by_thread.get(threading.get_ident())
        if here is not None:
            counted = isinstance(output, Tensor) and not output.is_inference()
            here[self.name] = output, output._version if counted else None
        elif self.seen.tracing:
            self.seen.compiled[self.name] = output
        elif getattr(module, "_is_replica", False) and isinstance(output, Tensor):
            self.seen.by_device.setdefault(self.name, {})[output.device] = output

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Nothing, ())


class _Nothing:
    """What is left of a hook in a copy."""

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        return None


def _layers(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Every layer by every name that it has, wrappers left out."""
    model = innermost(model)
    yield prefix, model
    for name, child in model._modules.items():
        if child is not None:
            yield from _layers(child, f"{prefix}.{name}" if prefix else name)


def _is_compiled(model: nn.Module) -> bool:
    return any(
        _COMPILED in module._modules or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )


def _last_by_size(shapes: Shapes) -> dict[tuple[int, int], str]:
    return {
        (shape[1], shape[2]): name
        for name, shape in shapes.items()
        if len(shape) == 3 and min(shape[1], shape[2]) >= 2
    }


def _size(shape: tuple[int, ...]) -> tuple[int, int] | None:
    if len(shape) == 3:
        return shape[1], shape[2]
    return (1, 1) if len(shape) == 1 else None


def _fitting(whose: str, shapes: Shapes, size: tuple[int, int] | None) -> str:
    """A sentence that names the last layers of that size."""
    if size is None:
        return ""
    found = [name for name, shape in shapes.items() if _size(shape) == size]
    more = "…, " if len(found) > _SHOWN else ""
    return f" With {_by(size)} the {whose} has {more}{listed(found[-_SHOWN:])}."


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"
