from __future__ import annotations

import subprocess
import sys

import pytest

from understudy.errors import BadInput
from understudy.models import built_in_names, check_name
from understudy.models.names import NetworkName, is_built_in, parse_name


def test_every_listed_name_is_a_name() -> None:
    names = built_in_names()
    assert len(names) == len(set(names))
    for name in names:
        check_name(name)
        assert is_built_in(name)


@pytest.mark.parametrize("size", range(2, 11))
def test_the_wide_plain_family_has_all_sizes_from_two_to_ten(size: int) -> None:
    assert parse_name(f"plain_cnn-{size}") == NetworkName(family="plain_cnn", numbers=(size,))


@pytest.mark.parametrize("name", ["wrn-10-1", "wrn-40-20", "wrn-100-1"])
def test_wide_resnets_beyond_the_listed_ones_are_names_too(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    ("name", "possible"),
    [
        ("plain_cnn-11", "plain_cnn-2 to plain_cnn-10"),
        ("plain_cnn-1", "plain_cnn-2 to plain_cnn-10"),
        ("plain_cnn-02", "plain_cnn-2 to plain_cnn-10"),
        ("plain_cnn-", "plain_cnn-2 to plain_cnn-10"),
        ("plain_cnn", "plain_cnn-2 to plain_cnn-10"),
        ("plain_cnn-10-2", "plain_cnn-2 to plain_cnn-10"),
        ("plain_cnn-٣", "plain_cnn-2 to plain_cnn-10"),
        ("plain_cnn-" + "9" * 5000, "plain_cnn-2 to plain_cnn-10"),
        ("plain_cnn_narrow-3", "plain_cnn_narrow-2, plain_cnn_narrow-4"),
        (
            "resnet-9",
            "resnet-8, resnet-14, resnet-20, resnet-26, resnet-32, resnet-44, resnet-56, resnet-110",
        ),
        ("wrn-17-2", "6n + 4"),
        ("wrn-40-0", "FACTOR 1 to 20"),
        ("wrn-40-100000", "FACTOR 1 to 20"),
        ("wrn-4-1", "DEPTH 10"),
        ("wrn-40", "wrn-DEPTH-FACTOR"),
        ("vgg-19", "vgg-8, vgg-11, vgg-13, vgg-16"),
        ("mobilenet_v2-1", "mobilenet_v2, whose size is set by width"),
        ("allcnn-12", "allcnn, whose size is set by width"),
        ("densenet-169", "densenet-121"),
        ("densenet_bc-40", "densenet_bc-40-12, densenet_bc-100-12"),
        ("bottleneck_resnet-50", "bottleneck_resnet-20, bottleneck_resnet-56, bottleneck_resnet-110"),
        ("okd_wrn-16-8", "okd_wrn-20-8"),
        ("okd_vgg-8", "okd_vgg-16"),
    ],
)
def test_a_size_that_a_family_lacks_is_answered_with_those_it_has(name: str, possible: str) -> None:
    with pytest.raises(BadInput) as caught:
        check_name(name)
    assert name in str(caught.value)
    assert possible in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not is_built_in(name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("plain_cnn_10", "plain_cnn-10"),
        ("plain-cnn-10", "plain_cnn-10"),
        ("Plain_CNN-10", "plain_cnn-10"),
        ("resnet20", "resnet-20"),
        ("resnett-20", "resnet-20"),
        ("wrn40-2", "wrn-40-2"),
        ("wrn_16_2", "wrn-16-2"),
        ("vgg8", "vgg-8"),
        ("mobilenetv2", "mobilenet_v2"),
        ("MobileNet-v2", "mobilenet_v2"),
        ("AllCNN", "allcnn"),
        ("densenet121", "densenet-121"),
        ("densenet_bc_40_12", "densenet_bc-40-12"),
        ("okd-wrn-20-8", "okd_wrn-20-8"),
    ],
)
def test_a_name_written_differently_gets_the_nearest_one(name: str, meant: str) -> None:
    with pytest.raises(BadInput, match=f"Did you mean '{meant}'"):
        check_name(name)


@pytest.mark.parametrize("name", ["", " plain_cnn-2", "banana", "keras/resnet18", "timm/", "/", "/resnet18"])
def test_what_is_no_name_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(BadInput) as caught:
        check_name(name)
    assert "timm" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [None, 10, ["plain_cnn-2"]])
def test_what_is_not_text_is_refused(name: object) -> None:
    with pytest.raises(BadInput, match="named by text"):
        check_name(name)  # type: ignore[arg-type]


def test_checking_a_built_in_name_imports_no_torch() -> None:
    program = (
        "import sys; from understudy.models import check_name; from understudy.models.names import parse_name; "
        "check_name('wrn-40-2'); parse_name('timm/resnet18'); "
        "heavy = {'torch', 'timm', 'torchvision'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
