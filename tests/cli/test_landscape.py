from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.cli.conftest import Command
from tests.recipe.tiny import TEXT, write_data
from understudy.cli import main
from understudy.ladder.networks import rebuilt
from understudy.recipe import check, read_file
from understudy.recipe.building import build
from understudy.store import Store
from understudy.training.landscape import mean_loss, some_images

FEW = ("--points", "3", "--images", "20")


PEERS = """\
data: {path: data.npz, validation: 0.2}
ladder: {shape: peers}
models: {student: {name: resnet-8, width: 0.25, peers: 2}}
training: {epochs: 1, batch_size: 16, precision: fp32, device: cpu}
"""
STRUCTURE = """\
data: {path: data.npz, validation: 0.2}
ladder: {shape: direct}
models: {teacher: {name: plain_cnn-2, width: 0.25}}
structure: {budget: {multiply_adds: 0.6x}, strengths: [1.0]}
training: {epochs: 1, batch_size: 16, precision: fp32, device: cpu}
controls: [scratch]
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with finished runs of a ladder with two seeds, of peers and of a structure, and their store."""
    folder = tmp_path_factory.mktemp("finished")
    write_data(folder / "data.npz")
    before = Path.cwd()
    os.chdir(folder)
    try:
        for name, text, seeds in (("a", TEXT, "2"), ("peers", PEERS, "1"), ("structure", STRUCTURE, "1")):
            (folder / f"{name}.yaml").write_text(text, "utf-8")
            with pytest.raises(SystemExit) as ended:
                main(["run", f"{name}.yaml", "--out", f"runs/{name}", "--seeds", seeds, "--quiet"])
            assert ended.value.code == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, in which the command is called."""
    monkeypatch.delenv("UNDERSTUDY_STORE", raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def content(run: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(Path(run, "landscape.json").read_text("utf-8"))
    return value


def test_every_student_of_the_first_seed_is_looked_at(here: Path, understudy: Command) -> None:
    before = {path: path.read_bytes() for path in Path("runs/.store/stages").rglob("*") if path.is_file()}
    assert understudy("landscape", "runs/a", *FEW) == 0, understudy.err
    value = content("runs/a")
    assert (value["version"], value["seed"], value["images"], value["steps"]) == (1, 0, 20, [-0.5, 0.0, 0.5])
    assert [(arm["name"], arm["seed"]) for arm in value["arms"]] == [
        ("dense", 0),
        ("scratch", 0),
        ("direct", 0),
    ]
    lines = [" ".join(line.split()) for line in understudy.out.splitlines()]
    assert lines[-2:] == ["picture: runs/a/landscape.svg", "report: runs/a/report.html"]
    assert "student model as it is more around it" in lines
    assert any(line.startswith("direct plain_cnn-2 x0.125 ") for line in lines)
    after = {path: path.read_bytes() for path in Path("runs/.store/stages").rglob("*") if path.is_file()}
    assert after == before
    assert not list(Path("runs/a").glob(".part-*"))


def test_the_middle_is_the_loss_of_the_kept_weights_on_training_images(
    here: Path, understudy: Command
) -> None:
    assert understudy("landscape", "runs/a", "--points", "5", "--images", "9", "--arms", "direct") == 0
    (arm,) = content("runs/a")["arms"]
    built = build(check(read_file(Path("runs/a/recipe.yaml"))))
    job = next(job for job in built.jobs if (job.name, job.seed) == ("direct", 0))
    assert arm["key"] == job.key
    model = rebuilt(job, Store(Path("runs/.store")), built.dataset)
    images = some_images(built.dataset.train, job.stage.network.preprocessing(built.dataset), most=9, seed=0)
    assert sum(len(labels) for _, labels in images) == 9
    assert arm["loss"] == mean_loss(model, images)
    assert arm["grid"][2][2] == arm["loss"]
    assert len({value for row in arm["grid"] for value in row}) == 25


def test_the_page_shows_the_picture(here: Path, understudy: Command) -> None:
    assert 'id="landscape"' not in Path("runs/a/report.html").read_text("utf-8")
    assert understudy("landscape", "runs/a", *FEW) == 0
    page = Path("runs/a/report.html").read_text("utf-8")
    for part in (
        '<h2 id="landscape">Loss landscape</h2>',
        'href="#landscape"',
        "Loss around scratch, seed 0",
    ):
        assert part in page
    root = ElementTree.fromstring(Path("runs/a/landscape.svg").read_text("utf-8"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert understudy("report", "runs/a") == 0
    assert Path("runs/a/report.html").read_text("utf-8") == page
    Path("runs/a/landscape.json").write_text("{", "utf-8")
    assert understudy("report", "runs/a") == 0
    page = Path("runs/a/report.html").read_text("utf-8")
    assert "landscape.json is damaged: it is not JSON." in page
    assert 'id="landscape"' not in page


def test_the_same_call_gives_the_same_and_another_seed_other_directions(
    here: Path, understudy: Command
) -> None:
    assert understudy("landscape", "runs/a", *FEW) == 0
    first = content("runs/a")
    assert understudy("landscape", "runs/a", *FEW) == 0
    assert content("runs/a") == first
    assert understudy("landscape", "runs/a", *FEW, "--seed", "1", "--images", "10000") == 0
    other = content("runs/a")
    assert other["images"] == 48
    assert other["arms"][0]["grid"][0] != first["arms"][0]["grid"][0]


def test_arms_are_named_one_after_the_other_or_each_with_its_option(here: Path, understudy: Command) -> None:
    for names in (
        ("--arms", "direct", "dense"),
        ("--arms", "direct", "--arms", "dense"),
        ("--arms", "direct", "dense", "direct"),
    ):
        assert understudy("landscape", "runs/a", *FEW, *names) == 0
        assert [arm["name"] for arm in content("runs/a")["arms"]] == ["direct", "dense"]


@pytest.mark.parametrize(
    ("run", "names"),
    [("peers", ["peers", "peers ensemble", "scratch"]), ("structure", ["direct", "scratch"])],
)
def test_peers_and_smaller_networks_can_be_looked_at(
    run: str, names: list[str], here: Path, understudy: Command
) -> None:
    assert understudy("landscape", f"runs/{run}", *FEW) == 0, understudy.err
    arms = content(f"runs/{run}")["arms"]
    assert sorted(arm["name"] for arm in arms) == names
    assert all(arm["grid"][1][1] == arm["loss"] for arm in arms)


def test_bad_figures_are_one_line(here: Path, understudy: Command) -> None:
    refused = understudy.refused
    assert "points is 203; it is" in refused("landscape", "runs/a", "--points", "203")
    assert "points is 20; it is an odd number from 3 to 201" in refused(
        "landscape", "runs/a", "--points", "20"
    )
    assert "span is 0; it is above 0" in refused("landscape", "runs/a", "--span", "0")
    assert "--images is a whole number, 1 or more; got 0." in refused("landscape", "runs/a", "--images", "0")
    assert "--seed is a whole number from 0 to 2147483647; got -1." in refused(
        "landscape", "runs/a", "--seed", "-1"
    )
    assert not Path("runs/a/landscape.json").exists()


def test_what_is_no_run_and_no_student_is_one_line(here: Path, understudy: Command) -> None:
    refused = understudy.refused
    assert "runs/b is no run's folder" in refused("landscape", "runs/b")
    assert refused("landscape", "runs/a", "--arms", "drect") == (
        "understudy: --arms: 'drect' is no student of runs/a. Students: dense, scratch, direct. Did you mean 'direct'?"
    )
    assert "'teacher' is no student of runs/a." in refused("landscape", "runs/a", "--arms", "teacher")
    assert "one run at a time: runs/a, and not runs/peers." in refused("landscape", "runs/a", "runs/peers")
    assert "holds no store" in refused("landscape", "runs/a", "--store", "nowhere")
    Path("runs/a/recipe.yaml").unlink()
    assert "the run was started from Python" in refused("landscape", "runs/a")


def test_students_that_are_not_kept_are_left_out_or_said(here: Path, understudy: Command) -> None:
    built = build(check(read_file(Path("runs/a/recipe.yaml"))))
    keys = {job.name: job.key for job in built.jobs if job.seed == 0}
    shutil.rmtree(f"runs/.store/stages/{keys['scratch']}")
    assert "scratch, seed 0, is not kept in runs/.store. Run its recipe again" in understudy.refused(
        "landscape", "runs/a", "--arms", "scratch"
    )
    assert understudy("landscape", "runs/a", *FEW) == 0
    assert "note: scratch, seed 0, is not kept in runs/.store; it is left out." in understudy.out
    assert [arm["name"] for arm in content("runs/a")["arms"]] == ["dense", "direct"]
    for name in ("dense", "direct"):
        shutil.rmtree(f"runs/.store/stages/{keys[name]}")
    assert "no student of runs/a is kept in runs/.store." in understudy.refused("landscape", "runs/a")
