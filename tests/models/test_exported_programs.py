from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.errors import BadInput
from understudy.models import build
from understudy.models.exported_programs import ExportedNetwork
from understudy.models.frozen_files import open_network
from understudy.structure.cost import cost

CONFIG = "data/weights/model_weights_config.json"
PROGRAM = "models/model.json"


class Attention(nn.Module):
    """A small network with most kinds of arguments: lists of tensors, lengths that depend on the batch, constants."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 4, 2, stride=2)
        self.norm, self.dropout = nn.LayerNorm(4), nn.Dropout(0.5)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(68, 4)
        self.register_buffer("shift", torch.arange(4.0))

    def forward(self, images: Tensor) -> Tensor:
        patches = F.gelu(self.patches(images), approximate="tanh")
        tokens = self.norm(patches.flatten(2).transpose(1, 2))
        attended, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        both = torch.cat([attended.mean(1), self.dropout(patches).view(images.size(0), -1)], 1)
        scale = torch.ones(images.shape[0], 1, device=images.device) * torch.tensor(2.0)
        answer: Tensor = self.head(both) * scale + self.shift
        return answer


def exported(model: nn.Module, path: Path, *, size: int = 8, batch: bool = True) -> Path:
    shapes = ({0: torch.export.Dim("batch")},) if batch else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's exporter, about itself
        torch.export.save(
            torch.export.export(model, (torch.zeros(2, 1, size, size),), dynamic_shapes=shapes), path
        )
    return path


def linear(*, classes: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, classes)).eval()


def opened(path: Path, **changed: Any) -> ExportedNetwork:
    fit: dict[str, Any] = {"classes": 4, "channels": 1, "size": (8, 8)}
    network = open_network(path, **{**fit, **changed})
    assert isinstance(network, ExportedNetwork)
    return network


def refusal(path: Path, **changed: Any) -> str:
    with pytest.raises(BadInput) as refused:
        opened(path, **changed)
    assert "\n" not in str(refused.value)
    return str(refused.value).replace(str(path), "FILE")


def rewritten(path: Path, member: str, change: Callable[[Any], object]) -> Path:
    """The archive with one of its JSON files changed, or with other bytes where ``change`` gives some."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in content if name.endswith(member))
    said = json.loads(content[name]) if member.endswith(".json") else None
    given = change(said)
    content[name] = given if isinstance(given, bytes) else json.dumps(said).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, inside in content.items():
            archive.writestr(name, inside)
    return path


def nodes(program: Any) -> Any:
    return program["graph_module"]["graph"]["nodes"]


@pytest.mark.parametrize("name", ["plain_cnn-2", "resnet-8", "wrn-10-1", "vgg-8"])
def test_it_answers_with_the_bits_of_the_network(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    model = build(name, classes=4, channels=1, size=(16, 16), width=0.25)
    model(torch.randn(16, 1, 16, 16))  # lived-in statistics
    network = opened(exported(model.eval(), tmp_path / "a.pt2", size=16), size=(16, 16))
    images = torch.randn(7, 1, 16, 16)
    with torch.no_grad():
        assert torch.equal(network(images), model(images))
    assert cost(network, channels=1, size=(16, 16)) == cost(model, channels=1, size=(16, 16))


def test_lists_constants_and_lengths_that_depend_on_the_batch_are_followed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Attention().eval()
    network = opened(exported(model, tmp_path / "a.pt2"))
    for count in (2, 5):
        images = torch.randn(count, 1, 8, 8)
        with torch.no_grad():
            torch.testing.assert_close(network(images), model(images), atol=1e-6, rtol=1e-6)


def test_it_follows_the_number_format_of_the_training(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build("resnet-8", classes=4, channels=1, size=(8, 8)).eval()
    network = opened(exported(model, tmp_path / "a.pt2"))
    images = torch.randn(4, 1, 8, 8)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(network(images), model(images).float())


def test_nothing_of_it_takes_a_gradient(tmp_path: Path) -> None:
    network = opened(exported(linear(), tmp_path / "a.pt2"))
    assert not network(torch.randn(2, 1, 8, 8)).requires_grad


class Planted:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("something was unpickled",)


def test_pickles_in_the_file_are_not_opened(tmp_path: Path) -> None:
    path = exported(linear(), tmp_path / "a.pt2")
    opened(rewritten(path, "data/sample_inputs/model.pt", lambda _: pickle.dumps(Planted())))


def test_a_pickled_weight_is_refused_unopened(tmp_path: Path) -> None:
    path = exported(linear(), tmp_path / "a.pt2")
    rewritten(path, "data/weights/weight_0", lambda _: pickle.dumps(Planted()))
    said = refusal(rewritten(path, CONFIG, lambda said: said["config"]["1.weight"].update(use_pickle=True)))
    assert said.startswith("FILE would have to run code to be read: 1.weight is pickled.")


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.from_file.default",
        "torch.ops.my_company.run.default",
        "torch.ops.higher_order.cond",
        "builtins.eval",
        "os.system",
        "_operator.attrgetter",
        "torch.ops.aten.__class__.default",
        "torch.ops.aten.relu.__class__",
        "torch.ops.aten.add.out",
        "torch.ops.aten",
        "",
    ],
)
def test_operators_that_are_not_listed_are_refused(tmp_path: Path, target: str) -> None:
    path = exported(linear(), tmp_path / "a.pt2")
    said = refusal(rewritten(path, PROGRAM, lambda program: nodes(program)[0].update(target=target)))
    assert said.startswith(
        f"FILE needs the operator {target}, which is not known here. Export the network to ONNX"
    )


