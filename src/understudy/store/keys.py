"""Keys: the hash of what decides a result."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = (
    1  # raised when the meaning of a definition changes; older results are then never mistaken for newer ones
)


def canonical(value: Any) -> Any:
    """``value`` in the one form that is hashed.

    Mappings are sorted by name, tuples become lists, and a float with an integral value becomes an int, so that
    ``temperature: 4`` and ``temperature: 4.0`` are one thing.

    Raises:
        TypeError: something that JSON cannot hold.
        ValueError: a NaN or infinite number: it equals nothing, itself included.

    >>> canonical({"b": 4.0, "a": (1, 2.5)})
    {'a': [1, 2.5], 'b': 4}
    """
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise TypeError(f"names in a definition are strings; got {list(value)!r}")
        return {name: canonical(value[name]) for name in sorted(value)}
    if isinstance(value, list | tuple):
        return [canonical(entry) for entry in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"a definition cannot hold {value!r}")
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    raise TypeError(f"a definition cannot hold {type(value).__name__}: {value!r}")


def key_of(definition: Mapping[str, Any]) -> str:
    """The key of a result: 40 hex digits of SHA-256 over the canonical definition.

    >>> key_of({"seed": 1}) == key_of({"seed": 1.0})
    True
    >>> key_of({"teachers": ["a", "b"]}) == key_of({"teachers": ["b", "a"]})
    False
    """
    text = json.dumps(
        {"format": FORMAT, "definition": canonical(definition)}, separators=(",", ":"), allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def hash_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in order of name; layout in memory and device do not matter."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)  # no copy
    return digest.hexdigest()
