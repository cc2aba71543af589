"""The project as a whole: what an import costs, and that its papers say what is so."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import understudy

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
SOURCES = sorted(path for folder in ("src", "tests", "tools") for path in (ROOT / folder).rglob("*.py"))

IMPORT = "import understudy"
HELP = "import runpy, sys; sys.argv = ['understudy', '--help']; runpy.run_module('understudy', run_name='__main__')"


def page_id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def child(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )


def modules_after(code: str) -> set[str]:
    """Top-level names in ``sys.modules`` of a new Python that ran ``code``, a clean exit of it included."""
    report = (
        "import atexit, json, sys; atexit.register(lambda: print('\\n' + json.dumps(sorted(sys.modules))))\n"
    )
    done = child(report + code)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def processor_seconds(code: str) -> float:
    """What a new Python that runs ``code`` takes of the processor, in seconds; other load does not count."""
    before = os.times()
    done = child(code)
    after = os.times()
    assert done.returncode == 0, done.stderr
    return (after.children_user - before.children_user) + (after.children_system - before.children_system)


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def code_of(text: str) -> list[str]:
    """Lines of code blocks, and code spans."""
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    return [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()] + spans


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = {"torch", "numpy", "sklearn", "pydantic", "typer", "rich", "PIL", "yaml", "jinja2"}
    assert heavy & modules_after(IMPORT) == set()


def test_help_loads_nothing_heavy() -> None:
    heavy = {"torch", "numpy", "sklearn", "scipy", "torchvision", "timm", "datasets", "PIL"}
    assert heavy & modules_after(HELP) == set()


@pytest.mark.parametrize("code", [IMPORT, HELP], ids=["import", "help"])
def test_starting_takes_less_than_half_a_second(code: str) -> None:
    assert min(processor_seconds(code) for _ in range(3)) < 0.5


def test_the_installed_command_is_the_module() -> None:
    script = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]["understudy"]
    module, _, function = script.partition(":")
    done = child(f"import {module}; assert callable({module}.{function})")
    assert done.returncode == 0, done.stderr


def test_the_licence_is_the_one_that_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    licence = (ROOT / "LICENSE").read_text("utf-8")
    assert project["license"] == "Apache-2.0"
    assert re.search(r"Apache License\s+Version 2\.0, January 2004", licence)
    assert "END OF TERMS AND CONDITIONS" in licence


def test_the_changelog_knows_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.search(rf"\b{re.escape(understudy.__version__)}\b", changelog)
    assert "## [Unreleased]" in changelog


def test_the_readme_names_the_torch_versions_that_pip_accepts() -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    torch = next(line for line in dependencies if line.startswith("torch>="))
    lowest, below = re.fullmatch(r"torch>=2\.(\d+),<2\.(\d+)", torch).groups()  # type: ignore[union-attr]
    assert f"PyTorch 2.{lowest} to 2.{int(below) - 1}" in (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_local_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        destination = (page.parent / file) if file else page
        assert destination.is_file(), f"{page_id(page)} links to {target}"
        if anchor:
            assert anchor in anchors_of(destination), f"{page_id(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):(?!=)", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE))
    for line in code_of(page.read_text("utf-8")):
        if named := re.match(r"make ([a-z-]+)", line):
            assert named.group(1) in targets, f"{page_id(page)}: {line}"


def test_every_command_that_is_named_exists() -> None:
    commands = child(HELP).stdout
    for page in PAGES:
        for line in code_of(page.read_text("utf-8")):
            if named := re.match(r"understudy ([a-z]+)", line):
                assert re.search(rf"\b{named.group(1)}\b", commands), f"{page_id(page)}: {line}"


def test_ci_runs_the_command_that_the_readme_names() -> None:
    assert "make test" in (ROOT / "README.md").read_text("utf-8")
    assert re.search(r"^\s*make\b.*\btest\b", (ROOT / ".ci" / "run").read_text("utf-8"), flags=re.MULTILINE)


@pytest.mark.parametrize("source", [path for path in SOURCES if "src" in path.parts], ids=page_id)
def test_nothing_reads_or_writes_pickle(source: Path) -> None:
    forbidden = {"cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            assert not forbidden & {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").partition(".")[0] not in {*forbidden, "pickle"}
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle":
            assert node.attr == "UnpicklingError", f"line {node.lineno}: only its error may be named"
        elif isinstance(node, ast.Call):
            keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert keywords.get("allow_pickle", "False") == "False"
            if ast.unparse(node.func) == "torch.load":
                assert keywords.get("weights_only") == "True", f"line {node.lineno}"


def test_the_torchvision_script_tells_variables_from_functions() -> None:
    # Mangled by the Itanium C++ ABI: Cache::allocator, f(), Stream::query() const, set(c10::cuda::Stream).
    spec = importlib.util.spec_from_file_location("torchvision_cpu", ROOT / "tools" / "torchvision_cpu.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.is_variable("_ZN3c104cuda5Cache9allocatorE")
    assert not script.is_variable("_ZN3c104cuda1fEv")
    assert not script.is_variable("_ZNK3c104cuda6Stream5queryEv")
    assert not script.is_variable("_ZN3c104cuda3setENS0_6StreamE")
