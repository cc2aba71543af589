from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.deploy.made import IMAGE, NAMES, PREPROCESSING, small, split
from understudy.deploy.export import check_packages, export
from understudy.deploy.parity import NotAlike
from understudy.deploy.student import Student
from understudy.errors import BadInput, MissingExtra
from understudy.models import build
from understudy.models.peers import PeerForm, peer_network, weights_of_peer
from understudy.store.files import sha256_of_file

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

BLOCKED = "import sys; sys.modules['understudy'] = None; sys.modules['torchvision'] = None; "
ALONE = {
    "onnx": BLOCKED
    + """
import json, numpy as np, onnxruntime
pixels = np.load(sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[1])
print(json.dumps(session.run(None, {"images": pixels})[0].tolist()))
assert "torch" not in sys.modules
""",
    "torch": BLOCKED
    + """
import json, numpy as np, torch
pixels = torch.from_numpy(np.load(sys.argv[2]))
with torch.no_grad():
    print(json.dumps(torch.export.load(sys.argv[1]).module()(pixels).tolist()))
""",
}


@pytest.fixture
def student(tmp_path: Path) -> Student:
    weights = tmp_path / "student.safetensors"
    weights.write_bytes(b"0" * 1234)
    return Student(
        model=small(),
        preprocessing=PREPROCESSING,
        class_names=NAMES,
        channels=3,
        image=IMAGE,
        card={"name": "small", "seed": 0, "weights": {"file": weights.name}},
        weights=weights,
    )


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"student.safetensors"}


@pytest.mark.parametrize("to", ["onnx", "torch"])
def test_the_file_runs_where_understudy_cannot_be_imported(student: Student, tmp_path: Path, to: str) -> None:
    import numpy as np

    ending = {"onnx": ".onnx", "torch": ".pt2"}[to]
    made = export(student, tmp_path / f"a{ending}", to=to, split=split(), with_preprocessing=True)
    images = torch.from_numpy(split(5).images.fetch(np.arange(5))).permute(0, 3, 1, 2).contiguous()
    np.save(tmp_path / "pixels.npy", images.float().numpy())
    ended = subprocess.run(
        [sys.executable, "-c", ALONE[to], str(made.path), str(tmp_path / "pixels.npy")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert ended.returncode == 0, ended.stderr
    answers = torch.tensor(json.loads(ended.stdout.splitlines()[-1]))
    torch.testing.assert_close(answers, small()(PREPROCESSING(images)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("to", ["onnx", "torch"])
@pytest.mark.parametrize("which", ["first", "ensemble"])
def test_peers_are_exported_as_their_first_or_their_ensemble(
    student: Student, tmp_path: Path, to: str, which: str
) -> None:
    def resnet() -> torch.nn.Module:
        return build("resnet-8", classes=3, channels=3, size=(8, 8), width=0.5)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        together = peer_network(resnet, PeerForm(count=2), channels=3, size=(8, 8))
    alone = resnet()
    alone.load_state_dict(weights_of_peer(together.state_dict()))
    model = (together if which == "ensemble" else alone).eval().requires_grad_(False)
    ending = {"onnx": ".onnx", "torch": ".pt2"}[to]
    made = export(
        replace(student, model=model), tmp_path / f"a{ending}", to=to, split=split(), with_preprocessing=True
    )
    assert made.parity is not None
    assert made.parity.differing == 0


def test_what_an_engineer_needs_stands_beside_it(student: Student, tmp_path: Path) -> None:
    made = export(student, tmp_path / "new" / "a.onnx", to="onnx", split=split(), part="test")
    assert left(tmp_path / "new") == {"a.onnx", "a.onnx.json"}
    said = json.loads(made.beside.read_text("utf-8"))
    assert said["file"] == "a.onnx"
    assert said["sha256"] == sha256_of_file(made.path)
    assert said["bytes"] == made.bytes == made.path.stat().st_size
    assert made.weights_bytes == 1234
    assert said["class_names"] == list(NAMES)
    assert said["input"]["shape"] == ["batch", 3, 8, 8]
    assert said["output"]["shape"] == ["batch", 3]
    assert said["preprocessing"]["mean"] == [0.5, 0.4, 0.3]
    assert said["preprocessing"]["left_to_do"][1] == "resize to 8 x 8 (bilinear, antialiased)"
    assert (said["parity"]["differing"], said["parity"]["part"]) == (0, "test")
    assert said["versions"]["torch"] == torch.__version__


def test_with_preprocessing_nothing_is_left_to_do(student: Student, tmp_path: Path) -> None:
    made = export(student, tmp_path / "a.pt2", to="torch", split=None, with_preprocessing=True)
    said = json.loads(made.beside.read_text("utf-8"))
    assert said["input"]["shape"] == ["batch", 3, *IMAGE]
    assert said["preprocessing"]["left_to_do"] == []
    assert made.parity is None
    assert said["parity"] is None


def test_a_file_that_answers_otherwise_never_appears_and_an_older_one_goes(
    student: Student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out" / "a.onnx"
    export(student, out, to="onnx", split=split())
    from understudy.deploy import export as module
    from understudy.deploy.onnx_export import write_onnx

    def broken(model: torch.nn.Module, path: Path, **arguments: object) -> None:
        model.get_submodule("block.0").weight.data *= -4  # type: ignore[union-attr]
        write_onnx(model, path, **arguments)  # type: ignore[arg-type]
        model.get_submodule("block.0").weight.data /= -4  # type: ignore[union-attr]

    monkeypatch.setitem(module._WRITERS, "onnx", broken)
    with pytest.raises(NotAlike, match=r"a\.onnx answers \d+ of 40 .* layer 'block\.0'"):
        export(student, out, to="onnx", split=split())
    assert left(out.parent) == set()


def test_an_unknown_target_leaves_an_older_file_alone(student: Student, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"old")
    with pytest.raises(BadInput, match="is no target"):
        export(student, tmp_path / "a.onnx", to="onx", split=None)
    with pytest.raises(BadInput, match=r"files for torch end in \.pt2"):
        export(student, tmp_path / "a.onnx", to="torch", split=None)
    assert (tmp_path / "a.onnx").read_bytes() == b"old"


def test_missing_packages_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "executorch", None)
    monkeypatch.setitem(sys.modules, "executorch.exir", None)
    with pytest.raises(
        MissingExtra, match=r'ExecuTorch program needs .* pip install "understudy\[executorch\]"$'
    ):
        check_packages("executorch", prove=True)
    check_packages("torch", prove=True)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    check_packages("onnx", prove=False)
    with pytest.raises(MissingExtra, match=r'running an ONNX file needs .*"understudy\[export\]"$'):
        check_packages("onnx", prove=True)
