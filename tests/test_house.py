"""The house: which room may know which, that nothing goes round in a circle, and that every room says what is in it.

All imports are read from the sources, those inside functions too: an import that is only late is still knowledge.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "understudy"

# A room may know the rooms on lower floors and the ground; not those above, and not those beside it.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("compress",),
    ("__init__",),  # the public names: a front door to the rooms below, opened when a name is asked for
    ("climb",),
    ("outcome", "shapes"),
    ("report", "callbacks"),
    ("recipe",),
    ("ladder",),
    ("training", "deploy"),
    ("teaching", "tasks"),
    ("structure",),
    ("losses",),
    ("models", "data", "store"),
)
GROUND = {
    "errors": "what can go wrong, for every room",
    "processes": "how processes are started, for every room that needs some",
    "randomness": "named random streams, for every room",
}

# (who, whom): why it may be so although the floors say otherwise
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("cli", "__init__"): "asks for the version, the one name there that is no door",
    ("training.precision", "__init__"): "asks for the version, the one name there that is no door",
    ("deploy.export", "__init__"): "asks for the version, the one name there that is no door",
    ("deploy.latency", "__init__"): "asks for the version, the one name there that is no door",
}

# Who else may read files from outside with these two, beside recipe/
READERS: dict[tuple[str, str], str] = {
    ("report.result", "pydantic"): "checks result.json, which comes from outside as a recipe does",
}

HEAVY_EXTRAS = {
    "timm",
    "torchvision",
    "datasets",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "tensorboard",
    "mlflow",
    "wandb",
    "ray",
    "pandas",
    "matplotlib",
}

DOCUMENTED = ("losses", "teaching", "data", "store", "ladder", "models")


@dataclass(frozen=True)
class Import:
    """One name that one module imports.

    Attributes:
        who: dotted path of the importing module below ``understudy``; a package is called by its folder.
        whom: the same of the imported module, or the top-level name of another package.
        own: whether ``whom`` is one of ours.
        line: where.
        top: at the top level of the module, so that it happens when the module is imported.
        typing: under ``if TYPE_CHECKING:``, so that it never happens.
    """

    who: str
    whom: str
    own: bool
    line: int
    top: bool
    typing: bool


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


@cache
def modules() -> dict[str, Path]:
    return {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(who: str, tree: ast.Module) -> Iterator[Import]:
    def walk(node: ast.AST, *, top: bool, typing: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                for whom, own in targets(child):
                    yield Import(who, whom, own, child.lineno, top, typing)
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            never = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from walk(child, top=top and not inside, typing=typing or never)

    yield from walk(tree, top=True, typing=False)


def targets(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, bool]]:
    """Modules that a statement names. ``from a.b import c`` is a.b.c where that is a module, else a.b."""
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are written in full"
        names = [f"{node.module}.{name.name}" for name in node.names]
    else:
        names = [name.name for name in node.names]
    for name in names:
        first, _, rest = name.partition(".")
        if first != "understudy":
            yield first, False
            continue
        while rest and rest not in modules():
            rest = rest.rpartition(".")[0]
        yield rest or "__init__", True


@cache
def all_imports() -> tuple[Import, ...]:
    found: list[Import] = []
    for who, path in modules().items():
        found += imports_of(who, ast.parse(path.read_text("utf-8")))
    return tuple(found)


def room(module: str) -> str:
    return module.partition(".")[0]


def floor(name: str) -> int:
    """Counted from below; the ground is -1."""
    if name in GROUND:
        return -1
    return next(i for i, rooms in enumerate(reversed(FLOORS)) if name in rooms)


def rooms() -> list[str]:
    return sorted({room(module) for module in modules()})


# ------------------------------------------------------------------------------------------------------- arrows
def test_every_room_has_its_floor() -> None:
    placed = {name for rooms_here in FLOORS for name in rooms_here} | GROUND.keys()
    assert set(rooms()) == placed, (
        "a new room is put on its floor here, and into docs/explanation/the-house.md"
    )


def test_every_arrow_points_downwards() -> None:
    wrong = [
        f"{one.who}:{one.line} knows {one.whom}"
        for one in all_imports()
        if one.own
        and room(one.who) != room(one.whom)
        and floor(room(one.who)) <= floor(room(one.whom))
        and (one.who, one.whom) not in EXCEPTIONS
    ]
    assert wrong == []


def test_no_exception_outlives_its_cause() -> None:
    there = {(one.who, one.whom) for one in all_imports()}
    assert EXCEPTIONS.keys() | READERS.keys() <= there
    for (who, whom), _ in EXCEPTIONS.items():
        assert whom == "__init__" or floor(room(who)) <= floor(room(whom))


def test_of_the_public_names_only_the_version_is_used_inside() -> None:
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "understudy":
                whole = {found.name for found in node.names if found.name not in modules()}
                assert whole <= {"__version__"}, f"{name}:{node.lineno}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports inside functions count. Those under TYPE_CHECKING do not: they never happen. Neither does the version,
    see EXCEPTIONS, and neither that of a folder's ``__init__`` which Python makes on the way to a module in it."""
    arrows: dict[str, set[str]] = {module: set() for module in modules()}
    for one in all_imports():
        if one.own and not one.typing and (one.who, one.whom) not in EXCEPTIONS:
            arrows[one.who].add(one.whom)
    done: set[str] = set()

    def follow(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " knows ".join([*way[way.index(module) :], module])
        if module in done:
            return
        for whom in sorted(arrows[module]):
            follow(whom, (*way, module))
        done.add(module)

    for module in arrows:
        follow(module, ())


# ------------------------------------------------------------------------------------------ what a room may know
def test_a_loss_knows_tensors_and_other_losses() -> None:
    known = {one.whom for one in all_imports() if room(one.who) == "losses" and not one.own}
    assert known <= {"torch", "__future__", "math", "collections", "dataclasses", "typing"}
    assert {room(one.whom) for one in all_imports() if room(one.who) == "losses" and one.own} <= {"losses"}


def test_a_method_knows_no_optimiser_no_store_and_no_recipe() -> None:
    mine = [one for one in all_imports() if room(one.who) == "teaching"]
    assert {room(one.whom) for one in mine if one.own} <= {
        "teaching",
        "structure",  # what its penalty is about
        "models",  # the form of a network of peers, names of layers
        "losses",
        "errors",
        "randomness",
        "data",
    }
    used = {one.whom for one in mine if one.own and room(one.whom) == "data" and not one.typing}
    assert used <= {"data.ordering"}, "types, and the order of samples"
    for name, path in modules().items():
        if room(name) == "teaching":
            assert not re.search(r"\btorch\.optim\b", path.read_text("utf-8")), name


def test_the_loop_knows_no_method_and_no_task() -> None:
    known = {one.whom for one in all_imports() if room(one.who) == "training" and one.own}
    assert {name for name in known if room(name) in ("teaching", "tasks")} <= {"teaching.method"}


@pytest.mark.parametrize("package", ["pydantic", "yaml"])
def test_only_recipe_reads_what_a_person_wrote(package: str) -> None:
    outside = {
        one.who
        for one in all_imports()
        if one.whom == package and room(one.who) != "recipe" and (one.who, package) not in READERS
    }
    assert outside == set()


def test_only_the_command_knows_typer() -> None:
    assert {room(one.who) for one in all_imports() if one.whom in ("typer", "click")} == {"cli"}


def test_no_extra_is_imported_before_it_is_needed() -> None:
    early = [
        f"{one.who}:{one.line} {one.whom}" for one in all_imports() if one.top and one.whom in HEAVY_EXTRAS
    ]
    assert early == []


# ------------------------------------------------------------------------------------------ what a newcomer finds
@pytest.mark.parametrize("module", sorted(modules()))
def test_every_room_and_every_file_in_it_says_what_it_is(module: str) -> None:
    said = ast.get_docstring(ast.parse(modules()[module].read_text("utf-8")))
    assert said is not None
    assert len(said.split()) >= 3


@cache
def asked_for(room_name: str) -> frozenset[str]:
    """Names of the methods that the protocols in a room ask for and explain, and of the attributes they declare."""
    found = set()
    for module, path in modules().items():
        if room(module) != room_name:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "Protocol" for base in node.bases):
                for entry in node.body:
                    if isinstance(entry, ast.FunctionDef):
                        attribute = any(ast.unparse(one) == "property" for one in entry.decorator_list)
                        found.update([entry.name] if attribute or ast.get_docstring(entry) else [])
    return frozenset(found)


