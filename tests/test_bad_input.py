"""Whatever is wrong with what the user gave: one clear line, exit status 2, nothing written, never a traceback."""

from __future__ import annotations

import io
import os
import random
import re
import sys
import time
import zipfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.forked import Forked
from tests.recipe.tiny import TEXT, tree, write_data
from understudy.cli import main
from understudy.errors import BadInput
from understudy.models import build as network
from understudy.recipe import Recipe, check, read_text
from understudy.recipe.building import build
from understudy.recipe.reading import written

Refusal = Callable[..., str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data and a recipe that is right, which the command is called in."""
    write_data(tmp_path / "data.npz")
    (tmp_path / "r.yaml").write_text(TEXT, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNDERSTUDY_STORE", raising=False)
    return tmp_path


@pytest.fixture
def refusal(here: Path, capsys: pytest.CaptureFixture[str]) -> Refusal:
    """Calls the command, which must refuse, and gives its one line without the name of the program."""

    def refusal(*arguments: object, status: int = 2) -> str:
        capsys.readouterr()
        before = tree(here)
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert ended.value.code == status
        assert err.startswith("understudy: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        assert "Traceback" not in err
        assert out == ""
        assert tree(here) == before
        return err.removeprefix("understudy: ").removesuffix("\n")

    return refusal


def recipe(here: Path, text: str, name: str = "bad.yaml") -> Path:
    (here / name).write_text(text, "utf-8")
    return Path(name)


BOTH = pytest.mark.parametrize("command", ["run", "plan"])


@BOTH
def test_signals_that_another_version_kept(here: Path, refusal: Refusal, command: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "r.yaml", "--quiet"])
    assert ended.value.code == 0
    marker = next((here / "runs" / ".store" / "signals").rglob("signals.json"))
    marker.write_text(marker.read_text("utf-8").replace('"version": 1', '"version": 7'), "utf-8")
    said = refusal(command, "r.yaml", "--set", "teaching.temperature=2", "--out", "runs/other")
    assert f"the teacher signals in runs/.store/signals/{marker.parent.name} have format 7" in said
    assert "Remove that folder (they are made again)" in said


# --- keys and values ------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("training.lrr=1", "training.lrr is no key. Possible: epochs, "),
        ("training.epohcs=3", "Did you mean 'epochs'?"),
        ("trainin={}", "trainin is no key. "),
        ("models.student.widht=1", "models.student.widht is no key. "),
        (
            "ladder.shape=dnese",
            "ladder.shape is \"dnese\"; it can be scratch, direct, chain, dense, paths, pacemaker, peers. Did you mean 'dense'?",
        ),
        (
            "training.optimizer=sdg",
            "training.optimizer is \"sdg\"; it can be sgd, adamw. Did you mean 'sgd'?",
        ),
        (
            "models.teacher.name=plain_cn-4",
            "models.teacher: there is no model 'plain_cn-4'. Did you mean 'plain_cnn-4'?",
        ),
        ("training.lr=fast", 'training.lr is "fast"; it should be a number.'),
        ("training.epochs=2.5", "training.epochs is 2.5; it should be a whole number."),
        ("seeds=4", "seeds is 4; it should be a list, such as [0, 1, 2]."),
        ("models=plain_cnn-4", 'models is "plain_cnn-4"; it should be keys with values'),
        ("training.lr=-0.1", "training.lr is a number in (0, 10000]; got -0.1."),
        ("training.weight_decay=-1", "training.weight_decay is a number in [0, 1000]; got -1.0."),
        ("data.train_images=-5", "data.train_images is -5; it should be at least 1."),
        ("training.epochs=100000000", "training.epochs is a whole number from 1 to 100000; got 100000000."),
        ("training.batch_size=1e30", "training.batch_size is 1e+30; it should be a whole number."),
        ("models.student.width=1e6", "models.student.width is 1000000.0; it should be at most 16."),
        (
            "training.threads=99999999999999999999",
            "training.threads is a number of 20 digits; that is too large.",
        ),
        ("training.lr=.nan", "training.lr is nan; a finite number is needed."),
        ("teaching.temperature=.inf", "teaching.temperature is inf; a finite number is needed."),
        ("data.validation=-.inf", "data.validation is -inf; a finite number is needed."),
        ("data.views.crop=100", "data.views.crop is 100, but the images have 8x8 pixels"),
        ("data.views.transforms=[{name: Nonsense}]", "Nonsense"),
        ("data.views.distinct=0", "data.views.distinct is 0; it should be at least 1."),
        ("data.views.distinct=2.5", "data.views.distinct is 2.5; it should be a whole number."),
        ("signals.top_k=0", "signals.top_k is 0; it should be at least 1."),
        ("signals.top_k=99", "signals.top_k is 99 and there are "),
        ("signals.dtype=float64", 'signals.dtype is "float64"; it can be float16, float32.'),
        ("signals.max_gb=-1", "signals.max_gb is -1; it should be at least 0."),
        ("signals.topk=3", "Did you mean 'top_k'?"),
        ("data.mean=[0.5, 0.5, 0.5]", "data.mean is (0.5, 0.5, 0.5); it is 1 number"),
        ("data.train_images=1", "train_images"),
        ("data.columns={image: a}", "data.columns is for hub data sets only"),
        ("data={name: digit}", "no data set is named 'digit'; there is digits"),
    ],
)
def test_a_key_or_value_that_is_not_possible(refusal: Refusal, command: str, setting: str, said: str) -> None:
    assert said in refusal(command, "r.yaml", "--set", setting)


# --- the file -------------------------------------------------------------------------------------------------------


@BOTH
def test_a_recipe_that_is_not_there(refusal: Refusal, command: str) -> None:
    assert refusal(command, "nope.yaml") == "there is no recipe nope.yaml."


@BOTH
def test_a_recipe_that_is_a_folder_or_binary(here: Path, refusal: Refusal, command: str) -> None:
    (here / "folder").mkdir()
    (here / "binary").write_bytes(bytes(range(256)) * 10)
    (here / "empty").write_bytes(b"")
    assert refusal(command, "folder") == "folder is a folder; name the recipe file in it."
    assert refusal(command, "data.npz").startswith("data.npz is not a text file in UTF-8.")
    assert refusal(command, "binary").startswith("binary is not a text file in UTF-8.")
    assert refusal(command, "empty").startswith("empty is empty.")
    assert refusal(command, "x" * 300).endswith("cannot be read (File name too long).")


@BOTH
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: {path: data.npz\nseeds: [0]\n", "bad.yaml is not readable YAML, line 2, column 6: "),
        ("data:\n\tpath: data.npz\n", "bad.yaml is not readable YAML, line 2, column 1: "),
        ("data: {path: a}\ndata: {path: b}\n", "bad.yaml has the key 'data' twice, line 2, column 1."),
        ("a: &a [*a]\n", "bad.yaml has an alias that contains itself, line 1, column 4."),
        (
            "data: !!python/object/apply:os.system ['touch hacked']\n",
            "line 1, column 7: !!python/object/apply:os.system is a tag",
        ),
        ("- data\n", "bad.yaml is a list; "),
    ],
)
def test_a_recipe_that_cannot_be_read(
    here: Path, refusal: Refusal, command: str, text: str, said: str
) -> None:
    assert said in refusal(command, recipe(here, text))


@BOTH
def test_an_alias_bomb(here: Path, refusal: Refusal, command: str) -> None:
    laughs = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    laughs += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    began = time.monotonic()
    assert refusal(command, recipe(here, "\n".join(laughs))).endswith("values once its aliases are followed.")
    assert time.monotonic() - began < 5


# --- networks and weights -------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "plain_cnn-10",
            "plain_cnn-10 halves the image 4 times and needs at least 16x16; the images are 8x8.",
        ),
        ("plain_cnn_narrow-10", "plain_cnn_narrow-10 halves the image 4 times"),
    ],
)
def test_a_network_too_deep_for_the_images(refusal: Refusal, command: str, name: str, said: str) -> None:
    assert said in refusal(command, "r.yaml", "--set", f"models.teacher={name}")


@BOTH
def test_a_network_larger_than_the_machine(refusal: Refusal, command: str) -> None:
    said = refusal(command, "r.yaml", "--set", "models.teacher={name: wrn-100-20, width: 16}")
    assert re.search(r"takes \d+ GB, and this machine has \d+ GB of memory", said)


def teacher(**arguments: Any) -> dict[str, torch.Tensor]:
    said = {"classes": 3, "channels": 1, "size": (8, 8), "width": 0.25, **arguments}
    return network(said.pop("name", "plain_cnn-3"), **said).state_dict()


@BOTH
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_given_weights_for_other_classes(here: Path, refusal: Refusal, command: str, suffix: str) -> None:
    file = f"t.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(teacher(classes=7), file)
    said = refusal(command, "r.yaml", "--set", f"models.teacher.weights={file}")
    assert said.startswith(f"{file} has 7 outputs at ")
    assert "but 3 classes are needed here" in said


@BOTH
def test_given_weights_that_do_not_fit(here: Path, refusal: Refusal, command: str) -> None:
    wide = teacher(width=0.5)
    save_file(wide, "wide.safetensors")
    first = next(iter(wide))
    said = refusal(command, "r.yaml", "--set", "models.teacher.weights=wide.safetensors")
    assert f"{first} is {'x'.join(map(str, wide[first].shape))} in the file and " in said
    save_file(teacher(name="plain_cnn-2"), "other.safetensors")
    said = refusal(command, "r.yaml", "--set", "models.teacher.weights=other.safetensors")
    assert re.search(r"does not fit this network: \d+ are missing \(\S+, .*\), none are not known here", said)
    save_file(
        {
            name: tensor * float("nan") if tensor.is_floating_point() else tensor
            for name, tensor in teacher().items()
        },
        "nan.safetensors",
    )
    assert "NaN or infinite" in refusal(command, "r.yaml", "--set", "models.teacher.weights=nan.safetensors")


class _OfTheUser:
    """Stands for a class of the user's own, pickled into a checkpoint."""


@BOTH
def test_a_file_that_would_have_to_run_code(here: Path, refusal: Refusal, command: str) -> None:
    torch.save({"model": teacher(), "settings": _OfTheUser()}, "t.pt")
    said = refusal(command, "r.yaml", "--set", "models.teacher.weights=t.pt")
    assert said.startswith("t.pt would have to run code to be read")
    conversion = said.partition("If you trust it, convert it: ")[2]
    assert conversion.startswith("python -c ")
    assert "t.safetensors" in conversion


@BOTH
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.pt", b"not a checkpoint", "t.pt is not a whole file of torch.save"),
        ("t.safetensors", b"\x00" * 20, "t.safetensors is not a whole safetensors file"),
        ("t.pt", b"", "t.pt is empty"),
        ("t.onnx", b"x", "weights are read from .safetensors, .pt"),
    ],
)
def test_a_file_that_holds_no_weights(
    here: Path, refusal: Refusal, command: str, name: str, content: bytes, said: str
) -> None:
    (here / name).write_bytes(content)
    assert said in refusal(command, "r.yaml", "--set", f"models.teacher.weights={name}")
    assert said in refusal(command, "r.yaml", "--set", f"models.student.start={name}")


