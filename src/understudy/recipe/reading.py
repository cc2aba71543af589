"""Recipe files as text: safe YAML, bounded in size, with settings from the command line put in."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from understudy.errors import BadInput

LARGEST_FILE = 200_000  # bytes
MOST_VALUES = 50_000  # after aliases are followed
DEEPEST = 30


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-3 is a number, 010 and dates are words, and no tag can be written."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as in the class above it
        first: [
            (tag, pattern)
            for tag, pattern in resolvers
            if tag.rpartition(":")[2] in ("bool", "null", "merge")
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        tag = getattr(event, "tag", None)
        if tag is not None:
            tag = cut(tag.replace("tag:yaml.org,2002:", "!!"), quoted=False)
            raise _refused(
                f"{tag} is a tag; a recipe is plain words, numbers, lists and keys", event.start_mark
            )
        if self.depth > DEEPEST:
            raise _refused(f"it is nested more than {DEEPEST} deep", event.start_mark)
        self.depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _refused(problem: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.composer.ComposerError(None, None, problem, mark)


class _Dumper(yaml.SafeDumper):
    """Writes words so that ``_Loader`` (and plain YAML) reads words."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as in the class above it
        first: list(resolvers) for first, resolvers in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }


_FLOAT = re.compile(
    r"^[-+]?(?:\d[\d_]*\.\d*(?:e[-+]?\d+)?|\.\d+(?:e[-+]?\d+)?|\d[\d_]*e[-+]?\d+|\.inf)$|^\.nan$",
    re.IGNORECASE | re.ASCII,
)
_INT = re.compile(r"^[-+]?(?:0|[1-9][\d_]*)$", re.ASCII)
for _kind_of_number, _pattern in (("int", _INT), ("float", _FLOAT)):
    for _loads in (_Loader, _Dumper):
        _loads.add_implicit_resolver(f"tag:yaml.org,2002:{_kind_of_number}", _pattern, list("-+0123456789."))


def read_text(text: str, *, source: str = "the recipe") -> dict[str, Any]:
    """The mapping written in ``text``, checked for size and shape but not for keys.

    Raises:
        BadInput: not YAML (with line and column), too large, too deep, too many values behind aliases, or no mapping.
    """
    value = _parsed(text, source)
    if value is None:
        raise BadInput(f"{source} is empty. The least it needs is data: and models:.")
    if not isinstance(value, dict):
        raise BadInput(
            f"{source} is a {_kind(value)}; a recipe is keys with values, such as `seeds: [0, 1, 2]`."
        )
    _check_plain(value, source, "")
    return value


def written(value: Mapping[str, Any]) -> str:
    """``value`` as the text of a recipe; ``read_text`` gives the same value back."""

    def dumped(as_it_is: bool) -> str:
        return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=as_it_is, width=100))

    text = dumped(True)
    # Unicode's other line breaks come back as spaces unless they are escaped
    return dumped(False) if any(sign in text for sign in "\x85\u2028\u2029") else text


def _parsed(text: str, source: str) -> Any:
    if len(text) > LARGEST_FILE:
        raise BadInput(f"{source} has {len(text)} characters; a recipe has {LARGEST_FILE} at most.")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _walk(node, {}, source)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        what = " ".join(str(error.problem or error.context or "not YAML").split())
        what = "there is a second document" if what == "but found another document" else what
        place = _place(error.problem_mark)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = f", line {before.count(chr(10)) + 1}, column {error.position - before.rfind(chr(10))}"
        what = f"the character {chr(int(error.character))!a} cannot stand in a text"
    raise BadInput(f"{source} is not readable YAML{place}: {what}.")


def _place(mark: Any) -> str:
    return f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""


def _walk(node: yaml.Node, known: dict[int, tuple[int, int]], source: str) -> tuple[int, int]:
    """Values below ``node`` and how deep they lie; a shared part counts wherever it stands.

    Asked before anything is constructed, since a few lines of aliases can stand for more than memory holds.
    """
    if id(node) in known:
        if not known[id(node)][0]:
            raise BadInput(f"{source} has an alias that contains itself{_place(node.start_mark)}.")
        return known[id(node)]
    known[id(node)] = (0, 0)
    inner: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise BadInput(f"{source} has a key that is no word{_place(key.start_mark)}.")
            if key.value in seen:
                raise BadInput(f"{source} has the key {cut(key.value)} twice{_place(key.start_mark)}.")
            seen.add(key.value)
            inner += (key, value)
    elif isinstance(node, yaml.SequenceNode):
        inner = node.value
    elif node.tag == "tag:yaml.org,2002:int" and len(node.value) > 30:
        raise BadInput(
            f"{source} has a number of {len(node.value)} digits{_place(node.start_mark)}; that is too large."
        )
    values, depth = 1, 0
    for below in inner:
        values_below, depth_below = _walk(below, known, source)
        values += values_below
        depth = max(depth, depth_below + 1)
    if values > MOST_VALUES:
        raise BadInput(f"{source} has more than {MOST_VALUES} values once its aliases are followed.")
    if depth > DEEPEST:
        raise BadInput(f"{source} is nested more than {DEEPEST} deep once its aliases are followed.")
    known[id(node)] = (values, depth)
    return values, depth


