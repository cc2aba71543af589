from __future__ import annotations

import copy
import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.recipe.tiny import write_data
from understudy.data import Dataset
from understudy.errors import BadInput
from understudy.ladder import Ladder, Stage
from understudy.losses import soft_target_loss
from understudy.recipe import Recipe, check
from understudy.recipe.building import build, dataset_of, ladder_of
from understudy.recipe.papers import DATA, MARKS, PAPERS, Paper, paper_of, recipe_of
from understudy.teaching import SoftTargets
from understudy.teaching.balanced import BalancedTargets
from understudy.teaching.peers import Peers
from understudy.training import Training
from understudy.training.optimizers import build_optimizer
from understudy.training.schedules import factor

NAMES = sorted(PAPERS)


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes of 110 images of 32 x 32, so that an imbalance of 100 leaves one of the last class."""
    stream = np.random.default_rng(0)

    def some(count: int) -> tuple[np.ndarray, np.ndarray]:
        return stream.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), np.arange(count) % 4

    (x_train, y_train), (x_test, y_test) = some(440), some(8)
    path = tmp_path_factory.mktemp("papers") / "arrays.npz"
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path


@functools.cache
def _dataset(path: Path, tail: float | None, validation: float) -> Dataset:
    long_tail = None if tail is None else {"imbalance": tail}
    said = {"path": str(path), "validation": validation, "long_tail": long_tail}
    return dataset_of(check({"data": said, "ladder": "scratch", "models": {"student": "resnet-8"}}))


@functools.cache
def ladder(name: str, path: Path) -> Ladder:
    """The ladder of a table on made-up images, at full length."""
    recipe = check(recipe_of(paper_of(name), data={"path": str(path)}))
    tail = recipe.data.long_tail
    dataset = _dataset(path, None if tail is None else tail.imbalance, recipe.data.validation)
    return ladder_of(recipe, dataset)


def epochs_in(value: Any) -> list[int]:
    """Every number of epochs in a recipe, in its order."""
    if isinstance(value, list):
        return [number for entry in value for number in epochs_in(entry)]
    if not isinstance(value, dict):
        return []
    found: list[int] = []
    for key, entry in value.items():
        own = key in ("epochs", "dictionary_epochs") and entry is not None
        found += [entry] if own else epochs_in(entry)
    return found


def soft(stage: Stage) -> SoftTargets:
    assert isinstance(stage.method, SoftTargets)
    return stage.method


def trained(stage: Stage) -> Training:
    assert stage.training is not None
    return stage.training


# --- all of them --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [1.0, 0.1])
@pytest.mark.parametrize("data", [None, {"path": "mine.npz"}])
def test_every_recipe_is_valid(name: str, scale: float, data: dict[str, str] | None) -> None:
    paper = paper_of(name)
    recipe = check(recipe_of(paper, data=data, scale=scale))
    assert recipe.compat is None
    if data is None:
        assert recipe.data.hub == DATA[paper.data]["hub"]
    else:
        assert (recipe.data.path, recipe.data.hub) == ("mine.npz", None)
        assert recipe.data.mean is None  # the published statistics are those of other images
        assert recipe.data.std is None


@pytest.mark.parametrize("name", NAMES)
def test_the_scale_shortens_every_training_and_nothing_else(name: str) -> None:
    whole = check(recipe_of(paper_of(name))).as_dict()
    short = check(recipe_of(paper_of(name), scale=0.1)).as_dict()
    assert epochs_in(whole)
    assert epochs_in(short) == [max(1, round(0.1 * epochs)) for epochs in epochs_in(whole)]
    assert check(recipe_of(paper_of(name), scale=1e-6)).training.epochs == 1

    def rest(value: Any) -> Any:
        if isinstance(value, dict):
            gone = ("epochs", "dictionary_epochs", "warmup")
            return {key: rest(entry) for key, entry in value.items() if key not in gone}
        return [rest(entry) for entry in value] if isinstance(value, list) else value

    assert rest(short) == rest(whole)
    assert short["training"]["warmup"] == pytest.approx(0.1 * whole["training"]["warmup"])


@pytest.mark.parametrize("scale", [0.0, -1.0, 1.5, math.nan])
def test_a_scale_that_is_none_is_refused(scale: float) -> None:
    with pytest.raises(BadInput, match=r"--scale is a factor on the epochs, above 0 and at most 1; got "):
        recipe_of(paper_of("takd-1"), scale=scale)


def test_an_unknown_paper_is_answered_with_the_nearest() -> None:
    with pytest.raises(BadInput, match=r"no paper 'dgkd-stochastik'\..* Did you mean 'dgkd-stochastic'\?"):
        paper_of("dgkd-stochastik")


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_stands_beside_an_arm(name: str, arrays: Path) -> None:
    made = {stage.name for stage in ladder(name, arrays).stages}
    for figure in paper_of(name).figures:
        assert figure.arm in made
        assert figure.mark in MARKS
        assert 0 < figure.percent < 100


def test_a_whole_one_can_be_built_into_jobs(arrays: Path) -> None:
    jobs = build(check(recipe_of(paper_of("takd-1-cifar10"), data={"path": str(arrays)}, scale=0.01))).jobs
    assert {job.name for job in jobs} == {"teacher", "chain/plain_cnn_narrow-4", "chain", "direct", "scratch"}
    assert {trained(job.stage).epochs for job in jobs} == {2}


def test_a_recipe_is_a_copy() -> None:
    before = copy.deepcopy(dict(paper_of("takd-1").recipe))
    recipe_of(paper_of("takd-1"))["models"]["teacher"] = "resnet-8"
    recipe_of(paper_of("takd-1"), data={"path": "a.npz"}, scale=0.5)
    assert dict(paper_of("takd-1").recipe) == before


def figures_of(name: str) -> dict[str, tuple[float, str]]:
    return {figure.arm: (figure.percent, figure.mark) for figure in paper_of(name).figures}


def test_figures_are_those_of_the_tables() -> None:
    assert figures_of("takd-1") == {
        "scratch": (41.09, "quoted"),
        "direct": (44.57, "quoted"),
        "chain": (44.92, "quoted"),
    }
    assert [percent for percent, _ in figures_of("takd-1-cifar10").values()] == [70.16, 72.57, 73.51]
    assert figures_of("takd-1-resnet") == {
        "teacher": (72.38, "author"),
        "assistant": (68.11, "author"),
        "scratch": (61.37, "author"),
        "direct": (61.41, "author"),
        "chain": (61.82, "author"),
    }
    assert figures_of("dgkd-1")["chain"] == (45.14, "quoted")
    assert figures_of("dgkd-1")["dense"] == (48.92, "quoted")
    assert figures_of("dgkd-2") == {"chain": (88.01, "quoted"), "dense": (89.02, "quoted")}
    assert figures_of("dgkd-5") == {"chain": (44.07, "quoted"), "dense": (49.56, "quoted")}
    assert figures_of("dgkd-stochastic") == {"dense": (50.15, "computed")}
    assert round(48.92 + 1.23, 2) == 50.15
    assert figures_of("dgkd-stochastic-cifar10") == {"dense": (89.66, "computed")}
    assert round(89.02 + 0.64, 2) == 89.66
    assert figures_of("takd-1-resnet-cifar10") == {
        "scratch": (88.52, "quoted"),
        "direct": (88.65, "quoted"),
        "chain": (88.98, "unverified"),
    }
    assert figures_of("dgkd-wrn") == {"chain": (75.04, "unverified"), "dense": (76.24, "unverified")}


def test_what_has_no_figures_says_what_is_published() -> None:
    silent = [name for name in NAMES if not paper_of(name).figures]
    assert silent == ["isl-cifar100", "pacemaker-cifar100", "structure-multiply-adds", "structure-parameters"]
    assert all(paper_of(name).said.endswith(".") for name in silent)
    assert "5.39 points" in paper_of("pacemaker-cifar100").said
    for name in silent[2:]:
        assert "1.05 points" in paper_of(name).said
        assert "5.2" in paper_of(name).said


@pytest.mark.parametrize(
    ("data", "figures"),
    [
        ("cifar100", [(74.14, 0.16), (79.98, 0.55), (76.89, 0.25), (73.09, 0.16), (80.51, 0.49)]),
        ("cifar10", [(94.33, 0.12), (95.53, 0.16), (94.74, 0.02), (94.13, 0.13), (95.42, 0.04)]),
    ],
)
def test_figures_of_peers_have_their_deviations(data: str, figures: list[tuple[float, float]]) -> None:
    networks = ("", "-resnet-110", "-vgg-16", "-densenet-40-12", "-wrn-20-8")
    for network, (percent, spread) in zip(networks, figures, strict=True):
        alone, best = paper_of(f"pcl-{data}{network}").figures
        assert (best.percent, best.spread, best.mark) == (percent, spread, "quoted")
        assert (alone.arm, alone.mark, alone.spread) == ("scratch", "unverified", None)


def test_what_nobody_checked_is_marked() -> None:
    for name in NAMES:
        if name.startswith(("srm", "bkd")):
            assert {figure.mark for figure in paper_of(name).figures} == {"unverified"}


# --- settings of the sheets ---------------------------------------------------------------------------------------


def test_plain_cnns_of_takd_train_as_in_the_official_code(arrays: Path) -> None:
    found = ladder("takd-1", arrays)
    assert [stage.network.name for stage in found.stages] == [
        *("plain_cnn-10", "plain_cnn-4", "plain_cnn-2"),
        *("plain_cnn-2", "plain_cnn-2"),
    ]
    for stage in found.stages:
        training = trained(stage)
        assert (training.epochs, training.batch_size, training.optimizer) == (160, 128, "sgd")
        assert (training.lr, training.schedule, training.momentum) == (0.01, "constant", 0.9)
        assert (training.nesterov, training.weight_decay, training.decay) == (False, 1e-4, "all")
    assert soft(found["chain"]).kl_reduction == "mean_over_classes"
    assert found["chain"].teachers == ("chain/plain_cnn-4",)
    recipe = check(recipe_of(paper_of("takd-1")))
    assert recipe.data.mean == (0.507, 0.487, 0.441)
    assert recipe.data.std == (0.267, 0.256, 0.276)
    assert (recipe.data.views.crop, recipe.data.views.flip) == (0, False)


def test_each_hop_of_takds_residual_networks_has_its_own_weight(arrays: Path) -> None:
    found = ladder("takd-1-resnet", arrays)
    names = ("teacher", "assistant", "chain", "direct", "scratch")
    assert [found[name].network.name for name in names] == ["resnet-110", "resnet-20", *3 * ["resnet-8"]]
    assert found.delivered == ("chain",)
    assert set(found.students) == {"chain", "direct", "scratch"}
    hops = {
        "assistant": ("teacher", 0.5, 5.0),
        "chain": ("assistant", 0.15, 5.0),
        "direct": ("teacher", 0.2, 2.0),
    }
    for name, (teacher, weight, temperature) in hops.items():
        method = soft(found[name])
        assert found[name].teachers == (teacher,)
        assert (method.soft_weight, method.temperature) == (weight, temperature)
        assert method.kl_reduction == "mean_over_classes"
    for name in names:  # as executed: 120 epochs at 0.01, 40 at 0.001
        training = trained(found[name])
        rates = [
            training.lr
            * factor("step", step=epoch, steps=160, milestones=training.milestones, gamma=training.gamma)
            for epoch in range(160)
        ]
        assert rates == pytest.approx([0.01] * 120 + [0.001] * 40)
        assert (training.epochs, training.nesterov, training.weight_decay) == (160, False, 1e-4)


def test_dense_guidance_sums_all_above_and_has_no_hard_label(arrays: Path) -> None:
    found = ladder("dgkd-1", arrays)
    assert found["dense"].teachers == ("teacher", *(f"dense/plain_cnn-{size}" for size in (8, 6, 4)))
    method = soft(found["dense"])
    assert (method.soft_weight, method.temperature, method.combine) == (1.0, 5.0, "sum")
    assert (method.hard_terms, method.kl_reduction, method.stochastic) == ("once", "mean_over_classes", None)
    training = trained(found["dense"])
    assert (training.epochs, training.lr, training.schedule) == (160, 0.01, "constant")
    rates = trained(ladder("dgkd-2", arrays)["dense"])  # residual networks: the official code has mended this
    assert (rates.lr, rates.schedule, rates.milestones, rates.gamma) == (0.1, "step", (0.5, 0.75), 0.1)


def test_seven_assistants_are_all_sizes_between(arrays: Path) -> None:
    found = ladder("dgkd-5", arrays)
    assert found["dense"].teachers == ("teacher", *(f"dense/plain_cnn-{size}" for size in range(9, 2, -1)))


def test_stochastic_teaching_leaves_one_of_four_out_for_the_student_alone(arrays: Path) -> None:
    found = ladder("dgkd-stochastic", arrays)
    dropping = soft(found["dense"]).stochastic
    assert dropping is not None
    assert (dropping.mode, dropping.drop, dropping.rescale) == ("exact_k", 1, False)
    assert 1 - dropping.drop / len(found["dense"].teachers) == 0.75
    others = [stage for stage in found.stages if stage.teachers and stage.name != "dense"]
    assert all(soft(stage).stochastic is None for stage in others)


def test_peers_train_as_in_the_re_implementation(arrays: Path) -> None:
    found = ladder("pcl-cifar100", arrays)
    together = found["peers ensemble"]
    method = together.method
    assert isinstance(method, Peers)
    assert (method.count, method.temperature, method.weight, method.ema) == (3, 3.0, 1.0, 0.999)
    assert method.ema_buffers is False
    training = trained(together)
    assert method.ramp * training.epochs == pytest.approx(80, abs=0.5)
    assert (training.epochs, training.batch_size, training.lr, training.momentum) == (300, 128, 0.1, 0.9)
    assert (training.nesterov, training.weight_decay, training.schedule) == (True, 5e-4, "step")
    assert [fraction * 300 for fraction in training.milestones] == [150, 225]
    assert training.gamma == 0.1
    recipe = check(recipe_of(paper_of("pcl-cifar100")))
    assert recipe.data.mean == (0.5071, 0.4866, 0.4409)
    assert recipe.data.std == (0.2675, 0.2565, 0.2761)
    assert (recipe.data.views.crop, recipe.data.views.flip, len(recipe.seeds)) == (4, True, 3)
    assert check(recipe_of(paper_of("pcl-cifar10"))).data.std == (0.2470, 0.2435, 0.2616)


def test_balanced_distillation_is_deferred_on_cifar_10_alone(arrays: Path) -> None:
    recipe = check(recipe_of(paper_of("bkd-cifar10-100")))
    assert recipe.data.long_tail is not None
    assert (recipe.data.long_tail.imbalance, recipe.data.long_tail.profile) == (100, "exp")
    assert recipe.data.mean == (0.4914, 0.4822, 0.4465)
    assert recipe.data.std == (0.2023, 0.1994, 0.2010)
    found = ladder("bkd-cifar10-100", arrays)
    method = found["direct + balance"].method
    assert isinstance(method, BalancedTargets)
    assert (method.temperature, method.beta, method.form) == (2.0, 0.9999, "renormalised")
    assert method.kl_reduction == "batchmean"
    assert method.defer * 200 == 160
    hundred = ladder("bkd-cifar100-100", arrays)["direct + balance"].method
    assert isinstance(hundred, BalancedTargets)
    assert hundred.defer == 0
    assert {stage.network.name for stage in found.stages} == {"resnet-32"}


def test_balanced_distillation_trains_as_in_the_official_code(arrays: Path) -> None:
    found = ladder("bkd-cifar10-100", arrays)
    teacher, student = trained(found["teacher"]), trained(found["direct + balance"])
    # the loss of the student is half of the published one
    assert (teacher.lr, teacher.weight_decay) == (0.1, 2e-4)
    assert (student.lr, student.weight_decay, soft(found["direct"]).soft_weight) == (0.2, 1e-4, 0.5)
    for training in (teacher, student):
        assert (training.epochs, training.batch_size, training.nesterov) == (200, 128, False)
        assert (training.warmup, training.clip) == (5.0, None)
        rates = [
            factor(
                "step",
                step=epoch,
                steps=200,
                milestones=training.milestones,
                gamma=training.gamma,
                warmup_steps=5,
            )
            for epoch in range(200)
        ]
        expected = [0.2, 0.4, 0.6, 0.8] + [1.0] * 156 + [1e-2] * 20 + [1e-4] * 20
        assert rates == pytest.approx(expected)


def trained_weights(
    *, half: bool, lr: float, weight_decay: float, steps: int = 25
) -> tuple[Tensor, list[float]]:
    """Weights after some steps of SGD with momentum on CE + KD, or on half of both; and the whole losses."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.BatchNorm1d(8), nn.Linear(8, 4)).double()
    stream = torch.Generator().manual_seed(1)
    images = torch.randn(40, 6, generator=stream, dtype=torch.float64)
    teacher = 3 * torch.randn(40, 4, generator=stream, dtype=torch.float64)
    labels = torch.arange(40) % 4
    training = Training(lr=lr, momentum=0.9, nesterov=False, weight_decay=weight_decay)
    optimizer = build_optimizer(training, [model])
    losses = []
    for _ in range(steps):
        logits = model(images)
        loss = F.cross_entropy(logits, labels) + soft_target_loss(logits, teacher, temperature=2.0).mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        (0.5 * loss if half else loss).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]), losses