@pytest.mark.parametrize("module", [name for name in sorted(modules()) if room(name) in DOCUMENTED])
def test_everything_public_says_what_it_does(module: str) -> None:
    """A method may leave it to the class or protocol that it answers, or to torch's ``forward``, to say what is asked."""
    tree = ast.parse(modules()[module].read_text("utf-8"))
    public = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    silent = [node.name for node in public if not ast.get_docstring(node)]
    for node in public:
        cls = getattr(importlib.import_module(f"understudy.{module}"), node.name)
        for entry in node.body if isinstance(node, ast.ClassDef) else []:
            if not isinstance(entry, ast.FunctionDef) or entry.name.startswith("_"):
                continue
            said = any(inspect.getdoc(getattr(base, entry.name, None)) for base in cls.__mro__)
            if not said and entry.name not in asked_for(room(module)):
                silent.append(f"{node.name}.{entry.name}")
    assert silent == []


def test_the_house_is_drawn_as_it_is() -> None:
    page = (ROOT / "docs" / "explanation" / "the-house.md").read_text("utf-8")
    drawn: dict[str, set[str]] = {}
    for line in page.splitlines():
        if match := re.fullmatch(r"\| `([a-z_.]+?)/?` \|[^|]*\|([^|]*)\|", line.replace(".py`", "`")):
            drawn[match[1]] = set(re.findall(r"`([a-z_]+)`", match[2]))
    knows: dict[str, set[str]] = {
        name: set() for name in rooms() if not name.startswith("__") and name not in GROUND
    }
    for one in all_imports():
        if one.own and room(one.who) in knows:
            knows[room(one.who)].add(room(one.whom))
    for name, others in knows.items():
        others -= {name, "__init__", *GROUND}
    assert drawn == knows, f"the table should say {knows}"
