from __future__ import annotations

import json
import platform

import pytest
import torch

from understudy import __version__
from understudy.errors import BadInput
from understudy.training import Training, precision
from understudy.training.settings import Device


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def some_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.mark.parametrize("pays", [True, False])
@pytest.mark.usefixtures("no_cuda")
def test_auto_takes_bf16_where_the_processor_is_faster_with_it(
    pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "bf16_pays", lambda device: pays)
    resolved = precision.resolved(Training(precision="auto", device="auto"))
    assert resolved == Training(precision="bf16" if pays else "fp32", device="cpu")


@pytest.mark.parametrize(
    ("vendor", "flags", "native", "pays"),
    [
        ("AuthenticAMD", "avx512f avx512_bf16", True, True),
        ("GenuineIntel", "avx512_bf16 amx_bf16 amx_tile", True, True),
        ("GenuineIntel", "avx512f avx512_bf16", True, False),  # without AMX, or it is hidden
        ("AuthenticAMD", "avx2", False, False),
        ("", "", True, True),  # a system that does not say
    ],
)
def test_bf16_pays_where_it_is_native_and_as_wide_as_float32(
    vendor: str, flags: str, native: bool, pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "native_bf16", lambda device: native)
    monkeypatch.setattr(precision, "_cpu", {"vendor_id": vendor, "flags": flags}.__getitem__)
    assert precision.bf16_pays("cpu") is pays
    assert precision.bf16_pays("cuda") is native


@pytest.mark.usefixtures("some_cuda")
def test_auto_takes_cuda_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(precision, "bf16_pays", lambda device: bool(asked.append(device)))
    assert precision.resolved(Training()) == Training(precision="fp32", device="cuda")
    assert asked == ["cuda"]


@pytest.mark.parametrize("given", ["fp32", "bf16"])
@pytest.mark.usefixtures("some_cuda")
def test_what_was_said_stays(given: str) -> None:
    said = Training(precision=given, device="cpu", lr=0.3)  # type: ignore[arg-type]
    assert precision.resolved(said) == said
    assert precision.resolved(precision.resolved(said)) == said


@pytest.mark.usefixtures("no_cuda")
def test_a_device_that_is_not_there_is_refused_and_not_replaced() -> None:
    with pytest.raises(BadInput) as error:
        precision.resolved(Training(device="cuda"))
    assert str(error.value) == (
        "training.device is cuda, and this machine shows no CUDA device to torch "
        f"{torch.__version__}. Set device: cpu (or auto), or install a CUDA build of torch."
    )


def test_bf16_runs_networks_in_bf16_and_keeps_their_weights() -> None:
    layer = torch.nn.Linear(4, 4)
    with precision.autocast(Training(precision="bf16", device="cpu")):
        assert not torch.is_autocast_cache_enabled()  # all threads share it
        assert layer(torch.ones(2, 4)).dtype == torch.bfloat16
        assert layer.weight.dtype == torch.float32
    with precision.autocast(Training(precision="fp32", device="cpu")):
        assert layer(torch.ones(2, 4)).dtype == torch.float32
    assert layer(torch.ones(2, 4)).dtype == torch.float32


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_each_number_format_computes_in_its_own_way(device: Device) -> None:
    said = [precision.arithmetic(Training(precision=one, device=device)) for one in ("fp32", "bf16")]
    assert [one["precision"] for one in said] == ["fp32", "bf16"]
    assert all(one["torch"] == torch.__version__ for one in said)


def test_a_stage_on_the_processor_leaves_a_gpu_alone_and_float32_is_no_tf32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def touched() -> None:
        raise AssertionError("a stage on the processor asks for a GPU")

    monkeypatch.setattr(torch.cuda, "current_device", touched)
    monkeypatch.setattr(torch.cuda, "device_count", touched)
    cudnn = torch.backends.cudnn
    before = (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with precision.as_in_a_stage(Training(precision="fp32", device="cpu", threads=2)):
        assert (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32) == (True, False, False)
        assert torch.get_num_threads() == 2
        torch.rand(5)
    assert (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32) == before
    assert torch.equal(torch.rand(2), expected)


def test_the_number_of_threads_is_what_it_was_afterwards_also_after_an_error() -> None:
    before = torch.get_num_threads()
    with precision.threads(before + 1):
        assert torch.get_num_threads() == before + 1
        with precision.threads(1):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == before + 1
    with pytest.raises(ZeroDivisionError), precision.threads(before + 2):
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


def test_a_figure_has_versions_and_processor_beside_it() -> None:
    said = precision.environment()
    assert json.loads(json.dumps(said)) == said
    assert said["understudy"] == __version__
    assert said["torch"] == torch.__version__
    assert said["python"] == platform.python_version()
    assert said["device"] == "cpu"
    assert said["processor"]
    assert "gpu" not in said


def test_whether_bf16_is_native_is_known_for_this_processor() -> None:
    assert precision.native_bf16("cpu") in (True, False)