@BOTH
def test_weights_that_are_not_there(refusal: Refusal, command: str) -> None:
    assert (
        refusal(command, "r.yaml", "--set", "models.teacher.weights=t.pt")
        == "models.teacher.weights: there is no file t.pt."
    )


@BOTH
def test_a_network_without_the_package_it_comes_from(
    refusal: Refusal, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    for name in ("timm/resnet18", "torchvision/resnet18"):
        said = refusal(command, "r.yaml", "--set", f"models.teacher.name={name}")
        assert said.startswith("models.teacher: ")
        assert said.endswith('pip install "understudy[vision]"')


# --- data -----------------------------------------------------------------------------------------------------------


def rewritten(**arrays: Any) -> None:
    with np.load("data.npz") as file:
        whole = dict(file)
    np.savez("data.npz", **{**whole, **arrays})


@BOTH
def test_data_without_the_package_they_come_from(
    refusal: Refusal, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    said = refusal(command, "r.yaml", "--set", "data={hub: uoft-cs/cifar100}")
    assert said.endswith('pip install "understudy[hub]"')


@BOTH
def test_data_that_are_not_there(refusal: Refusal, command: str) -> None:
    assert "nope.npz cannot be read: No such file" in refusal(
        command, "r.yaml", "--set", "data.path=nope.npz"
    )
    assert refusal(command, "r.yaml", "--set", 'data.path="a\\0b"')


@BOTH
def test_pickled_arrays(here: Path, refusal: Refusal, command: str) -> None:
    rewritten(y_train=np.array([object()] * 60))
    assert "y_train is an array of Python objects (a pickle), which is never read" in refusal(
        command, "r.yaml"
    )


@BOTH
def test_arrays_that_are_no_images_or_labels(here: Path, refusal: Refusal, command: str) -> None:
    rewritten(x_train=np.zeros((60, 8, 8), dtype=np.float32))
    assert "x_train holds float32 values" in refusal(command, "r.yaml")
    write_data(here / "data.npz")
    rewritten(y_train=np.full(60, 99))
    assert "data.npz" in refusal(command, "r.yaml")
    write_data(here / "data.npz")
    rewritten(y_test=np.full(30, 99))
    assert "y_test" in refusal(command, "r.yaml")
    write_data(here / "data.npz")
    rewritten(y_train=np.zeros(59, dtype=np.int64))
    assert "59 labels for 60 images" in refusal(command, "r.yaml")


@BOTH
def test_an_npz_that_is_cut_short_or_something_else(here: Path, refusal: Refusal, command: str) -> None:
    whole = (here / "data.npz").read_bytes()
    for content in (whole[: len(whole) // 2], b"hello", b""):
        (here / "data.npz").write_bytes(content)
        assert refusal(command, "r.yaml").startswith("data.npz is not an .npz file")
    with zipfile.ZipFile(here / "data.npz", "w") as archive:
        archive.writestr("notes.txt", "x")
    assert "data.npz has no array x_train" in refusal(command, "r.yaml")


def pictures(here: Path) -> Path:
    for split, count in (("train", 8), ("test", 4)):
        for kind in ("cat", "dog"):
            folder = here / "pictures" / split / kind
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(np.full((8, 8), 20 * number, dtype=np.uint8)).save(folder / f"{number}.png")
    return here / "pictures"


@BOTH
@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\x00" * 40])
def test_an_image_that_is_damaged(here: Path, refusal: Refusal, command: str, content: bytes) -> None:
    bad = pictures(here) / "train" / "cat" / "3.png"
    bad.write_bytes(content)
    said = refusal(command, "r.yaml", "--set", "data.path=pictures")
    assert str(Path("train") / "cat" / "3.png") in said


@BOTH
def test_an_image_that_is_cut_short(here: Path, refusal: Refusal, command: str) -> None:
    bad = pictures(here) / "test" / "dog" / "1.png"
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)).save(stream, "png")
    bad.write_bytes(stream.getvalue()[:-30])
    assert str(Path("test") / "dog" / "1.png") in refusal(command, "r.yaml", "--set", "data.path=pictures")


@BOTH
def test_images_of_different_sizes(here: Path, refusal: Refusal, command: str) -> None:
    Image.fromarray(np.zeros((9, 7), dtype=np.uint8)).save(pictures(here) / "train" / "dog" / "0.png")
    said = refusal(command, "r.yaml", "--set", "data.path=pictures")
    assert "size" in said
    assert str(Path("dog") / "0.png") in said or str(Path("cat") / "0.png") in said


@BOTH
def test_a_folder_without_images(here: Path, refusal: Refusal, command: str) -> None:
    (here / "nothing").mkdir()
    assert "nothing" in refusal(command, "r.yaml", "--set", "data.path=nothing")
    (here / "nothing" / "train" / "cat").mkdir(parents=True)
    assert "nothing" in refusal(command, "r.yaml", "--set", "data.path=nothing")


# --- the command line -------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("jobs", [0, -1, 10**6])
def test_a_number_of_jobs_that_is_not_possible(refusal: Refusal, command: str, jobs: int) -> None:
    assert (
        refusal(command, "r.yaml", "--jobs", jobs) == f"--jobs is a whole number from 1 to 1024; got {jobs}."
    )


@pytest.mark.parametrize("hours", ["0", "-1", "nan", "inf", "1e300"])
def test_hours_that_are_not_possible(refusal: Refusal, hours: str) -> None:
    assert (
        refusal("run", "r.yaml", "--hours", hours) == f"--hours is a positive number; got {float(hours):g}."
    )


@BOTH
@pytest.mark.parametrize("seeds", ["0", "-1", "x", "", "1,", "1.5", "1001", "0,-2", "9" * 5000, "²"])
def test_seeds_that_are_not_possible(refusal: Refusal, command: str, seeds: str) -> None:
    assert refusal(command, "r.yaml", "--seeds", seeds).startswith(
        "--seeds is how many (1 to 1000), or a list such as 0,3,7; got "
    )


@BOTH
def test_seeds_that_stand_twice_or_are_too_large(refusal: Refusal, command: str) -> None:
    assert refusal(command, "r.yaml", "--seeds", "3,3").startswith("seeds has a number twice")
    assert refusal(command, "r.yaml", "--seeds", "3,9999999999").startswith(
        "seeds.1 is 9999999999; it should be less than"
    )


@BOTH
@pytest.mark.parametrize("setting", ["training.epochs", "=3", "", "a..b=1", "data.path.x=1", "training.lr={"])
def test_a_setting_that_is_none(refusal: Refusal, command: str, setting: str) -> None:
    assert refusal(command, "r.yaml", "--set", setting).startswith(f"--set {setting!r}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["walk", "r.yaml"], "No such command 'walk'"),
        (["run"], "Missing argument 'RECIPE'"),
        (["run", "r.yaml", "--lr", "3"], "No such option"),
        (["run", "r.yaml", "--jobs", "two"], "Invalid value for '--jobs'"),
        (["run", "r.yaml", "--hours", "long"], "Invalid value for '--hours'"),
        (["run", "r.yaml", "more.yaml"], "more.yaml"),
        (["run", "r.yaml", "--out"], "--out"),
        (["store", "burn"], "No such command 'burn'"),
        (["compare"], "Missing argument"),
        (["data", "tinyimagenet100-32"], "Missing option '--from'"),
    ],
)
def test_a_command_that_is_not_possible(refusal: Refusal, arguments: list[str], said: str) -> None:
    line = refusal(*arguments)
    assert said in line
    assert line.endswith(" --help.")


def test_an_out_that_is_a_file_or_holds_something_else(here: Path, refusal: Refusal) -> None:
    (here / "papers").mkdir()
    (here / "papers" / "thesis.tex").write_text("x", "utf-8")
    assert refusal("run", "r.yaml", "--out", "data.npz") == "--out data.npz is a file; name a folder."
    assert refusal("run", "r.yaml", "--out", "data.npz/a/b").endswith(
        "lies below data.npz, which is a file; name a folder."
    )
    assert (
        refusal("run", "r.yaml", "--out", "papers")
        == "--out papers holds files that no run left. Choose another folder."
    )
    assert "File name too long" in refusal("run", "r.yaml", "--out", "x" * 300)


def test_an_out_that_holds_another_run(here: Path, refusal: Refusal) -> None:
    other = check(read_text(TEXT.replace("epochs: 2", "epochs: 9")))
    (here / "runs" / "r").mkdir(parents=True)
    (here / "runs" / "r" / "recipe.yaml").write_text(other.as_yaml(), "utf-8")
    assert refusal("run", "r.yaml") == (
        f"--out {Path('runs/r')} holds another run: training.epochs is 9 there and 2 here. Choose another --out, "
        f"or --force to write over it (what the store keeps is not touched)."
    )


def test_a_store_that_is_a_file_or_newer(here: Path, refusal: Refusal) -> None:
    assert refusal("run", "r.yaml", "--store", "data.npz") == "--store data.npz is a file; name a folder."
    (here / "newer").mkdir()
    (here / "newer" / "store.json").write_text('{"version": 99}', "utf-8")
    assert "has format 99" in refusal("run", "r.yaml", "--store", "newer")


@BOTH
def test_a_gpu_that_is_not_there(refusal: Refusal, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = refusal(command, "r.yaml", "--set", "training.device=cuda")
    assert said.startswith("training.device is cuda, and this machine shows no CUDA device to torch")
    assert "Set device: cpu (or auto)" in said


def test_a_folder_that_may_not_be_written(
    here: Path, refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Permissions do not stop root, who may run these tests.
    def refuse(self: Path, *arguments: object, **more: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    said = refusal("run", "r.yaml", status=1)
    assert said.endswith(
        "may not be written (Permission denied). Choose another place, or mend its permissions."
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report", "nope"], "nope/result.json is not there"),
        (["report", "data.npz"], "data.npz/result.json is not there"),
        (["compare", "nope", "nope2"], "nope/result.json is not there"),
        (["store", "ls"], "there is no store in runs/.store"),
        (["store", "ls", "--store", "data.npz"], "there is no store in data.npz"),
        (["store", "import", "nope.tar"], "there is no file nope.tar"),
        (
            ["store", "gc", "--store", "kept", "--older-than", "-1"],
            "--older-than is a number of 0 or more; got -1.",
        ),
        (
            ["store", "gc", "--store", "kept", "--max-gb", "nan"],
            "--max-gb is a number of 0 or more; got nan.",
        ),
        (["store", "export", "x.tar", "--store", "kept"], "there is no finished stage to export"),
        (["store", "export", "x.tar", "--store", "kept", "--key", "abc"], "begins with 'abc'"),
        (
            ["data", "tinyimagenet", "--from", "."],
            "Possible: tinyimagenet100-32. Did you mean 'tinyimagenet100-32'?",
        ),
        (["data", "tinyimagenet100-32", "--from", "nope"], "nope"),
    ],
)
def test_what_other_commands_cannot_do(here: Path, refusal: Refusal, arguments: list[str], said: str) -> None:
    (here / "kept" / "stages").mkdir(parents=True)
    (here / "kept" / "store.json").write_text('{"version": 1}', "utf-8")
    assert said in refusal(*arguments)


def test_what_a_terminal_would_obey_is_written_out(here: Path, refusal: Refusal) -> None:
    said = refusal(
        "plan",
        recipe(
            here, 'data: {path: "\\e[31m\\u202e\\n.npz"}\nladder: scratch\nmodels: {student: plain_cnn-2}\n'
        ),
    )
    assert said.isprintable()


# --- parts of a teaching --------------------------------------------------------------------------------------------

BLOCKS = """\
data: {path: data.npz, validation: 0.2}
ladder: {shape: direct}
models:
  teacher: {name: resnet-8, width: 0.25}
  student: {name: resnet-8, width: 0.125}
training: {epochs: 1, batch_size: 16, precision: fp32, device: cpu}
"""
PEERS = "models.student.peers=2"
CODES = "teaching.sparse_codes=true"
ASSISTANT = "models.assistants=[{name: resnet-8, width: 0.25}]"
STRUCTURE = "structure={budget: {multiply_adds: 0.5x}}"


@BOTH
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        # sparse codes
        (
            ["teaching.sparse_codes.layers={stge2: stage2}"],
            "teaching.sparse_codes.layers: the student resnet-8 x0.125 has no layer 'stge2'. Did you mean 'stage2'? "
            "`understudy layers MODEL` lists those of a network by name",
        ),
        (
            ["teaching.sparse_codes.layers={stage2: stage22}"],
            "teaching.sparse_codes.layers: the teacher resnet-8 x0.25 has no layer 'stage22'. Did you mean 'stage2'?",
        ),
        (
            ["teaching.sparse_codes.layers={stage2: stage3}"],
            "the student's 'stage2' gives 4x4x4 and the teacher's 'stage3' 16x2x2: a pair needs one height and width. "
            "With 2x2 the student has ",
        ),
        (["teaching.sparse_codes.layers={stage2: stage3}"], "With 4x4 the teacher has "),
        (["teaching.sparse_codes.layers={}"], "teaching.sparse_codes.layers is empty: name pairs such as "),
        (
            ["models.student={name: plain_cnn-2, size: 6}", CODES],
            "teaching.sparse_codes.layers: student and teacher have no size of feature maps in common: the student has 6x6, 3x3, the teacher 8x8, 4x4, 2x2.",
        ),
        (
            ["teaching.sparse_codes.sparsity=0"],
            "teaching.sparse_codes.sparsity is 0; it should be more than 0.",
        ),
        (
            ["teaching.sparse_codes.sparsity=1.5"],
            "teaching.sparse_codes.sparsity is 1.5; it should be at most 1.",
        ),
        (
            ["teaching.sparse_codes.atoms=0.001"],
            "teaching.sparse_codes.atoms for the layer 'stage2': 0.001 atoms for each of 8 channels are less than one atom",
        ),
        (
            ["teaching.sparse_codes.labels=pixels"],
            "teaching.sparse_codes.labels is \"pixels\"; it can be both, pixel, image. Did you mean 'pixel'?",
        ),
        (
            ["teaching.sparse_codes.training.lrr=1"],
            "teaching.sparse_codes.training.lrr is no key. Possible: epochs, ",
        ),
        (
            ["teaching.sparse_codes.dictionary_training.lr=-1"],
            "teaching.sparse_codes.dictionary_training.lr is a number in (0, 10000]; got -1.0.",
        ),
        (["teaching.sparse_codes=7"], "teaching.sparse_codes is 7; it should be keys with values"),
        # peers
        (["models.student.peers=1"], "models.student.peers.count is 1; it should be at least 2."),
        (["models.student.peers.count=1"], "models.student.peers.count is 1; it should be at least 2."),
        (["models.student.peers=40"], "models.student.peers.count is 40; it should be at most 32."),
        (["models.student.peers=two"], 'models.student.peers is "two"; it should be keys with values'),
        (
            ["models.student.peers.split=stge3"],
            "resnet-8 x0.125 3 peers: peers cannot part at 'stge3': it is no layer of it. Possible: stage1, stage2, stage3, "
            "pool, flatten. Did you mean 'stage3'?",
        ),
        (["models.student.peers.split=stem"], "peers cannot part at 'stem': it leaves nothing to share."),
        (["models.student.peers.split=head"], "peers cannot part at 'head': it is the head."),
        (
            ["models.student.peers.deliver=second"],
            'models.student.peers.deliver is "second"; it can be first, ensemble.',
        ),
        (["teaching.peers.ema=1.0"], "teaching.peers.ema is 1.0; it should be less than 1."),
        (["teaching.peers.weight=-1"], "teaching.peers.weight is -1; it should be at least 0."),
        (["teaching.peers.temprature=1"], "Did you mean 'temperature'?"),
        # long tails and balance
        (["data.long_tail.imbalance=0.5"], "data.long_tail.imbalance is 0.5; it should be at least 1."),
        (
            ["data.long_tail.imbalance=50"],
            "data.long_tail.imbalance is 50; the largest class has 16 training images, so the smallest would have none. "
            "Possible: 1 to 16",
        ),
        (
            ["data.long_tail={imbalance: 2, profile: stp}"],
            "data.long_tail.profile is \"stp\"; it can be exp, step. Did you mean 'step'?",
        ),
        (["data.long_tail={}"], "data.long_tail.imbalance is missing."),
        (["teaching.balance.beta=1.0"], "teaching.balance.beta is 1.0; it should be less than 1."),
        (["teaching.balance.defer=2"], "teaching.balance.defer is 2; it should be at most 1."),
        # curriculum
        (
            ["teaching.curriculum.score=gapp"],
            "teaching.curriculum.score is \"gapp\"; it can be gap, loss, confidence, teacher, random. Did you mean 'gap'?",
        ),
        (
            ["teaching.curriculum.boundaries=[0.5, 0.25]"],
            "teaching.curriculum.boundaries are shares of the epochs that rise, above 0 and below 1 - uniform = 0.8; got 0.5, "
            "0.25.",
        ),
        (
            ["teaching.curriculum.boundaries=[]"],
            "teaching.curriculum.boundaries is []; it should have at least 1 entry",
        ),
        (["teaching.curriculum.growth=1"], "teaching.curriculum.growth is 1; it should be more than 1."),
        (
            ["teaching.curriculum=true", "ladder.shape=scratch", "controls=[]"],
            "teaching.curriculum.score gap needs a teacher, and nobody teaches. Without one: loss, confidence or random.",
        ),
        (
            ["teaching.curriculum.score=teacher", "ladder.shape=peers"],
            "teaching.curriculum.score teacher needs a teacher, and nobody teaches.",
        ),
        # what contradicts each other
        (
            ["teaching.curriculum=true", "training.sampling=balanced"],
            "teaching.curriculum and training.sampling balanced both say which samples come: choose one.",
        ),
        (
            ["teaching.curriculum=true", "models.student.training={sampling: balanced}"],
            "teaching.curriculum and models.student.training.sampling balanced both say which samples come: choose one.",
        ),
        (
            ["teaching.balance={control_labels: balanced}", "models.student.training={label_smoothing: 0.1}"],
            "teaching.balance.control_labels: balanced weighs each image by its one label, and "
            "models.student.training.label_smoothing is 0.1: leave one of them out.",
        ),
        (
            [
                "teaching.balance=true",
                "controls=[balanced_labels]",
                "models.student.training={label_smoothing: 0.1}",
            ],
            "controls: balanced_labels has no smoothed labels, and training.label_smoothing is 0.1: leave one of them out, or "
            "say control_training: {balanced_labels: {label_smoothing: 0}}.",
        ),
        (
            ["teaching.curriculum={direction: hard_first}", "controls=[curriculum_reverse]"],
            "controls: curriculum_reverse is the same as the ladder where teaching.curriculum.direction is hard_first: leave "
            "it out, or begin with the easy ones.",
        ),
        (
            [PEERS, "teaching.peers={weight: 0}", "controls=[peers_alone]"],
            "controls: peers_alone is the same as the ladder where teaching.peers.weight is 0, so that peers do not teach each "
            "other: leave it out.",
        ),
        (
            ["controls=[scratch]", "control_training={direct: {lr: 0.1}}"],
            "control_training.direct: that is none of this recipe's controls, which are scratch.",
        ),
        (
            ["controls=[scratch]", "control_training={scrath: {lr: 0.1}}"],
            "control_training.scrath: that is none of this recipe's controls, which are scratch. Did you mean 'scratch'?",
        ),
        (
            ["controls=[scratch]", "control_training={scratch: {rate: 0.1}}"],
            "control_training.scratch.rate is no key. Possible: epochs,",
        ),
        (
            ["controls=[scratch]", "control_training={scratch: {lr: -1}}"],
            "control_training.scratch.lr is a number in (0, 10000]; got -1.0.",
        ),
        (
            ["controls=[scratch, direct]", "control_training={direct: {lr: 0.1}}"],
            "control_training.direct: direct is the ladder itself here, whose student models.student.training is about.",
        ),
        (
            [PEERS, "data.views.mixup=0.2"],
            "models.student has peers, which see several views of one image, and data.views.mixup blends others into each: "
            "leave mixup out.",
        ),
        (
            ["models.teacher.peers=2", "data.views.mixup=0.2"],
            "models.teacher has peers, which see several views of one image",
        ),
        (
            [ASSISTANT, "models.assistants.0.peers=2", "ladder.shape=dense", "data.views.mixup=0.2"],
            "models.assistants.0 has peers, which see several views of one image",
        ),
        (
            ["ladder.shape=peers", "data.views.mixup=0.2"],
            "models.student has peers, which see several views of one image",
        ),
        (
            [PEERS, "training.ema=0.99"],
            "models.student has peers, whose moving average is teaching.peers.ema: leave training.ema out, or set "
            "models.student.training.ema: null.",
        ),
        (
            ["controls=[dkd]", "data.views.mixup=0.2"],
            "controls: dkd tells the label's class from the others, and data.views.mixup blends two: leave one of them out.",
        ),
        (
            ["teaching.curriculum={score: random}", "controls=[curriculum_reverse]"],
            "controls: curriculum_reverse is the same as the ladder where teaching.curriculum.score is random: leave it out, "
            "or take another score.",
        ),
        (
            [PEERS, STRUCTURE],
            "models.student has peers, which begin with weights of their own, and so does structure: choose one.",
        ),
        (
            ["models.teacher.peers=2", STRUCTURE],
            "models.teacher has peers, which begin with weights of their own, and so does structure: choose one.",
        ),
        (
            ["ladder.shape=peers", STRUCTURE],
            "models.student has peers, which begin with weights of their own",
        ),
        (
            [CODES, STRUCTURE],
            "teaching.sparse_codes does not go with structure, which begins with weights of its own: choose one.",
        ),
        (
            ["teaching.curriculum=true", STRUCTURE],
            "teaching.curriculum does not go with structure, whose search would see a part of the samples only: learn the "
            "structure first.",
        ),
        (
            [CODES, PEERS],
            "teaching.sparse_codes finds the weights that a student begins with, and peers begin with their own: choose one.",
        ),
        (
            [PEERS, "models.student.start=data.npz"],
            "models.student has peers, which begin with weights of their own: leave out start and pretrained.",
        ),
        (
            ["models.teacher.peers=2", "models.teacher.pretrained=true"],
            "models.teacher has peers, which begin with weights of their own: leave out start and pretrained.",
        ),
        (
            ["teaching.balance=true", "ladder.shape=scratch", "controls=[]"],
            "teaching.balance is about what teachers say, and nobody teaches: leave it out.",
        ),
        (
            ["teaching.balance=true", "ladder.shape=peers"],
            "teaching.balance is about what teachers say, and nobody teaches: leave it out.",
        ),
        (
            [CODES, "ladder.shape=peers"],
            "teaching.sparse_codes is about what teachers say, and nobody teaches: leave it out.",
        ),
        *(
            (
                [ASSISTANT, f"ladder.shape={shape}", setting],
                f"{what} does not go with shape: {shape}, {why}; take direct, chain or dense.",
            )
            for shape, why in (
                ("paths", "which compares ladders with each other and has none without it"),
                ("pacemaker", "which trains the student in two stages of its own"),
            )
            for setting, what in (
                ("teaching.balance=true", "teaching.balance"),
                ("teaching.curriculum=true", "teaching.curriculum"),
                (CODES, "teaching.sparse_codes"),
                (PEERS, "models.student.peers"),
            )
        ),
        *(
            (
                [f"controls=[{control}]"],
                f"controls: {control} goes with teaching.{part}, and this recipe has none.",
            )
            for control, part in (
                ("hints", "sparse_codes"),
                ("balanced_labels", "balance"),
                ("curriculum_reverse", "curriculum"),
                ("curriculum_random", "curriculum"),
            )
        ),
        (
            ["controls=[peers_alone]"],
            "controls: peers_alone goes with shape: peers or models.student.peers, and this recipe has neither.",
        ),
        (
            ["teaching.balance=true", "controls=[balanced_labels]", "data.views.mixup=0.2"],
            "controls: balanced_labels weighs each image by its label, and data.views.mixup blends two: leave one of them out.",
        ),
        (
            ["teaching.balance=true", "controls=[balanced_labels]", "training.label_smoothing=0.1"],
            "controls: balanced_labels has no smoothed labels, and training.label_smoothing is 0.1: leave one of them out, or",
        ),
    ],
)
def test_a_part_of_a_teaching_that_is_not_possible(
    here: Path, refusal: Refusal, command: str, settings: list[str], said: str
) -> None:
    sets = [word for setting in settings for word in ("--set", setting)]
    assert said in refusal(command, recipe(here, BLOCKS), *sets)


LONG = """\
data: {path: data.npz, validation: 0.2}
ladder:
  stages:
    - {name: lead, model: {name: resnet-8, width: 0.25}}
    - {name: end, model: {name: resnet-8, width: 0.125}, teachers: [lead]}
training: {epochs: 1, batch_size: 16, precision: fp32, device: cpu}
"""


@BOTH
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["ladder.stages.0.teaching.curriculum.score=gap"],
            "ladder.stages.0.teaching.curriculum.score gap needs a teacher, and nobody teaches.",
        ),
        (
            ["ladder.stages.0.teaching.balance=true"],
            "ladder.stages.0.teaching.balance is about what teachers say, and nobody teaches: leave it out.",
        ),
        (
            ["ladder.stages.1.teaching.sparse_codes.layers={stage2: stage33}"],
            "teaching.sparse_codes.layers: the teacher resnet-8 x0.25 has no layer 'stage33'. Did you mean 'stage3'?",
        ),
        (
            ["ladder.stages.1.model.peers=2", "ladder.stages.1.teaching.sparse_codes=true"],
            "stage 'end' begins by matching layers, and has a start, a structure or peers already: choose one.",
        ),
        (
            ["ladder.stages.1.start=lead", "ladder.stages.1.model.peers=2"],
            "stage 'end' is of peers, which begin with weights of their own",
        ),
        (
            ["ladder.stages.1.model.peers=2", "data.views.mixup=0.2"],
            "ladder.stages.1.model has peers, which see several views of one image",
        ),
        (
            ["ladder.stages.1.model.peers=1"],
            "ladder.stages.1.model.peers.count is 1; it should be at least 2.",
        ),
        (
            ["teaching.balance=true", "controls=[balanced_labels]"],
            "controls: balanced_labels goes with the short form; write its stages under ladder.stages.",
        ),
    ],
)
def test_a_part_that_a_stage_cannot_have(
    here: Path, refusal: Refusal, command: str, settings: list[str], said: str
) -> None:
    sets = [word for setting in settings for word in ("--set", setting)]
    assert said in refusal(command, recipe(here, LONG), *sets)


