from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from understudy.errors import BadInput, MissingExtra
from understudy.models import build, check_name
from understudy.models.describe import architecture_of
from understudy.models.preprocessing import preprocessing_of
from understudy.models.weights import head_of, put_weights
from understudy.structure.cost import cost


def need(package: str) -> Any:
    """Skips without the package; a package that is there but does not load fails the test."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    return importlib.import_module(package)


def python(program: str, folder: Path, **environment: str) -> str:
    """Runs a program in a process of its own, with ``folder`` first on the path; answers what it printed."""
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


SAY = """
from understudy.errors import BadInput
from understudy.models import build
try:
    build({name!r}, classes=7, pretrained={pretrained})
except BadInput as error:
    print(type(error).__name__, str(error))
"""


@pytest.mark.parametrize("package", ["timm", "torchvision"])
def test_a_missing_package_is_one_line_with_the_command_that_installs_it(
    package: str, tmp_path: Path
) -> None:
    # a finder that knows no such package stands for an environment without it
    program = f"""
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Without())
""" + SAY.format(name=f"{package}/resnet18", pretrained=False)
    assert python(program, tmp_path) == (
        f'MissingExtra {package} models needs packages that are not installed: pip install "understudy[vision]"'
    )


def test_a_torchvision_of_another_build_is_named_as_such(tmp_path: Path) -> None:
    # a package that fails as the real one does beside a torch of another build
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')\n"
    )
    said = python(SAY.format(name="torchvision/resnet18", pretrained=False), tmp_path)
    assert said.startswith("BadInput torchvision does not load: the builds of torchvision")
    assert "do not match (operator torchvision::nms does not exist)" in said
    assert f"torch {torch.__version__}" in said
    assert "Install torch and torchvision together" in said
    assert "\n" not in said


def test_the_error_for_a_missing_package_is_also_bad_input() -> None:
    assert issubclass(MissingExtra, BadInput)


def test_width_is_for_built_in_networks_only() -> None:
    with pytest.raises(BadInput, match="timm/resnet18 is not one"):
        build("timm/resnet18", classes=10, width=0.5)


# with the packages installed


@pytest.mark.parametrize(
    ("name", "channels", "size", "head"),
    [
        ("timm/resnet18", 3, (32, 32), "fc"),
        ("timm/resnet18", 1, (32, 48), "fc"),
        ("timm/vit_tiny_patch16_224", 4, (32, 48), "head"),
        ("torchvision/mobilenet_v2", 3, (32, 32), "classifier.1"),
        ("torchvision/mobilenet_v2", 1, (32, 48), "classifier.1"),
        ("torchvision/squeezenet1_1", 3, (32, 32), "classifier.1"),
        ("torchvision/googlenet", 3, (64, 64), "fc"),
    ],
)
def test_a_network_from_elsewhere_answers_with_logits(
    name: str, channels: int, size: tuple[int, int], head: str
) -> None:
    need(name.partition("/")[0])
    torch.manual_seed(0)
    model = build(name, classes=7, channels=channels, size=size)
    assert all(module.training for module in model.modules())
    assert model(torch.randn(2, channels, *size)).shape == (2, 7)
    assert head_of(model) == head
    layer = model.get_submodule(head)
    assert (layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels) == 7
    assert cost(model, channels=channels, size=size).multiply_adds > 1_000_000
    description = architecture_of(model, name, {"classes": 7, "channels": channels, "size": size})
    json.dumps(description, allow_nan=False)
    assert "num_classes=7" in description["wiring"]
    assert {layer["name"] for layer in description["layers"]} >= {head}


def test_the_seed_decides_the_initial_weights_and_checking_draws_nothing() -> None:
    need("torchvision")
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append((build("torchvision/squeezenet1_1", classes=5).state_dict(), torch.rand(1)))
    assert all(torch.equal(states[0][0][name], states[1][0][name]) for name in states[0][0])
    assert torch.equal(states[0][1], states[1][1])


def test_weights_go_under_a_new_head() -> None:
    need("timm")
    teacher = build("timm/resnet18", classes=10)
    student = build("timm/resnet18", classes=4)
    assert put_weights(student, teacher.state_dict(), source="w.pt", new_head=True) == [
        "fc.weight",
        "fc.bias",
    ]
    with pytest.raises(BadInput, match="has 10 outputs at fc, but 4 classes"):
        put_weights(student, teacher.state_dict(), source="w.pt")


def test_two_heads_are_both_new() -> None:
    need("timm")
    teacher = build("timm/deit_tiny_distilled_patch16_224", classes=10)
    student = build("timm/deit_tiny_distilled_patch16_224", classes=4)
    left = put_weights(student, teacher.state_dict(), source="w.pt", new_head=True)
    assert left == ["head.weight", "head.bias", "head_dist.weight", "head_dist.bias"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm/resnt18", "timm has no model 'resnt18'. Did you mean 'resnet18'?"),
        ("timm/resnet18.nope", "timm has no weights 'nope' of resnet18."),
        (
            "torchvision/mobilenet_v4",
            "torchvision has no classification model 'mobilenet_v4'. Did you mean 'mobilenet_v2'?",
        ),
        ("torchvision/fasterrcnn_resnet50_fpn", "torchvision has no classification model"),
    ],
)
def test_an_unknown_name_gets_the_nearest_one(name: str, said: str) -> None:
    need(name.partition("/")[0])
    with pytest.raises(BadInput) as caught:
        check_name(name)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["timm/vit_tiny_patch16_224", "torchvision/squeezenet1_1", "torchvision/vit_b_16"]
)
def test_images_too_small_are_refused(name: str) -> None:
    need(name.partition("/")[0])
    with pytest.raises(BadInput) as caught:
        build(name, classes=10, size=(8, 8))
    assert f"{name} cannot be " in str(caught.value)
    assert "8x8" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["timm/resnet18", "torchvision/squeezenet1_1"])
def test_published_weights_that_cannot_be_fetched_are_one_line(name: str, tmp_path: Path) -> None:
    need(name.partition("/")[0])
    said = python(
        SAY.format(name=name, pretrained=True),
        tmp_path,
        HF_HOME=str(tmp_path / "hub"),
        HF_HUB_OFFLINE="1",
        TORCH_HOME=str(tmp_path / "torch"),
        https_proxy="http://127.0.0.1:9",  # nothing listens there
    )
    assert said.startswith(f"BadInput the published weights of {name} could not be fetched (")
    assert said.endswith("or give the weights as a file")
    assert "\n" not in said


@pytest.mark.parametrize("name", ["timm/resnet18", "torchvision/mobilenet_v2"])
def test_published_weights_bring_their_own_preprocessing(name: str) -> None:
    need(name.partition("/")[0])
    own = preprocessing_of(name, True)
    assert own is not None
    assert own.mean == (0.485, 0.456, 0.406)
    assert own.std == (0.229, 0.224, 0.225)
    assert own.size == (224, 224)
    assert own(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape == (1, 3, 224, 224)


def test_grey_images_get_averaged_statistics_from_timm_and_a_refusal_from_torchvision() -> None:
    need("timm")
    need("torchvision")
    own = preprocessing_of("timm/resnet18", True, channels=1)
    assert own is not None
    assert own.mean == pytest.approx((0.449,))
    with pytest.raises(BadInput, match="are for 3 channels, the images have 1"):
        preprocessing_of("torchvision/resnet18", True, channels=1)
    with pytest.raises(BadInput, match="are for 3 channels, the images have 4"):
        preprocessing_of("timm/resnet18", True, channels=4)


@pytest.mark.parametrize("classes", [7, 1000])
def test_published_weights_are_used_under_a_new_head_where_classes_differ(
    classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a file in torch's download folder, under the name that the published one has there
    torchvision = need("torchvision")
    torch.manual_seed(0)
    stored = torchvision.models.squeezenet1_1(weights=None)
    file = Path(torchvision.models.get_model_weights("squeezenet1_1").DEFAULT.url).name
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(stored.state_dict(), tmp_path / "hub" / "checkpoints" / file)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    model = build("torchvision/squeezenet1_1", classes=classes, pretrained=True)
    for name, tensor in stored.state_dict().items():
        if classes == 1000 or not name.startswith("classifier.1."):
            assert torch.equal(model.state_dict()[name], tensor), name
    assert model.get_submodule("classifier.1").weight.shape[0] == classes  # type: ignore[index]
