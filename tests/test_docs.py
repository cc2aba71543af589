"""Every command and snippet of the README and the documentation is run, or checked as far as it can be.

What counts as one, and what is done with it:

- A block says its language, which is one of ``LANGUAGES``. ``text`` is a form, a formula or an output, and is not checked.
- ``sh``: every line is a command of a kind in ``KINDS``. Lines of ``understudy`` are parsed by the command itself and then
  run, in their order on the page, in a folder where the files they name have been made up; ``NOT_RUN`` says which are not.
- ``yaml``: a mapping with ``data:`` and either ``models:`` or ``ladder.stages`` is a whole recipe. Any other mapping is a
  fragment, put into a small recipe in place of its sections. Both are checked and their ladders built, on made-up data.
- ``python``: run, the blocks of one page one after the other in one namespace. ``<!-- not run: why -->`` before a block
  leaves it at compiling.
- ``json``: parsed.
- Between backticks in running text, ``understudy …``, ``make …`` and ``pip install …`` are commands (two words are the name
  of one), ``--option`` is an option that a command has, and ``key: value`` is a fragment, whose key is one of a recipe's
  sections or of the keys in one. With ``…`` in it, it is a form, and only the name of its command or option is looked at.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
import yaml
from PIL import Image
from safetensors.torch import save_file

from tests.recipe.tiny import TEXT, write_data
from understudy.cli import app, main
from understudy.errors import BadInput, UnderstudyError
from understudy.models import build as network
from understudy.recipe import Recipe, check, read_text
from understudy.recipe.building import build

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = ("sh", "yaml", "python", "json", "text")
SECTIONS = tuple(Recipe.model_fields)
KINDS = {
    "understudy": "parsed and run",
    "make": "its target is in the Makefile",
    "pip": "installs this project, with extras that it has",
    "python3": "makes an environment, or runs a file of ours",
    ".": "enters an environment",
}
# commands that are parsed and not run here: why
NOT_RUN = {
    "demo": "takes a minute; tests of the recipe in it and of `run` say the same",
    "data": "needs a public download; tests/data/test_tiny_imagenet.py makes such a folder",
}
PIXELS = 32
BASE = """\
data: {path: arrays.npz, validation: 0.2}
ladder: {shape: dense}
models: {teacher: resnet-14, assistants: [plain_cnn-4], student: plain_cnn-2}
training: {epochs: 2, precision: fp32, device: cpu}
"""


# ------------------------------------------------------------------------------------------------ finding snippets
@dataclass(frozen=True)
class Snippet:
    """A block, or (language empty) what stands between backticks."""

    page: Path
    line: int
    language: str
    text: str
    before: str  # the line above a block

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"


def snippets_of(page: Path) -> Iterator[Snippet]:
    lines = page.read_text("utf-8").splitlines()
    at = 0
    while at < len(lines):
        if opened := re.fullmatch(r"( *)```(\S*).*", lines[at]):
            end = next(i for i in range(at + 1, len(lines)) if lines[i].strip() == "```")
            inside = "\n".join(line.removeprefix(opened[1]) for line in lines[at + 1 : end])
            before = next((line.strip() for line in reversed(lines[:at]) if line.strip()), "")
            yield Snippet(page, at + 1, opened[2] or "none", inside + "\n", before)
            at = end
        else:
            for span in re.findall(r"`([^`]+)`", lines[at]):
                yield Snippet(page, at + 1, "", span, "")
        at += 1


SNIPPETS = [snippet for page in PAGES for snippet in snippets_of(page)]
BLOCKS = [snippet for snippet in SNIPPETS if snippet.language]
SPANS = [snippet for snippet in SNIPPETS if not snippet.language]


def commands_of(snippet: Snippet) -> list[list[str]]:
    """Words of each command; a line that ends with a backslash goes on."""
    text = snippet.text.replace("\\\n", " ")
    found = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [words for words in found if words]


def is_form(snippet: Snippet) -> bool:
    return "…" in snippet.text or "..." in snippet.text


def in_sh() -> list[tuple[Snippet, list[str]]]:
    return [(block, words) for block in BLOCKS if block.language == "sh" for words in commands_of(block)]


def in_text() -> list[tuple[Snippet, list[str]]]:
    return [
        (span, shlex.split(span.text))
        for span in SPANS
        if re.match(r"(understudy|make|pip install) \S", span.text)
    ]


def fragments() -> list[tuple[Snippet, dict[str, Any]]]:
    """Mappings in YAML that stand between backticks."""
    found = []
    for span in SPANS:
        if re.match(r"[a-z_]+: \S", span.text) and not is_form(span):
            value = yaml.safe_load(span.text)
            assert isinstance(value, dict), f"{span}: {span.text}"
            found.append((span, value))
    return found


def called(commands: Sequence[tuple[Snippet, list[str]]], name: str) -> list[Any]:
    return [
        pytest.param(snippet, words, id=f"{snippet} {' '.join(words)}")
        for snippet, words in commands
        if words[0] == name
    ]


# ------------------------------------------------------------------------------------------------------- languages
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_says_its_language(block: Snippet) -> None:
    assert block.language in LANGUAGES, f"{block}: one of {', '.join(LANGUAGES)}"


def test_every_line_of_a_shell_is_of_a_known_kind() -> None:
    unknown = [f"{block}: {' '.join(words)}" for block, words in in_sh() if words[0] not in KINDS]
    assert unknown == []


def test_every_json_is_json() -> None:
    for block in BLOCKS:
        if block.language == "json":
            assert json.loads(block.text) is not None, str(block)


# -------------------------------------------------------------------------------------------------- shell commands
@pytest.mark.parametrize(("snippet", "words"), called([*in_sh(), *in_text()], "make"))
def test_every_make_target_exists(snippet: Snippet, words: list[str]) -> None:
    targets = set(re.findall(r"^([a-z-]+):(?!=)", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    variables = set(re.findall(r"^([A-Z]+) *\?=", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for word in words[1:]:
        name, equals, _ = word.partition("=")
        assert name in (variables if equals else targets), str(snippet)


@pytest.mark.parametrize(("snippet", "words"), called([*in_sh(), *in_text()], "pip"))
def test_every_extra_that_is_installed_exists(snippet: Snippet, words: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for word in words[1:]:
        place = re.fullmatch(r"(install|\.|understudy)(?:\[([a-z,]+)\])?", word)
        assert place, str(snippet)
        assert set((place[2] or "").split(",")) - {""} <= project["optional-dependencies"].keys(), str(
            snippet
        )


@pytest.mark.parametrize(("snippet", "words"), called(in_sh(), "python3"))
def test_python_makes_an_environment_or_runs_what_is_there(snippet: Snippet, words: list[str]) -> None:
    assert words[1:3] == ["-m", "venv"] or (ROOT / words[1]).is_file(), str(snippet)


def parsed(words: Sequence[str]) -> tuple[str, Any]:
    """The command that ``words`` call, by name, and what it makes of them; nothing is run."""
    command: Any = typer.main.get_command(app)
    rest, path = list(words[1:]), "understudy"
    while rest and rest[0] in getattr(command, "commands", {}):
        path = f"{path} {rest[0]}"
        command = command.commands[rest.pop(0)]
    if not getattr(command, "commands", None) or (rest and rest[0].startswith("-")):
        try:
            command.make_context(path, list(rest))
        except Exception as error:
            if type(error).__name__ != "Exit":  # --help and --version end here
                raise AssertionError(f"{' '.join(words)}: {error!r}") from error
    else:
        assert not rest, f"{path} has no command {rest[0]!r}"
    return path.removeprefix("understudy").strip(), command


@pytest.mark.parametrize(("snippet", "words"), called([*in_sh(), *in_text()], "understudy"))
def test_every_command_is_one_with_options_that_it_has(snippet: Snippet, words: list[str]) -> None:
    if is_name(snippet, words):
        command: Any = typer.main.get_command(app)
        for word in words[1:]:
            assert word in command.commands, f"{snippet}: {snippet.text}"
            command = command.commands[word]
    else:
        parsed([word.replace("…", "something") for word in words])


def is_name(snippet: Snippet, words: list[str]) -> bool:
    """Two words between backticks (three for the store) are the name of a command, not a call of it."""
    return not snippet.language and len(words) <= (3 if words[1] == "store" else 2) and words[-1].isalpha()


def options() -> set[str]:
    def of(command: Any) -> Iterator[str]:
        for parameter in command.params:
            yield from (*parameter.opts, *parameter.secondary_opts)
        for sub in getattr(command, "commands", {}).values():
            yield from of(sub)

    return {*of(typer.main.get_command(app)), "--help"}


@pytest.mark.parametrize("span", [s for s in SPANS if re.match(r"--[a-z]", s.text)], ids=str)
def test_every_option_that_is_named_exists(span: Snippet) -> None:
    for word in re.findall(r"--[a-z0-9-]+", span.text):
        assert word in options(), f"{span}: {span.text}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run in runs/made and its store; copied to where a page names a run."""
    folder = tmp_path_factory.mktemp("finished")
    write_data(folder / "data.npz")
    (folder / "recipe.yaml").write_text(TEXT, "utf-8")
    arguments = ["run", "recipe.yaml", "--out", "runs/made", "--seeds", "2", "--quiet"]
    assert in_folder(folder, arguments) == 0
    return folder