@BOTH
@pytest.mark.parametrize("name", ["t.onnx", "t.pt2", "t.npz"])
def test_the_layers_of_a_teacher_in_a_file(here: Path, refusal: Refusal, command: str, name: str) -> None:
    (here / name).write_bytes(b"nothing")
    said = refusal(command, recipe(here, BLOCKS), "--set", f"models.teacher={{file: {name}}}", "--set", CODES)
    assert said == (
        f"teaching.sparse_codes looks at the teacher's layers, and the teacher is the file {name}, which shows none: give "
        f"the network by name with its weights."
    )


def test_what_a_worker_finds_out_is_one_line_too(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from understudy.teaching.sparse_codes import Dictionaries

    def begin(self: Dictionaries, beginning: object) -> None:
        raise BadInput("the teacher's 'stage2' gives 4x4 an image, which is no feature map")

    monkeypatch.setattr(Dictionaries, "begin", begin)
    with pytest.raises(SystemExit) as ended:
        main(["run", str(recipe(here, BLOCKS)), "--set", CODES, "--quiet"])
    out, err = capsys.readouterr()
    assert ended.value.code == 1
    assert "Traceback" not in out + err
    (failed,) = [line for line in err.splitlines() if " failed: " in line]
    assert failed == (
        "direct + sparse_codes/dictionaries failed: the teacher's 'stage2' gives 4x4 an image, which is no feature map"
    )
    assert "direct + sparse_codes is left out: it needs direct + sparse_codes/start" in err


# --- the property: a few thousand recipes that are wrong somehow ------------------------------------------------

GOOD: list[dict[str, Any]] = [
    {
        "data": {"path": "data.npz", "validation": 0.2, "views": {"crop": 1, "flip": True}},
        "ladder": {"shape": "dense", "stochastic": {"keep": 0.75}},
        "models": {
            "teacher": {"name": "plain_cnn-3", "width": 0.25, "training": {"epochs": 2}},
            "assistants": [{"name": "plain_cnn-2", "width": 0.25}],
            "student": "plain_cnn-2",
        },
        "teaching": {"temperature": 4, "soft_weight": 0.5, "teacher_weights": [1, 0.5]},
        "training": {"epochs": 2, "batch_size": 16, "lr": 0.05, "milestones": [0.5, 0.75], "device": "cpu"},
        "controls": ["scratch", "direct", "direct_long"],
        "seeds": [0, 1],
        "repeat": "assistants",
    },
    {
        "data": {"path": "data.npz", "size": [8, 8], "channels": 1, "mean": [0.5], "std": [0.2]},
        "ladder": {
            "student": "end",
            "stages": [
                {"name": "lead", "model": {"name": "plain_cnn-2", "width": 0.25}},
                {
                    "name": "middle",
                    "model": "plain_cnn-2",
                    "teachers": ["lead"],
                    "teaching": {"combine": "mean"},
                },
                {
                    "name": "end",
                    "model": "plain_cnn-2",
                    "start": "lead",
                    "teachers": ["lead", "middle"],
                    "stochastic": {"mode": "exact_k"},
                },
            ],
        },
        "training": {"epochs": 1, "schedule": "cosine", "warmup": 0.5, "ema": 0.9, "clip": 1.0},
    },
    {
        "data": {
            "path": "data.npz",
            "train_images": 20,
            "test_images": 10,
            "memory": "stream",
            "mean": [0.5],
            "std": [0.25],
        },
        "ladder": "paths",
        "models": {
            "teacher": "plain_cnn-2",
            "assistants": ["plain_cnn-2", "plain_cnn_narrow-2"],
            "student": "plain_cnn_narrow-2",
        },
        "compat": "dgkd",
        "direct_long": {"match": "multiply_adds"},
    },
    {
        "data": {"path": "data.npz", "long_tail": {"imbalance": 2, "profile": "step"}},
        "ladder": "direct",
        "models": {"teacher": {"name": "plain_cnn-2", "width": 0.5}, "student": "plain_cnn-2"},
        "teaching": {
            "balance": {"beta": 0.99, "defer": 0.5},
            "curriculum": {"score": "gap", "boundaries": [0.25, 0.5], "uniform": 0.25},
            "sparse_codes": {
                "layers": {"features.conv1": "features.conv1"},
                "sparsity": 0.1,
                "epochs": 2,
                "training": {"lr": 0.1},
            },
            "peers": {"ramp": 0.5, "ema": 0.9},
        },
        "training": {"epochs": 2, "batch_size": 16, "device": "cpu"},
        "controls": ["scratch", "hints", "balanced_labels", "curriculum_random"],
    },
    {
        "data": {"path": "data.npz"},
        "ladder": {"shape": "peers"},
        "models": {
            "student": {
                "name": "plain_cnn-2",
                "peers": {"count": 2, "split": "features.conv2", "deliver": "ensemble"},
            }
        },
        "teaching": {"peers": {"temperature": 2, "weight": 0.5}, "curriculum": {"score": "loss"}},
        "training": {"epochs": 2, "batch_size": 16, "device": "cpu"},
        "controls": ["scratch", "peers_alone"],
    },
]
# fmt: off
ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 7, 0.5, -0.5, 1.0, 1e-300, 1e300, 2**31, 2**63 - 1, -(2**63) + 1, "", " ", ".", "/", "x", "0",
    "null", "nan", "é", "雪", "\x00", "\n", "\u202e", "a b", "../..", "/dev/null", "data.npz", "cuda", "scratch", "dense",
    "plain_cnn-2", "plain_cnn-99", "resnet-8", "wrn--1", "timm/", "timm/x", "torchvision/..", "lead", "end", "name", "x" * 10_000,
    [], [[]], [None], [1, 2, 3], ["x"], {}, {"name": "x"}, {"": None}, {"a": {"b": {"c": []}}}, [{}], [0, 0], [0.1, 0.9], ["lead", "lead"],
]
# fmt: on
KEYS = [
    "name",
    "path",
    "hub",
    "weights",
    "start",
    "pretrained",
    "size",
    "lr",
    "stages",
    "shape",
    "stochastic",
    "teachers",
    "compat",
    "x",
    "",
    "é" * 300,
]


