"""What a plan says of each stage."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.ladder.tiny import jobs_of, made_up, stage, training
from understudy.errors import Interrupted
from understudy.ladder.estimate import estimates
from understudy.ladder.make import make
from understudy.store import Store


def test_a_plan_knows_what_is_kept_what_resumes_and_what_is_to_do(tmp_path: Path) -> None:
    dataset, store = made_up(), Store(tmp_path)
    all_jobs = jobs_of([stage("kept"), stage("begun", "kept"), stage("rest", "begun", "kept")], dataset)
    kept, begun, rest = all_jobs
    make(kept, store=store, dataset=dataset)
    with pytest.raises(Interrupted):
        make(begun, store=store, dataset=dataset, stop=lambda: True)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    found = estimates(all_jobs, store=store, dataset=dataset)
    assert torch.equal(torch.get_rng_state(), before)
    assert [found[job.key].state for job in all_jobs] == ["kept", "resumes", "to do"]
    assert (found[kept.key].seconds, found[kept.key].bytes) == (0, 0)
    assert found[rest.key].seconds > found[begun.key].seconds > 0  # one teacher more
    assert found[rest.key].bytes > 4 * rest.cost.parameters


def test_twice_the_epochs_take_twice_the_time_of_training(tmp_path: Path) -> None:
    dataset = made_up(validation=0, test=1)
    stages = [stage("one", training=training(epochs=100)), stage("two", training=training(epochs=200))]
    one, two = jobs_of(stages, dataset)
    found = estimates([one, two], store=Store(tmp_path), dataset=dataset)
    assert found[two.key].seconds / found[one.key].seconds == pytest.approx(2, rel=0.01)
