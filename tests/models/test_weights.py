from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from understudy.errors import BadInput
from understudy.models import build
from understudy.models.weights import head_of, put_weights, read_weights


def small(classes: int = 10, name: str = "plain_cnn-2", seed: int = 0, **changed: Any) -> nn.Module:
    torch.manual_seed(seed)
    return build(name, classes=classes, size=changed.pop("size", (8, 8)), **{"width": 0.25, **changed})


def refusal(call: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(BadInput) as caught:
        call(*arguments, **named)
    text = str(caught.value)
    assert "\n" not in text
    return text


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# reading


def test_safetensors_come_back_as_they_were_saved(tmp_path: Path) -> None:
    state = small().state_dict()
    save_file(state, tmp_path / "w.safetensors")
    assert same(read_weights(tmp_path / "w.safetensors"), state)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt"])
@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch_save_come_back_as_they_were_saved(tmp_path: Path, suffix: str, zipped: bool) -> None:
    state = small().state_dict()
    torch.save(state, tmp_path / f"w{suffix}", _use_new_zipfile_serialization=zipped)
    assert same(read_weights(tmp_path / f"w{suffix}"), state)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net"])
def test_a_checkpoint_is_opened(tmp_path: Path, key: str) -> None:
    model = small()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    torch.save({"epoch": 3, key: model.state_dict(), "optimizer": optimiser.state_dict()}, tmp_path / "w.pt")
    assert same(read_weights(tmp_path / "w.pt"), model.state_dict())


def test_a_checkpoint_within_a_checkpoint_is_opened(tmp_path: Path) -> None:
    state = small().state_dict()
    torch.save({"model": {"state_dict": OrderedDict(state), "epoch": 1}}, tmp_path / "w.pt")
    assert same(read_weights(tmp_path / "w.pt"), state)


def test_parameters_come_back_as_plain_tensors(tmp_path: Path) -> None:
    torch.save({"weight": nn.Parameter(torch.ones(2))}, tmp_path / "w.pt")
    assert not read_weights(tmp_path / "w.pt")["weight"].requires_grad


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert f"there is no file {tmp_path / 'w.pt'}" in refusal(read_weights, tmp_path / "w.pt")


def test_a_folder_is_refused_with_the_files_in_it(tmp_path: Path) -> None:
    assert "Files of weights in it: none" in refusal(read_weights, tmp_path)
    save_file({"a": torch.ones(1)}, tmp_path / "student.safetensors")
    assert "Files of weights in it: student.safetensors" in refusal(read_weights, tmp_path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.onnx").write_bytes(b"x")
    assert "read from .safetensors, .pt, .pth, .bin, .ckpt" in refusal(read_weights, tmp_path / "w.onnx")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_an_empty_file_is_refused(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"w{suffix}").touch()
    assert "is empty" in refusal(read_weights, tmp_path / f"w{suffix}")


@pytest.mark.parametrize("kept", [1, 7, 9, 100, 0.5, 0.99])
@pytest.mark.parametrize("form", ["safetensors", "zip", "old"])
def test_a_file_cut_short_is_refused_by_name(tmp_path: Path, kept: float, form: str) -> None:
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt")
    if form == "safetensors":
        save_file(small().state_dict(), path)
    else:
        torch.save(small().state_dict(), path, _use_new_zipfile_serialization=form == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept if kept >= 1 else kept * len(whole))])
    text = refusal(read_weights, path)
    assert str(path) in text


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize(
    "content", [b"\x00" * 64, b"\xff" * 64, b"{'a': 1}\n" * 9, b"PK\x03\x04" + b"\x01" * 60]
)
def test_a_file_of_anything_else_is_refused_as_damaged(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert "cut short, damaged or of another format" in refusal(read_weights, tmp_path / name)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "holds no tensors"),
        ({"weight": torch.ones(1), "epoch": 3}, "holds a int under 'epoch'"),
        ([torch.ones(1)], "holds a list, not tensors by name"),
        (torch.ones(1), "holds a Tensor, not tensors by name"),
        ({"state_dict": {}}, "holds no tensors"),
        ({"weight": torch.eye(2).to_sparse()}, "sparse or quantised"),
    ],
)
def test_what_is_not_tensors_by_name_is_refused(tmp_path: Path, content: Any, said: str) -> None:
    torch.save(content, tmp_path / "w.pt")
    assert said in refusal(read_weights, tmp_path / "w.pt")