@pytest.mark.parametrize("good", GOOD)
def test_what_is_changed_below_is_right_before(here: Path, good: dict[str, Any]) -> None:
    assert build(check(good)).jobs


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, below in inner for place in places(below, (*path, key)))]


def mutated(draw: random.Random) -> str:
    """The text of a good recipe with one to four things changed in it, sometimes in the text itself."""
    whole = deepcopy(draw.choice(GOOD))
    for _ in range(draw.choice([1, 1, 1, 2, 3, 4])):
        path = draw.choice([place for place in places(whole) if place] or [()])
        if not path:
            break
        here: Any = whole
        for step in path[:-1]:
            here = here[step]
        key, what = path[-1], draw.randrange(8)
        if what == 0:
            del here[key]
        elif what == 1 and isinstance(here, dict):
            word = str(key)
            at = draw.randrange(len(word) + 1)
            here[word[:at] + draw.choice("xé_ .") + word[at + draw.randrange(2) :]] = here.pop(key)
        elif what == 2 and isinstance(here, dict):
            here[draw.choice(KEYS)] = draw.choice(ODD)
        elif what == 3 and isinstance(here, list):
            here.append(deepcopy(here[key]))
        elif what == 4 and isinstance(here[key], int | float) and not isinstance(here[key], bool):
            here[key] = draw.choice(
                [-here[key], here[key] * 1000, here[key] / 3, str(here[key]), [here[key]], here[key] + 0.5]
            )
        elif what == 5:
            here[key] = deepcopy(draw.choice(draw.choice([list(whole.values()), ODD])))
        else:
            here[key] = deepcopy(draw.choice(ODD))
    text = written(whole)
    if draw.random() < 0.3:
        at = draw.randrange(len(text) + 1)
        noise = draw.choice(
            [
                "\x00",
                "\t",
                "\n",
                ": ",
                "- ",
                "[",
                "}",
                "'",
                '"',
                "&a ",
                "*a",
                "!!int ",
                "# ",
                "? ",
                "| ",
                "%",
                "\ufeff",
                "\ud800",
                "9" * 500,
                ".nan",
                text[:200],
            ]
        )
        text = text[:at] + noise + text[at + draw.choice([0, 0, 1, 5, 50]) :]
    return text


