import re
import subprocess
import sys

import pytest

from understudy.data import load
from understudy.errors import BadInput


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "say exactly one of name, path and hub for the data; got none"),
        (
            {"name": "digits", "path": "x.npz"},
            "exactly one of name, path and hub for the data; got name: digits, path: x.npz",
        ),
        ({"name": "digit"}, "no data set is named 'digit'; there is digits, .* Did you mean 'digits'"),
        ({"path": "no/such.npz"}, "data path no/such.npz cannot be read: No such file"),
        ({"path": "a\0b"}, r"data path a\\x00b cannot be read: .*null"),
        ({"path": "/dev/null"}, "data path /dev/null is neither a file nor a folder"),
        ({"name": "digits", "columns": {"image": "x"}}, "columns is for hub data sets only"),
        (
            {"name": "digits", "test_fraction": 0.3},
            "test_fraction is 0.3, but digits has a test split of its own",
        ),
        ({"name": "digits", "test_fraction": 1}, "test_fraction is 1; it lies between 0 and 1"),
        (
            {"name": "digits", "validation": 1.0},
            r"validation is 1.0; it is the fraction .* \(0.1 is a tenth\)",
        ),
        ({"name": "digits", "validation": -0.1}, "validation is -0.1; it is the fraction"),
        ({"name": "digits", "validation": 10}, "validation is 10; it is the fraction"),
        ({"name": "digits", "validation": float("nan")}, "validation is nan"),
        ({"name": "digits", "validation": True}, "validation is True"),
        ({"name": "digits", "validation": "10%"}, "validation is '10%'"),
        ({"name": "digits", "split_seed": 0.5}, "split_seed is 0.5; it is a whole number"),
        ({"name": "digits", "size": 0}, r"size is 0; it is one number of pixels, or \[height, width\]"),
        ({"name": "digits", "size": (8,)}, r"size is \(8,\)"),
        ({"name": "digits", "size": "8x8"}, "size is '8x8'"),
        ({"name": "digits", "channels": 2}, "channels is 2; it can be 1"),
        ({"name": "digits", "channels": True}, "channels is True"),
        (
            {"name": "digits", "memory": "streaming"},
            "memory is 'streaming'; it can be auto, memory, stream. Did you mean 'stream'",
        ),
        ({"name": "digits", "train_images": 0}, "train_images is 0; it is a number of images"),
        ({"name": "digits", "train_images": 1.5}, "train_images is 1.5"),
        (
            {"name": "digits", "train_images": 5},
            "train_images is 5; it can be from 10, one for each class, to 816",
        ),
        (
            {"name": "digits", "test_images": 902},
            "test_images is 902; it can be from 1 to 901, all that there are",
        ),
        (
            {"name": "digits", "mean": [0.1, 0.2]},
            r"mean is \[0.1, 0.2\]; it is 1 number, one for each channel",
        ),
        ({"name": "digits", "mean": [33.3]}, r"mean is \[33.3\]; .* where 1 is grey level 255"),
        ({"name": "digits", "mean": 0.5}, "mean is 0.5; it is 1 number"),
        ({"name": "digits", "std": [0]}, r"std is \[0\]; .* above 0 to 1"),
        ({"name": "digits", "std": [float("nan")]}, r"std is \[nan\]"),
    ],
)
def test_an_argument_that_cannot_be_used_is_one_clear_line(options, expected):
    with pytest.raises(BadInput) as caught:
        load(**options)
    assert re.search(expected, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_loading_data_imports_neither_torch_nor_what_it_does_not_need():
    heavy = "{'torch', 'sklearn', 'PIL', 'datasets', 'torchvision'}"
    code = f"import sys, understudy.data; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