def test_half_of_the_loss_at_twice_the_rate_and_half_the_decay_is_the_same_training() -> None:
    published, losses = trained_weights(half=False, lr=0.1, weight_decay=2e-4)
    ours, same = trained_weights(half=True, lr=0.2, weight_decay=1e-4)
    assert torch.allclose(ours, published, rtol=1e-9, atol=1e-10)
    assert same == pytest.approx(losses)
    assert losses[-1] < 0.9 * losses[0]
    kept, _ = trained_weights(half=True, lr=0.2, weight_decay=2e-4)
    assert not torch.allclose(kept, published, rtol=1e-3)  # the decay must be halved, too


def test_matched_layers_of_srm_are_those_of_the_official_code(arrays: Path) -> None:
    found = ladder("srm-cifar100", arrays)
    assert found["teacher"].network.name == "densenet-121"
    assert (found["direct + sparse_codes"].network.name, found["direct + sparse_codes"].network.width) == (
        "allcnn",
        0.66,
    )
    start, dictionaries = (found[f"direct + sparse_codes/{which}"] for which in ("start", "dictionaries"))
    recipe = check(recipe_of(paper_of("srm-cifar100")))
    section = recipe.teaching.sparse_codes
    assert section is not None
    assert section.layers == {"stage1": "transition1", "stage2": "transition2", "stage4": "block4"}
    assert (section.atoms, section.sparsity, section.labels) == (2.0, 0.02, "both")
    assert (recipe.teaching.soft_weight, recipe.teaching.temperature) == (0.5, 4.0)

    def lasts(training: Training) -> list[int]:
        """Epochs at 1e-3, 1e-4 and 1e-5."""
        ends = [*(round(part * training.epochs) for part in training.milestones), training.epochs]
        return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]

    student = trained(found["direct + sparse_codes"])
    for training, parts, batch_size, decay in (
        (trained(dictionaries), [10, 60, 30], 512, 0.0),
        (trained(start), [30, 100, 30], 384, 1e-4),
        (student, [30, 100, 70], 128, 1e-4),
        (trained(found["teacher"]), [30, 100, 70], 128, 1e-4),
    ):
        assert lasts(training) == parts
        assert (training.batch_size, training.weight_decay) == (batch_size, decay)
        assert (training.optimizer, training.lr, training.gamma) == ("adamw", 1e-3, 0.1)
    assert recipe.data.mean == pytest.approx([125.3 / 255, 123.0 / 255, 113.9 / 255], abs=1e-4)
    assert recipe.data.std == pytest.approx([63.0 / 255, 62.1 / 255, 66.7 / 255], abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_ours_is_said(name: str) -> None:
    paper: Paper = paper_of(name)
    recipe: Recipe = check(recipe_of(paper))
    assert all(choice == choice.strip(". ") for choice in paper.ours)
    if recipe.data.validation:
        assert any("validation split" in choice for choice in paper.ours)
    if recipe.compat is None and recipe.data.views.crop == 0:
        assert any("no augmentation" in choice for choice in paper.ours)


def test_made_up_data_of_other_tests_are_too_small_for_a_long_tail(tmp_path: Path) -> None:
    path = write_data(tmp_path / "data.npz", size=32, channels=3)
    with pytest.raises(BadInput, match=r"data\.long_tail\.imbalance is 100; the largest class has 20"):
        dataset_of(check(recipe_of(paper_of("bkd-cifar10-100"), data={"path": str(path)})))