def is_small(recipe: Recipe) -> bool:
    """Whether building it makes nothing that takes long; what is refused is then refused for another reason."""
    models = [entry.model for entry in recipe.ladder.stages or []]
    if recipe.models is not None:
        models += [
            *recipe.models.assistants,
            recipe.models.student,
            *([recipe.models.teacher] if recipe.models.teacher else []),
        ]
    small = all(model.width <= 2 and model.size in (None, 0, 1, 2, 3, 7) for model in models)
    return small and recipe.data.hub is None and len(models) < 8


def test_no_mutated_recipe_ends_in_anything_but_one_line(here: Path) -> None:
    draw = random.Random(20_260_101)
    refused = built = 0
    until = time.monotonic() + 8
    for number in range(2000):
        text = mutated(draw)
        try:
            recipe = check(read_text(text))
            if (built < 4 or time.monotonic() < until) and is_small(recipe):
                build(recipe)
                built += 1
        except BadInput as error:
            refused += 1
            said = str(error)
            assert said.strip(), text
            assert "\n" not in said, said
            assert len(said) < 2500, said
        except Exception as error:
            raise AssertionError(
                f"recipe {number} ended in {type(error).__name__}: {error}\n{text[:3000]}"
            ) from error
    assert refused > 1000  # the mutations do what they are for
    assert built > 3
    assert sorted(path.name for path in here.iterdir()) == ["data.npz", "r.yaml"]


def command_in(folder: Path, *arguments: str) -> None:
    """The command, in a process of its own."""
    os.chdir(folder)
    main(arguments)


def test_no_mutated_recipe_ends_in_a_traceback_of_the_command(here: Path) -> None:
    draw = random.Random(7)
    names = []
    for number in range(12):
        name = f"{number}.yaml"
        Path(name).write_bytes(mutated(draw).encode("utf-8", "surrogatepass"))
        names.append(name)
    before = tree(here)
    processes = [Forked(command_in, here, "plan", name) for name in names]
    for process in processes:
        process.go()
    ended = [(process.ended(), process.status) for process in processes]
    for name, (said, status) in zip(names, ended, strict=True):
        assert status in (0, 2), (name, said)
        assert "Traceback" not in said
        if status == 2:
            assert re.fullmatch(r"understudy: [^\n]+\n", said), (name, said)
    assert {status for _, status in ended} >= {2}
    assert tree(here) == before