class Touching:
    """What a hostile file does when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_file_that_would_run_code_is_refused_without_running_it(tmp_path: Path) -> None:
    torch.save({"state_dict": small().state_dict(), "x": Touching(tmp_path / "ran")}, tmp_path / "w.pt")
    assert "would have to run code" in refusal(read_weights, tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()


def convert(command: list[str], *, anew: bool = True) -> None:
    """Runs ``python -c code``: ``anew`` in a process of its own, which takes seconds, else here."""
    python, option, code = command
    assert (python, option) == ("python", "-c")
    if anew:
        subprocess.run([sys.executable, "-W", "ignore", option, code], check=True)
    else:
        exec(compile(code, "<command>", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("folder", ["plain", "with space and 'quotes'", 'with "double" quotes and ü'])
@pytest.mark.parametrize("whole_model", [False, True])
def test_the_command_in_the_refusal_converts_the_file(tmp_path: Path, folder: str, whole_model: bool) -> None:
    (tmp_path / folder).mkdir()
    path = tmp_path / folder / "w.pt"
    model = small()
    torch.save(
        model if whole_model else {"state_dict": model.state_dict(), "args": argparse.Namespace(lr=1)}, path
    )
    text = refusal(read_weights, path)
    convert(shlex.split(text[text.index("python -c ") :]), anew=whole_model and folder == "plain")
    assert same(read_weights(path.with_suffix(".safetensors")), model.state_dict())


def test_a_torchscript_program_is_refused_with_its_own_command(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # torch is leaving TorchScript; its files stay about
        program = torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2))  # type: ignore[no-untyped-call]
        program.save(str(tmp_path / "w.pt"))
    text = refusal(read_weights, tmp_path / "w.pt")
    assert "TorchScript program" in text
    convert(shlex.split(text[text.index("python -c ") :]))
    assert set(read_weights(tmp_path / "w.safetensors")) == {"weight", "bias"}


# putting


def test_every_tensor_is_put_and_none_is_left() -> None:
    teacher, student = small(seed=1), small(seed=2)
    teacher(torch.randn(4, 3, 8, 8))
    assert put_weights(student, teacher.state_dict(), source="w.pt") == []
    assert same(student.state_dict(), teacher.state_dict())


def test_the_network_keeps_its_own_memory() -> None:
    teacher, student = small(seed=1), small(seed=2)
    tensors = teacher.state_dict()
    put_weights(student, tensors, source="w.pt")
    next(iter(tensors.values())).zero_()
    assert bool(next(student.parameters()).any())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_a_prefix_on_every_name_is_read_away(prefix: str) -> None:
    teacher, student = small(seed=1), small(seed=2)
    wrapped = {prefix + name: tensor for name, tensor in teacher.state_dict().items()}
    put_weights(student, wrapped, source="w.pt")
    assert same(student.state_dict(), teacher.state_dict())


def test_a_prefix_that_the_network_has_itself_stays() -> None:
    teacher, student = nn.DataParallel(small(seed=1)), nn.DataParallel(small(seed=2))
    put_weights(student, teacher.state_dict(), source="w.pt")
    assert same(student.state_dict(), teacher.state_dict())


def test_a_prefix_on_some_names_only_stays_and_is_refused() -> None:
    state = small().state_dict()
    first = next(iter(state))
    state["module." + first] = state.pop(first)
    text = refusal(put_weights, small(), state, source="w.pt")
    assert f"1 is missing ({first})" in text
    assert f"1 is not known here (module.{first})" in text


def test_files_from_before_batches_were_counted_fit() -> None:
    teacher, student = small(seed=1), small(seed=2)
    tensors = {name: t for name, t in teacher.state_dict().items() if "num_batches" not in name}
    assert put_weights(student, tensors, source="w.pt") == []
    assert same(student.state_dict(), teacher.state_dict())


def test_half_precision_is_put_as_full_precision() -> None:
    teacher, student = small(seed=1), small(seed=2)
    put_weights(student, teacher.half().state_dict(), source="w.pt")
    assert {parameter.dtype for parameter in student.parameters()} == {torch.float32}
    assert torch.equal(next(student.parameters()), next(teacher.parameters()).float())


def assert_refused_and_untouched(
    model: nn.Module, tensors: dict[str, Tensor], said: str, **named: Any
) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    text = refusal(put_weights, model, tensors, source="w.pt", **named)
    assert said in text
    assert text.startswith("w.pt ")
    assert same(model.state_dict(), before)


def test_another_number_of_classes_is_refused_with_both_numbers() -> None:
    assert_refused_and_untouched(
        small(classes=100),
        small(classes=10).state_dict(),
        "has 10 outputs at classifier.output, but 100 classes",
    )


def test_another_network_is_refused_with_names() -> None:
    assert_refused_and_untouched(
        small(name="resnet-8"), small().state_dict(), "are missing (stem.conv.weight, stem.norm.weight, "
    )
    assert_refused_and_untouched(small(name="plain_cnn-3"), small().state_dict(), "none are not known here")


def test_another_width_is_refused_with_the_first_shape_that_differs() -> None:
    assert_refused_and_untouched(
        small(width=0.5),
        small(width=0.25).state_dict(),
        "features.conv1.weight is 8x3x3x3 in the file and 16x3x3x3 here",
    )


def test_another_image_size_is_refused_though_only_the_head_differs() -> None:
    for new_head in (False, True):
        assert_refused_and_untouched(
            small(size=(16, 16)),
            small(size=(8, 8), classes=4).state_dict(),
            "classifier.output.weight is 4x32 in the file and 10x128 here",
            new_head=new_head,
        )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    state = small().state_dict()
    state["features.norm2.running_var"][:2] = value
    assert_refused_and_untouched(small(), state, "holds 2 values in features.norm2.running_var that are NaN")


def test_whole_numbers_for_weights_are_refused() -> None:
    state = small().state_dict()
    state["features.conv1.weight"] = state["features.conv1.weight"].to(torch.int8)
    assert_refused_and_untouched(small(), state, "holds features.conv1.weight as int8, where float32")


def test_a_new_head_is_left_as_it_was_drawn_where_classes_differ() -> None:
    teacher, student = small(classes=10, seed=1), small(classes=100, seed=2)
    head = student.get_submodule("classifier.output").state_dict()
    before = {name: tensor.clone() for name, tensor in head.items()}
    left = put_weights(student, teacher.state_dict(), source="w.pt", new_head=True)
    assert left == ["classifier.output.weight", "classifier.output.bias"]
    assert same(student.get_submodule("classifier.output").state_dict(), before)
    assert torch.equal(next(student.parameters()), next(teacher.parameters()))


def test_a_new_head_is_not_needed_where_classes_agree() -> None:
    teacher, student = small(seed=1), small(seed=2)
    assert put_weights(student, teacher.state_dict(), source="w.pt", new_head=True) == []
    assert same(student.state_dict(), teacher.state_dict())


def test_a_file_without_a_head_serves_under_a_new_head_only() -> None:
    body = {name: t for name, t in small(seed=1).state_dict().items() if not name.startswith("classifier")}
    assert put_weights(small(), body, source="w.pt", new_head=True) == [
        "classifier.output.weight",
        "classifier.output.bias",
    ]
    assert_refused_and_untouched(
        small(), body, "2 are missing (classifier.output.weight, classifier.output.bias)"
    )


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("plain_cnn-2", "classifier.output"),
        ("plain_cnn-10", "classifier.output"),
        ("plain_cnn_narrow-8", "classifier.output"),
        ("resnet-8", "head"),
        ("wrn-10-1", "head"),
        ("vgg-8", "head"),
        ("mobilenet_v2", "head"),
        ("allcnn", "head"),
        ("densenet_bc-40-12", "head"),
        ("bottleneck_resnet-20", "head"),
        ("okd_vgg-16", "head"),
    ],
)
def test_the_head_of_a_built_in_network_has_as_many_outputs_as_classes(name: str, head: str) -> None:
    model = build(name, classes=7, size=(16, 16), width=0.1)
    assert head_of(model) == head
    layer = model.get_submodule(head)
    assert isinstance(layer, nn.Linear)
    assert layer.out_features == 7


def test_a_network_without_linear_layers_or_convolutions_has_no_head() -> None:
    with pytest.raises(BadInput, match="ReLU has no linear layer"):
        head_of(nn.ReLU())
