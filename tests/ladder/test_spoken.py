"""Which kept answers a job reads: everything that decides a bit of them is in the key, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.ladder.tiny import jobs_of, made_up, network, stage, training
from understudy.data import Dataset
from understudy.data.views import ViewPolicy, Views
from understudy.errors import BadInput
from understudy.ladder import Stage
from understudy.ladder.spoken import signals_of
from understudy.store import Store
from understudy.teaching import Labels, SoftTargets, Stochastic
from understudy.teaching.decoupled import Decoupled
from understudy.training import precision
from understudy.training.signals import Signals

VIEWS = Views(policy=ViewPolicy(crop=1), seed=2)
USUAL = (stage("teacher"), stage("student", "teacher"))


@pytest.fixture
def dataset() -> Dataset:
    return made_up()


def keys(
    place: Path,
    dataset: Dataset,
    stages: Sequence[Stage] = USUAL,
    *,
    seeds: Sequence[int] = (0,),
    **more: Any,
) -> set[str]:
    """Keys of the signals that the ladder needs."""
    jobs = jobs_of(stages, dataset, seeds=seeds, **{"views": VIEWS, **more})
    return set(signals_of(jobs, store=Store(place), dataset=dataset))


def test_each_teacher_has_its_own(tmp_path: Path, dataset: Dataset) -> None:
    stages = [stage("t"), stage("a", "t", network=network(width=0.5)), stage("s", "t", "a")]
    assert len(keys(tmp_path, dataset, stages)) == 2


def test_who_hears_nobody_needs_none(tmp_path: Path, dataset: Dataset) -> None:
    assert keys(tmp_path, dataset, [stage("alone")]) == set()
    assert keys(tmp_path, dataset, [stage("t"), stage("s", "t", method=Labels())]) == set()


@pytest.mark.parametrize(
    "student",
    [
        {"method": SoftTargets(temperature=9.0)},
        {"method": SoftTargets(soft_weight=0.1)},
        {"method": SoftTargets(stochastic=Stochastic(keep=0.5))},
        {"method": Decoupled()},
        {"network": network(width=1.0)},
        {"training": training(epochs=7)},
        {"training": training(batch_size=8)},
        {"training": training(lr=0.1)},
    ],
    ids=lambda said: str(next(iter(said.values())))[:40],
)
def test_whatever_learns_from_the_same_teacher_shares_them(
    tmp_path: Path, dataset: Dataset, student: dict[str, Any]
) -> None:
    assert keys(tmp_path, dataset, [stage("teacher"), stage("student", "teacher", **student)]) == keys(
        tmp_path, dataset
    )


def test_seeds_share_them(tmp_path: Path, dataset: Dataset) -> None:
    assert keys(tmp_path, dataset, seeds=[0, 1, 2]) == keys(tmp_path, dataset)
    assert keys(tmp_path, dataset, seeds=[5], ladder_seed=0) == keys(tmp_path, dataset)


def test_views_of_each_seed_are_shared_by_nobody(tmp_path: Path, dataset: Dataset) -> None:
    own = keys(tmp_path, dataset, seeds=[0, 1, 2], views=replace(VIEWS, per_seed=True))
    assert len(own) == 3


def test_bounded_views_are_the_first_of_all_views(tmp_path: Path, dataset: Dataset) -> None:
    assert keys(tmp_path, dataset, views=replace(VIEWS, distinct=1)) == keys(tmp_path, dataset)


@pytest.mark.parametrize(
    "changed",
    [
        {"views": Views(policy=ViewPolicy(crop=2), seed=2)},
        {"views": Views(policy=ViewPolicy(crop=1, flip=True), seed=2)},
        {"views": Views(policy=ViewPolicy(crop=1), seed=3)},
        {"views": Views()},
        {"signals": Signals(dtype="float32")},
        {"signals": Signals(top_k=2)},
        {"ladder_seed": 1},
    ],
    ids=str,
)
def test_other_views_another_form_and_another_teacher_have_others(
    tmp_path: Path, dataset: Dataset, changed: dict[str, Any]
) -> None:
    assert not keys(tmp_path, dataset, **changed) & keys(tmp_path, dataset)


@pytest.mark.parametrize(
    "teacher",
    [
        {"network": network(width=0.5)},
        {"network": network(mean=(0.4,))},
        {"network": network(size=(12, 12))},
        {"training": training(epochs=3)},
    ],
    ids=lambda said: str(next(iter(said.values())))[:60],
)
def test_a_teacher_that_is_another_in_anything_has_others(
    tmp_path: Path, dataset: Dataset, teacher: dict[str, Any]
) -> None:
    assert not keys(tmp_path, dataset, [stage("teacher", **teacher), stage("student", "teacher")]) & keys(
        tmp_path, dataset
    )


@pytest.mark.parametrize("student", [{"precision": "bf16"}, {"threads": 2}])
def test_other_numerics_have_others(tmp_path: Path, dataset: Dataset, student: dict[str, Any]) -> None:
    stages = [stage("teacher"), stage("student", "teacher", training=training(**student))]
    assert not keys(tmp_path, dataset, stages) & keys(tmp_path, dataset)


def test_other_data_have_others(tmp_path: Path, dataset: Dataset) -> None:
    assert not keys(tmp_path, made_up(seed=1)) & keys(tmp_path, dataset)


def test_another_release_of_torch_and_another_processor_have_others(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keys(tmp_path, dataset)
    with monkeypatch.context() as here:
        here.setattr(torch, "__version__", "2.99.0")
        assert not keys(tmp_path, dataset) & before
    with monkeypatch.context() as here:
        here.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
        assert not keys(tmp_path, dataset) & before
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")
    assert not keys(tmp_path, dataset) & before


def test_in_bfloat16_the_instructions_for_it_count_and_in_float32_they_do_not(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for flags in (
        "avx512f avx512_bf16 sse",
        "avx512f avx512_bf16 amx_bf16 amx_tile",
        "avx512f avx512_bf16 sse2",
    ):
        monkeypatch.setattr(precision, "_cpu", lambda word, flags=flags: flags)
        for form in ("bf16", "fp32"):
            stages = [stage("teacher"), stage("student", "teacher", training=training(precision=form))]
            found[form, flags] = keys(tmp_path, dataset, stages)
    plain, matrix, other = (found["bf16", flags] for _, flags in list(found)[::2])
    assert plain == other
    assert not plain & matrix
    assert len({tuple(sorted(found[pair])) for pair in found if pair[0] == "fp32"}) == 1


def test_another_release_of_what_draws_shares_of_a_mixture_has_others(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = {"views": Views(policy=ViewPolicy(mixup=0.4))}
    before, plain = keys(tmp_path, dataset, **mixed), keys(tmp_path, dataset)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "99.0")
    assert not keys(tmp_path, dataset, **mixed) & before
    assert keys(tmp_path, dataset) == plain


def test_those_of_another_version_are_refused_before_anything_runs(tmp_path: Path, dataset: Dataset) -> None:
    (key,) = keys(tmp_path, dataset)
    folder = tmp_path / "signals" / key
    folder.mkdir(parents=True)
    (folder / "signals.json").write_text('{"version": 99}')
    with pytest.raises(
        BadInput, match=r"have format 99, this understudy reads format 1\. Remove that folder"
    ):
        keys(tmp_path, dataset)