def in_folder(folder: Path, arguments: Sequence[str]) -> Any:
    before = Path.cwd()
    os.chdir(folder)
    try:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        return ended.value.code
    finally:
        os.chdir(before)


def runnable(page: Path) -> list[tuple[Snippet, list[str]]]:
    """Calls of ``understudy`` on a page, in order, that are neither forms nor mere names."""
    found = []
    for snippet, words in sorted([*in_sh(), *in_text()], key=lambda pair: pair[0].line):
        if snippet.page == page and words[0] == "understudy" and not is_form(snippet):
            if is_name(snippet, words) or words[1] in NOT_RUN or "completion" in " ".join(words):
                continue
            found.append((snippet, words))
    return found


def make_up(words: Sequence[str], folder: Path, finished: Path) -> None:
    """What a command names and is not there yet: a small recipe, a finished run, its store, an archive of stages."""
    for word in words[2:]:
        path = folder / word
        if path.suffix == ".yaml" and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(TEXT, "utf-8")
            shutil.copy(finished / "data.npz", folder)
    kept = folder / "runs" / ".store"
    if not kept.exists() and words[1] in ("store", "report", "compare", "export"):
        shutil.copytree(finished / "runs" / ".store", kept)
    if words[1] in ("report", "compare", "export"):
        for word in words[2:]:
            if not word.startswith("-") and "/" in word and not (folder / word).exists():
                shutil.copytree(finished / "runs" / "made", folder / word)
    if words[1:3] == ["store", "import"] and not (folder / words[3]).exists():
        assert in_folder(finished, ["store", "export", str(folder / words[3])]) == 0


