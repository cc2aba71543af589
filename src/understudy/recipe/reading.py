"""Recipe files as text: safe YAML, bounded in size, with settings from the command line put in."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from understudy.errors import BadInput

LARGEST_FILE = 1_000_000  # bytes
MOST_VALUES = 20_000  # after aliases are followed
DEEPEST = 30


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-3 is a number, dates are words, and a key may not stand twice."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as in the class above it
        first: [
            (tag, pattern)
            for tag, pattern in resolvers
            if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:float")
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a word", key_node.start_mark
                )
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key_node.value!r} stands twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:\d[\d_]*\.\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.inf|\.nan)$",
        re.I,
    ),
    list("-+0123456789."),
)


def read_text(text: str, *, source: str = "the recipe") -> dict[str, Any]:
    """The mapping written in ``text``, checked for size and shape but not for keys.

    Raises:
        BadInput: not YAML (with line and column), too large, too deep, too many values behind aliases, or no mapping.
    """
    if len(text) > LARGEST_FILE:
        raise BadInput(f"{source} has {len(text)} characters; a recipe has {LARGEST_FILE} at most.")
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise BadInput(f"{source} is nested more than {DEEPEST} deep{_place(event.start_mark)}.")
        node = yaml.compose(text, Loader=_Loader)
        if node is not None:
            _count(node, {}, source)
        value = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        what = " ".join(str(error.problem or error.context or "not YAML").split())
        raise BadInput(f"{source} is not readable YAML{_place(error.problem_mark)}: {what}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, BadInput):
            raise
        what = " ".join(str(error).split())[:200]
        raise BadInput(f"{source} is not readable YAML: {what}.") from error
    if value is None:
        raise BadInput(f"{source} is empty. The least it needs is data: and models:.")
    if not isinstance(value, dict):
        raise BadInput(
            f"{source} is a {_kind(value)}; a recipe is keys with values, such as `seeds: [0, 1, 2]`."
        )
    _check_plain(value, source)
    return value


def _place(mark: Any) -> str:
    return f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""


def _count(node: yaml.Node, known: dict[int, int], source: str) -> int:
    """Values below ``node``, a shared part counted wherever it stands; depth is bounded already."""
    if id(node) in known:
        if known[id(node)] < 0:
            raise BadInput(f"{source} has an alias that contains itself{_place(node.start_mark)}.")
        return known[id(node)]
    known[id(node)] = -1
    below = 1
    if isinstance(node, yaml.MappingNode):
        below += sum(_count(key, known, source) + _count(value, known, source) for key, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        below += sum(_count(value, known, source) for value in node.value)
    if below > MOST_VALUES:
        raise BadInput(f"{source} has more than {MOST_VALUES} values once its aliases are followed.")
    known[id(node)] = below
    return below


def _check_plain(value: Any, path: str) -> None:
    if isinstance(value, dict):
        for key, entry in value.items():
            if not isinstance(key, str):
                raise BadInput(f"{path}: the key {key!r} is a {_kind(key)}; keys are words.")
            _check_plain(entry, key if " " in path or path == "the recipe" else f"{path}.{key}")
    elif isinstance(value, list):
        for position, entry in enumerate(value):
            _check_plain(entry, f"{path}[{position}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise BadInput(f"{path} is {value}; a finite number is needed.")
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
        raise BadInput(f"{path} is a number of {len(str(abs(value)))} digits; that is too large.")
    elif value is not None and not isinstance(value, bool | int | float | str):
        raise BadInput(
            f"{path} is a {_kind(value)}; words, numbers, true, false, lists and keys are possible."
        )


def _kind(value: Any) -> str:
    names = {dict: "mapping", list: "list", str: "word", bool: "truth value", int: "number", float: "number"}
    return names.get(type(value), "nothing" if value is None else type(value).__name__)


def read_file(path: Path) -> dict[str, Any]:
    """The mapping in a recipe file.

    Raises:
        BadInput: there is no such file, it is not UTF-8 text, or see :func:`read_text`.
    """
    try:
        if path.is_dir():
            raise BadInput(f"{path} is a folder; name the recipe file in it.")
        if path.stat().st_size > LARGEST_FILE:
            raise BadInput(f"{path} has {path.stat().st_size} bytes; a recipe has {LARGEST_FILE} at most.")
        return read_text(path.read_text("utf-8"), source=str(path))
    except FileNotFoundError as error:
        raise BadInput(f"there is no recipe {path}.") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not a text file in UTF-8.") from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror or error}).") from error


def changed(raw: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """``raw`` with ``path=value`` settings from the command line; a value is read as YAML.

    Raises:
        BadInput: no ``=``, or a path through something that is not a mapping or a list.

    >>> changed({"training": {"epochs": 3}}, ["training.epochs=30", "seeds=[0, 1]"])
    {'training': {'epochs': 30}, 'seeds': [0, 1]}
    """
    whole = long_form(json.loads(json.dumps(raw)))
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path.strip():
            raise BadInput(f"--set {setting!r} has the form path=value, such as --set training.epochs=30.")
        value = read_text(f"value: {text}", source=f"--set {setting!r}")["value"]
        steps = path.strip().split(".")
        here: Any = whole
        for depth, step in enumerate(steps):
            last = depth == len(steps) - 1
            so_far = ".".join(steps[: depth + 1])
            if isinstance(here, list):
                if not step.isdigit() or int(step) >= len(here):
                    raise BadInput(f"--set {setting!r}: {so_far} is no place in a list of {len(here)}.")
                step = int(step)  # type: ignore[assignment]
            elif not isinstance(here, dict):
                raise BadInput(f"--set {setting!r}: {'.'.join(steps[:depth])} has nothing inside.")
            if last:
                here[step] = value
            else:
                if isinstance(here, dict) and here.get(step) is None:
                    here[step] = {}
                here = here[step]
    return whole


def long_form(whole: dict[str, Any]) -> dict[str, Any]:
    """Names of networks become mappings, and controls are filled in."""

    def model(value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    models = whole.get("models")
    if isinstance(models, dict):
        for role in ("teacher", "student"):
            if role in models:
                models[role] = model(models[role])
        if isinstance(models.get("assistants"), list):
            models["assistants"] = [model(value) for value in models["assistants"]]
    ladder = whole.get("ladder")
    if isinstance(ladder, str):
        whole["ladder"] = ladder = {"shape": ladder}
    if isinstance(ladder, dict) and isinstance(ladder.get("stages"), list):
        for entry in ladder["stages"]:
            if isinstance(entry, dict) and "model" in entry:
                entry["model"] = model(entry["model"])
    if "controls" not in whole:
        whole["controls"] = (
            [] if isinstance(ladder, dict) and ladder.get("shape") == "scratch" else ["scratch", "direct"]
        )
    return whole