def _check_plain(value: Any, source: str, path: str) -> None:
    """Only what JSON can hold; ``path`` leads from the top of ``source`` to ``value``."""
    if isinstance(value, dict):
        for key, entry in value.items():
            if not isinstance(key, str):
                raise BadInput(f"{source}: the key {json.dumps(key)} is {_a(key)}; keys are words.")
            _check_plain(key, source, f"a key in {path or source}")
            _check_plain(entry, source, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for position, entry in enumerate(value):
            _check_plain(entry, source, f"{path}.{position}" if path else str(position))
    elif isinstance(value, float) and not math.isfinite(value):
        raise BadInput(f"{cut(path or source, quoted=False)} is {value}; a finite number is needed.")
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
        raise BadInput(
            f"{cut(path or source, quoted=False)} is a number of {len(str(abs(value)))} digits; that is too large."
        )
    elif isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise BadInput(
                f"{cut(path or source, quoted=False)} holds half a character ({value[error.start]!a}); "
                f"write the character itself, in UTF-8."
            ) from error


def cut(text: str, *, quoted: bool = True) -> str:
    """A word of the user for a message, short and without line breaks or control characters."""
    short = text if len(text) <= 80 else text[:77] + "..."
    return repr(short) if quoted else repr(short)[1:-1]


def _a(value: Any) -> str:
    return "nothing" if value is None else f"a {_kind(value)}"


def _kind(value: Any) -> str:
    names = {dict: "mapping", list: "list", str: "word", bool: "truth value", int: "number", float: "number"}
    return names.get(type(value), type(value).__name__)


def read_file(path: Path) -> dict[str, Any]:
    """The mapping in a recipe file.

    Raises:
        BadInput: there is no such file, it is not UTF-8 text, or see ``read_text``.
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
        BadInput: no ``=``, a value that is not YAML, or a path through something that is not a mapping or a list.

    >>> changed({"training": {"epochs": 3}, "controls": []}, ["training.epochs=30", "seeds=[0, 1]"])
    {'training': {'epochs': 30}, 'controls': [], 'seeds': [0, 1]}
    """
    whole = long_form(json.loads(json.dumps(raw)))
    for setting in settings:
        path, equals, text = setting.partition("=")
        steps = path.strip().split(".")
        shown = f"--set {cut(setting)}"
        if not equals or not all(steps):
            raise BadInput(f"{shown}: the form is path=value, such as --set training.epochs=30.")
        value = _parsed(text, shown)
        _check_plain(value, shown, path.strip())
        here: Any = whole
        for depth, step in enumerate(steps):
            place: Any = step
            so_far = cut(".".join(steps[: depth + 1]), quoted=False)
            if isinstance(here, list):
                if not re.fullmatch(r"[0-9]{1,6}", step) or int(step) >= len(here):
                    places = f"it has {len(here)}, counted from 0"
                    raise BadInput(f"{shown}: {so_far} is no place in that list; {places}.")
                place = int(step)
            elif not isinstance(here, dict):
                before = cut(".".join(steps[:depth]), quoted=False)
                raise BadInput(f"{shown}: {before} is {_a(here)} and has no keys inside.")
            if depth == len(steps) - 1:
                here[place] = value
            else:
                if isinstance(here, dict) and here.get(step) is None:
                    if re.fullmatch("[0-9]+", steps[depth + 1]):
                        raise BadInput(
                            f"{shown}: the recipe has no {so_far}; give the whole list, {so_far}=[...]."
                        )
                    here[step] = {}
                here = here[place]
    if "controls" not in raw and not any(re.match(r"\s*controls\b", setting) for setting in settings):
        del whole["controls"]  # the usual ones belong to the shape, which may be another one now
    return whole


def long_form(whole: dict[str, Any]) -> dict[str, Any]:
    """Names of networks become mappings, and controls are filled in."""

    def model(value: Any) -> Any:
        said = {"name": value} if isinstance(value, str) else value
        if isinstance(said, dict):
            peers = said.get("peers")
            if peers is True:
                return {**said, "peers": {}}
            if isinstance(peers, int):
                return {**said, "peers": {"count": peers} if peers else None}
        return said

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
    for said in _teachings(whole):
        for part in ("balance", "curriculum", "sparse_codes"):
            if isinstance(said.get(part), bool):
                said[part] = {} if said[part] else None
    if "controls" not in whole:
        shape = ladder.get("shape") if isinstance(ladder, dict) else None
        teacher = isinstance(models, dict) and models.get("teacher") is not None
        usual = {"scratch": [], "peers": ["scratch", *(["direct"] if teacher else [])]}
        whole["controls"] = (
            usual.get(shape, ["scratch", "direct"]) if isinstance(shape, str) else ["scratch", "direct"]
        )
    return whole


def _teachings(whole: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The recipe's teaching, and what differs from it in stages."""
    ladder = whole.get("ladder")
    stages = ladder.get("stages") if isinstance(ladder, dict) else None
    for holder in (whole, *(stages if isinstance(stages, list) else ())):
        if isinstance(holder, dict) and isinstance(holder.get("teaching"), dict):
            yield holder["teaching"]