@pytest.mark.parametrize(
    "page", [page for page in PAGES if runnable(page)], ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_every_command_of_a_page_runs(
    page: Path,
    tmp_path: Path,
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("UNDERSTUDY_STORE", raising=False)
    monkeypatch.setattr("webbrowser.open", lambda *arguments, **more: True)
    for snippet, words in runnable(page):
        make_up(words, tmp_path, finished)
        status = in_folder(tmp_path, words[1:])
        assert status in (0, None), f"{snippet}: {' '.join(words)}: {capsys.readouterr().err}"


# --------------------------------------------------------------------------------------------------------- recipes
@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up data and weights under the names that pages use."""
    folder = tmp_path_factory.mktemp("data")
    write_data(folder / "arrays.npz", classes=4, size=PIXELS, channels=3)
    stream = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(12):
            pixels = stream.integers(0, 256, (PIXELS, PIXELS, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{number}.png")
    return folder


def put_in(whole: dict[str, Any], fragment: dict[str, Any]) -> dict[str, Any]:
    """A recipe with the sections of a fragment in place of its own; the keys of a mapping one by one."""
    merged = dict(whole)
    for name, value in fragment.items():
        here = merged.get(name)
        merged[name] = {**here, **value} if isinstance(here, dict) and isinstance(value, dict) else value
    if merged.get("structure"):  # its assistants are structures
        merged["models"] = {k: v for k, v in merged["models"].items() if k != "assistants"}
    if "stages" in (merged.get("ladder") or {}):
        merged.pop("models", None)
        merged["ladder"].pop("shape", None)
    if {"hub", "name"} & set(fragment.get("data", {})) and "path" not in fragment["data"]:
        merged["data"].pop("path", None)
    return merged


def is_whole(recipe: dict[str, Any]) -> bool:
    return "data" in recipe and ("models" in recipe or "stages" in (recipe.get("ladder") or {}))


def checked(raw: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe is valid, and its ladder can be built on made-up data (a hub's set and an extra's networks: valid)."""
    monkeypatch.chdir(folder)
    said = json.dumps(raw)
    if "path" in raw["data"] and not Path(raw["data"]["path"]).exists():
        raw = {**raw, "data": {**raw["data"], "path": "arrays.npz"}}
    for name, model in files_of_weights(raw):
        write_weights(Path(name), model, classes=2 if raw["data"].get("path") == "photos" else 4)
    recipe = check(raw)
    if not ("hub" in raw["data"] or "transforms" in said or re.search(r"(timm|torchvision)/", said)):
        assert build(recipe).jobs


def files_of_weights(raw: dict[str, Any]) -> Iterator[tuple[str, str]]:
    models = raw.get("models") or {}
    for entry in [models.get("teacher"), *(models.get("assistants") or []), models.get("student")]:
        if isinstance(entry, dict):
            for key in ("weights", "start"):
                if str(entry.get(key, "")).endswith((".safetensors", ".pt")):
                    yield entry[key], entry["name"]


def write_weights(path: Path, model: str, *, classes: int) -> None:
    tensors = network(model, classes=classes).state_dict()
    if path.suffix == ".pt":
        torch.save(tensors, path)
    else:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "yaml"], ids=str)
