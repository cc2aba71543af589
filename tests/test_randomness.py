from __future__ import annotations

import itertools
import random
import subprocess
import sys

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from understudy.randomness import numpy_stream, stream_seed, torch_stream

numbers = st.lists(st.integers(-(2**40), 2**40), max_size=3)


@given(seed=st.integers(), purpose=st.text(max_size=5), numbers=numbers)
def test_a_seed_is_a_whole_number_that_every_generator_takes(
    seed: int, purpose: str, numbers: list[int]
) -> None:
    made = stream_seed(seed, purpose, *numbers)
    assert 0 <= made < 2**63
    assert made == stream_seed(seed, purpose, *numbers)
    torch_stream(seed, purpose, *numbers)
    numpy_stream(seed, purpose, *numbers)


def test_every_argument_matters() -> None:
    given = itertools.product(
        range(5), ("order", "stage", "order 1", ""), ((), (0,), (1,), (0, 0), (0, 1), (1, 0))
    )
    seeds = [stream_seed(seed, purpose, *numbers) for seed, purpose, numbers in given]
    assert len(set(seeds)) == len(seeds)


def test_numbers_of_numpy_and_torch_are_numbers() -> None:
    assert stream_seed(np.int64(3), "order", np.int32(4)) == stream_seed(3, "order", 4)  # type: ignore[arg-type]


def test_a_seed_is_the_same_in_every_process() -> None:
    code = "from understudy.randomness import stream_seed; print(stream_seed(7, 'order', 1, 2))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(done.stdout) == stream_seed(7, "order", 1, 2)


def test_a_stream_gives_the_same_numbers_again_and_another_stream_others() -> None:
    assert numpy_stream(0, "order", 3).random(8).tolist() == numpy_stream(0, "order", 3).random(8).tolist()
    assert numpy_stream(0, "order", 3).random(8).tolist() != numpy_stream(0, "order", 4).random(8).tolist()
    assert numpy_stream(0, "order").random(8).tolist() != numpy_stream(0, "mixing").random(8).tolist()
    one = torch.rand(8, generator=torch_stream(0, "order", 3))
    assert torch.equal(one, torch.rand(8, generator=torch_stream(0, "order", 3)))
    assert not torch.equal(one, torch.rand(8, generator=torch_stream(1, "order", 3)))


def test_streams_neither_read_nor_move_the_global_generators() -> None:
    random.seed(1)
    torch.manual_seed(1)
    np.random.seed(1)
    before = (
        numpy_stream(0, "order").random(4).tolist(),
        torch.rand(4, generator=torch_stream(0, "order")).tolist(),
    )
    expected = random.random(), torch.rand(1).item(), np.random.random()
    random.seed(1)
    torch.manual_seed(1)
    np.random.seed(1)
    numpy_stream(0, "order").random(4)
    torch.rand(4, generator=torch_stream(0, "order"))
    assert (random.random(), torch.rand(1).item(), np.random.random()) == expected
    random.seed(2)
    torch.manual_seed(2)
    after = (
        numpy_stream(0, "order").random(4).tolist(),
        torch.rand(4, generator=torch_stream(0, "order")).tolist(),
    )
    assert before == after


def test_streams_of_neighbouring_numbers_are_not_alike() -> None:
    draws = np.stack([numpy_stream(0, "order", epoch).random(2000) for epoch in range(8)])
    correlations = np.corrcoef(draws)[~np.eye(8, dtype=bool)]
    assert np.abs(correlations).max() < 4.5 / np.sqrt(2000)
    assert abs(draws.mean() - 0.5) < 4.5 * np.sqrt(1 / 12 / draws.size)
