"""The programs and recipes under examples/ do what they say."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from understudy.cli import main
from understudy.data.batches import batch_of
from understudy.data.views import PLAIN
from understudy.deploy.student import Student, read_student
from understudy.ladder import pace
from understudy.models.peers import PeerNetwork
from understudy.recipe import check, read_file
from understudy.recipe.building import dataset_of
from understudy.report.result import read_result

EXAMPLES = Path(__file__).parent.parent / "examples"


def program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    sys.modules[name] = example  # where dataclasses look for the module they stand in
    spec.loader.exec_module(example)
    return example


def test_a_network_of_ones_own_is_taught_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = program("own_network")
    result = example.main(store=tmp_path / "store", epochs=1)
    first = capsys.readouterr().out
    assert [row.name for row in result.rows] == ["teacher", "direct", "scratch"]
    assert [row.model for row in result.rows] == ["plain_cnn-4 x0.5", "two_layers", "two_layers"]
    assert "two_layers" in first
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("weights.safetensors")}
    assert len(before) == 3

    again = example.main(store=tmp_path / "store", epochs=1)

    assert all(stage.from_store for stage in again.stages)
    assert capsys.readouterr().out == first
    assert {
        path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("weights.safetensors")
    } == before


def test_data_of_ones_own_are_learned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = program("own_data").main(store=tmp_path, epochs=3)
    assert result["scratch"].mean > 0.5
    assert "across: " in capsys.readouterr().out


def test_a_loss_of_ones_own_teaches_beside_the_usual_one(tmp_path: Path) -> None:
    result = program("own_loss").main(store=tmp_path, epochs=1)
    assert [row.name for row in result.rows] == ["teacher", "matched logits", "direct"]
    difference = result["matched logits"].difference
    assert difference.claim
    assert difference.n == 2
    own = next(stage for stage in result.stages if stage.name == "matched logits")
    assert own.curve[0]["loss"] > 0


def test_the_loss_of_the_example_is_zero_where_the_two_agree() -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    distance = program("own_loss").logit_distance(logits + 3.0, logits)
    torch.testing.assert_close(distance, torch.zeros(5), atol=1e-6, rtol=0)


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_every_program_has_a_test(example: Path) -> None:
    assert f'program("{example.stem}")' in Path(__file__).read_text("utf-8")


@pytest.mark.parametrize("recipe", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_recipe_is_valid(recipe: Path) -> None:
    checked = check(read_file(recipe))
    assert check(checked.as_dict()) == checked


# --- recipes that teach in other ways -------------------------------------------------------------------------------

TAUGHT = ["dense_balanced", "chain_curriculum", "dense_sparse_codes", "dense_peers"]
SMALL = [
    *(
        "training.epochs=2",
        "data.train_images=200",
        "data.test_images=60",
        "training.device=cpu",
        "seeds=[0]",
    ),
    *("models.teacher.width=0.25", "models.assistants.0.width=0.25"),
]


def run(name: str, folder: Path, *settings: str) -> Path:
    """The example made small and run by the command; its folder."""
    sets = [word for setting in (*SMALL, *settings) for word in ("--set", setting)]
    out = folder / name
    with pytest.raises(SystemExit) as ended:
        main(["run", str(EXAMPLES / f"{name}.yaml"), "--out", str(out), "--quiet", *sets])
    assert ended.value.code == 0
    return out


def accuracy(student: Student, recipe: Path) -> float:
    """Of the student on the test images, by its files alone."""
    test = dataset_of(check(read_file(recipe))).test
    pixels = batch_of(test, PLAIN, np.arange(len(test))).pixels
    with torch.no_grad():
        answers = student.model(student.preprocessing(pixels))
    return float((answers.argmax(1) == torch.tensor(test.labels)).double().mean())


@pytest.mark.parametrize("name", TAUGHT)
def test_a_recipe_runs_and_its_student_can_be_built_again(name: str, tmp_path: Path) -> None:
    own = ["teaching.sparse_codes.epochs=1"] if name == "dense_sparse_codes" else []
    out = run(name, tmp_path, *own)
    result = read_result(out)
    assert result["complete"]
    assert {stage["state"] for stage in result["stages"]} == {"done"}
    student = read_student(out)
    assert student.card["stage"] == result["delivered"]["name"]
    assert accuracy(student, out / "recipe.yaml") == student.card["test"]["accuracy"]


@pytest.mark.parametrize("deliver", ["first", "ensemble"])
def test_a_student_of_peers_can_be_built_again_alone_or_with_all_of_them(
    deliver: str, tmp_path: Path
) -> None:
    said = f"{{name: resnet-8, width: 0.25, peers: {{count: 2, deliver: {deliver}}}}}"
    out = run("dense_peers", tmp_path, f"models.student={said}", "training.epochs=1")
    student = read_student(out)
    together = deliver == "ensemble"
    assert student.card["stage"] == ("dense + peers ensemble" if together else "dense + peers")
    assert isinstance(student.model, PeerNetwork) is together
    wiring = student.card["architecture"]["wiring"]
    assert wiring.startswith("2 networks that share their first layers, the trunk: ") is together
    held = {"from": "dense + peers ensemble", "to": "dense + peers", "kind": "holds"}
    assert held in read_result(out)["ladder"]["edges"]
    assert accuracy(student, out / "recipe.yaml") == student.card["test"]["accuracy"]


def test_the_words_on_a_network_of_peers_are_enough_to_build_it_with_torch_alone(tmp_path: Path) -> None:
    said = "{name: plain_cnn_narrow-2, peers: {count: 3, deliver: ensemble}}"
    out = run("dense_peers", tmp_path, f"models.student={said}", "training.epochs=1", "controls=[]")
    card = json.loads((out / "student.json").read_text("utf-8"))
    tensors = load_file(out / "student.safetensors")

    def chain(prefix: str) -> nn.Sequential:
        steps: list[nn.Module] = []
        for layer in card["architecture"]["layers"]:
            if layer["name"] == prefix or layer["name"].startswith(f"{prefix}."):
                said = {k: tuple(v) if isinstance(v, list) else v for k, v in layer["arguments"].items()}
                step = getattr(nn, layer["type"])(**said)
                begin = f"{layer['name']}."
                own = {k.removeprefix(begin): v for k, v in tensors.items() if k.startswith(begin)}
                step.load_state_dict(own, strict=True)
                steps.append(step.eval())
        return nn.Sequential(*steps)

    wiring = card["architecture"]["wiring"]
    last = [
        layer["name"] for layer in card["architecture"]["layers"] if layer["name"].startswith("peers.0.")
    ][-1]
    without = f"without the layer '{last.removeprefix('peers.0.')}', for j = 0 to 2"
    assert f"features_j = peers.j(trunk(images)) {without}" in wiring
    trunk, peers, ensemble = chain("trunk"), [chain(f"peers.{j}") for j in range(3)], chain("ensemble")
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        shared = trunk(images)
        answers = ensemble(torch.cat([peer[:-1](shared) for peer in peers], dim=1))
        torch.testing.assert_close(answers, read_student(out).model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("recipe", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_recipe_whose_data_are_at_hand_can_be_planned(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pace, "_SECONDS", 0.01)
    at_hand = check(read_file(recipe)).data.name == "digits"
    with pytest.raises(SystemExit) as ended:
        main(["plan", str(recipe)])
    _, err = capsys.readouterr()
    assert ended.value.code == (0 if at_hand else 2), err
    assert "Traceback" not in err
