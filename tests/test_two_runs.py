"""Two real runs at once on one store."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.ladder.tiny import arrays
from tests.test_crash import EPOCHS, RECIPE, STAGES, Run, wait_for_marks


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    np.savez(tmp_path / "tiny.npz", **arrays(train=112, test=16))  # type: ignore[arg-type]
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE.replace("DATA", str(tmp_path / "tiny.npz")), "utf-8")
    return path


def test_two_runs_on_one_store_train_each_stage_once_between_them(recipe: Path, tmp_path: Path) -> None:
    runs = [Run(recipe, tmp_path / "runs" / name) for name in ("one", "other")]
    processes = [run.ready(pause=0.004) for run in runs]
    for process in processes:
        process.go()
    said = [process.ended() for process in processes]
    assert [process.status for process in processes] == [0, 0], said
    results = [run.result() for run in runs]
    assert all(result["complete"] for result in results)
    trained = Counter(
        stage["name"] for result in results for stage in result["stages"] if not stage["from_store"]
    )
    assert trained == Counter(stage["name"] for stage in results[0]["stages"])
    assert len(trained) == STAGES
    assert all(len(lines) == EPOCHS for lines in runs[0].logs().values())
    # between them they did the batches and epochs of one run, and not one more
    assert sum(text.count("#") for text in said) == STAGES * EPOCHS * (6 + 1)
    assert results[0]["delivered"] == results[1]["delivered"]
    assert [stage["test"] for stage in results[0]["stages"]] == [
        stage["test"] for stage in results[1]["stages"]
    ]


def test_a_second_run_into_the_same_folder_is_refused_in_one_line(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(recipe, tmp_path / "runs" / "one")
    process = run.ready(pause=0.01)
    try:
        process.go()
        wait_for_marks(process, 3)
        assert run.finish() == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err == (
            f"understudy: another run writes into {run.out} at this moment; choose another --out or wait.\n"
        )
    finally:
        process.kill()
        process.ended()
    assert run.finish() == 0  # the lock ended with its process
    assert run.result()["complete"]