def test_words_that_are_not_known_are_refused(tmp_path: Path) -> None:
    path = exported(Attention().eval(), tmp_path / "a.pt2")

    def change(program: Any) -> None:
        gelu = next(node for node in nodes(program) if "gelu" in node["target"])
        next(one for one in gelu["inputs"] if one["name"] == "approximate")["arg"]["as_string"] = (
            "/etc/passwd"
        )

    assert "gives torch.ops.aten.gelu.default the word '/etc/passwd'" in refusal(
        rewritten(path, PROGRAM, change)
    )


def test_a_weight_beyond_its_bytes_is_refused(tmp_path: Path) -> None:
    path = exported(linear(), tmp_path / "a.pt2")

    def change(said: Any) -> None:
        said["config"]["1.weight"]["tensor_meta"]["storage_offset"]["as_int"] = 10**6

    assert refusal(rewritten(path, CONFIG, change)).startswith(
        "FILE is a damaged or unknown file of torch.export.save"
    )


def test_a_program_that_changes_what_it_is_given_is_refused(tmp_path: Path) -> None:
    path = exported(nn.Sequential(nn.ReLU(inplace=True), *linear()).eval(), tmp_path / "a.pt2")
    assert "a teacher stands still" in refusal(path)


def test_an_operator_in_place_on_its_own_answers_is_followed(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(72, 4)).eval()
    network = opened(exported(model, tmp_path / "a.pt2"))
    images = torch.randn(3, 1, 8, 8)
    before = images.clone()
    with torch.no_grad():
        assert torch.equal(network(images), model(images))
    assert torch.equal(images, before)


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(64)])
def test_an_export_in_training_mode_is_refused(tmp_path: Path, layer: nn.Module) -> None:
    path = exported(nn.Sequential(nn.Flatten(), layer, nn.Linear(64, 4)).train(), tmp_path / "a.pt2")
    assert "model.eval()" in refusal(path)


def test_a_batch_of_one_length_is_refused_with_the_export_that_helps(tmp_path: Path) -> None:
    said = refusal(exported(linear(), tmp_path / "a.pt2", batch=False))
    assert said.startswith(
        "FILE takes batches of 2 only; teaching needs batches of any length. Export it again: torch.ex"
    )
    assert 'dynamic_shapes=({0: torch.export.Dim("batch")},)' in said


def test_other_classes_or_images_are_refused(tmp_path: Path) -> None:
    path = exported(linear(), tmp_path / "a.pt2")
    assert refusal(path, classes=10).startswith("FILE answers for 4 classes, and the data have 10.")
    assert "Write size: [8, 8] beside file:" in refusal(path, size=(16, 16))


def test_answers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = linear()
    with torch.no_grad():
        model[3].bias[1] = float("nan")  # type: ignore[index]
    assert "NaN or infinite" in refusal(exported(model, tmp_path / "a.pt2"))


def test_other_files_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    path.write_bytes(b"no archive")
    assert refusal(path).startswith("FILE is not a whole file of torch.export.save")
    torch.save(linear().state_dict(), path)
    assert refusal(path).startswith("FILE holds no exported program that is read here")
    exported(linear(), path)
    assert refusal(rewritten(path, PROGRAM, lambda said: said["schema_version"].update(major=9))).startswith(
        "FILE has schema {'major': 9"
    )
    exported(linear(), path)
    assert "damaged or unknown" in refusal(rewritten(path, PROGRAM, lambda said: said.pop("graph_module")))


def test_a_file_cut_short_is_one_line(tmp_path: Path) -> None:
    path = exported(linear(), tmp_path / "a.pt2")
    path.write_bytes(path.read_bytes()[:5000])
    assert refusal(path).startswith("FILE is not a whole file of torch.export.save")


def test_the_file_is_read_from_its_bytes_alone() -> None:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            linear(), (torch.zeros(2, 1, 8, 8),), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
        torch.export.save(program, buffer)
    network = ExportedNetwork(buffer.getvalue(), source="memory", classes=4, channels=1, size=(8, 8))
    assert network(torch.zeros(3, 1, 8, 8)).shape == (3, 4)