def test_every_recipe_and_every_fragment_can_be_built(
    block: Snippet, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = read_text(block.text, source=str(block))
    if is_whole(written):
        checked(written, data_folder, monkeypatch)
    else:
        assert set(written) <= set(SECTIONS), f"{block}: neither a recipe nor a part of one"
        checked(put_in(read_text(BASE), written), data_folder, monkeypatch)


def places(fragment: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Where in a recipe a mapping of one key can stand: as a section, or in one."""
    (key,) = fragment
    if key in SECTIONS:
        yield fragment
    for section in ("data", "ladder", "teaching", "training"):
        yield {section: fragment}
    yield {"data": {"views": fragment}}
    yield {"ladder": {"stochastic": fragment}}
    yield {"models": {"teacher": {"name": "resnet-14", **fragment}}}
    yield {"controls": ["scratch", "direct", fragment]}


@pytest.mark.parametrize(
    ("span", "fragment"),
    [pytest.param(span, fragment, id=f"{span} {span.text}") for span, fragment in fragments()],
)
def test_every_key_with_its_value_is_one_of_a_recipe(
    span: Snippet, fragment: dict[str, Any], data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []
    for place in places(fragment):
        try:
            checked(put_in(read_text(BASE), place), data_folder, monkeypatch)
        except UnderstudyError as error:
            refused.append(str(error))
        else:
            return
    raise AssertionError(f"{span}: {span.text} fits nowhere in a recipe: {refused}")


def test_a_fragment_that_no_recipe_can_hold_is_noticed(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadInput, match="softweight"):
        checked(put_in(read_text(BASE), {"teaching": {"softweight": 0.5}}), data_folder, monkeypatch)


# ---------------------------------------------------------------------------------------------------------- python
def test_every_program_runs(
    tmp_path: Path, data_folder: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNDERSTUDY_STORE", raising=False)
    for page in PAGES:
        folder = tmp_path / "-".join(page.relative_to(ROOT).with_suffix("").parts)
        names: dict[str, Any] = {"__name__": "page"}
        for block in BLOCKS:
            if block.page != page or block.language != "python":
                continue
            if not folder.exists():
                shutil.copytree(data_folder, folder)
                shutil.copytree(finished, folder, dirs_exist_ok=True)
                monkeypatch.chdir(folder)
            program = compile("\n" * block.line + block.text, str(page), "exec")
            if not re.match(r"<!-- not run: .+ -->", block.before):
                exec(program, names)


def test_every_public_name_has_its_place_in_the_reference() -> None:
    import understudy

    page = (ROOT / "docs" / "reference" / "api.md").read_text("utf-8")
    named = re.findall(r"^::: (\S+)$", page, flags=re.MULTILINE)
    for name in named:
        module, _, last = name.rpartition(".")
        try:
            importlib.import_module(name)
        except ImportError:
            assert hasattr(importlib.import_module(module), last), name
    for public in understudy.__all__:
        thing = getattr(understudy, public)
        home = getattr(thing, "__module__", thing.__name__)
        assert any(place in (home, f"{home}.{getattr(thing, '__name__', public)}") for place in named), public
