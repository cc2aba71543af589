from __future__ import annotations

import copy
import subprocess
import sys

import pytest

from understudy import errors
from understudy.errors import (
    BadInput,
    Damaged,
    Interrupted,
    MissingExtra,
    StageFailed,
    UnderstudyError,
    listed,
    suggestion,
)


@pytest.mark.parametrize(
    ("error", "status"),
    [(BadInput, 2), (StageFailed, 1), (Damaged, 1), (Interrupted, 130), (UnderstudyError, 1)],
)
def test_every_error_has_its_exit_status(error: type[UnderstudyError], status: int) -> None:
    assert issubclass(error, UnderstudyError)
    assert error("why").exit_status == status


def test_bad_input_is_the_value_error_that_python_programmers_expect() -> None:
    with pytest.raises(ValueError, match="why"):
        raise BadInput("why")


def test_a_missing_extra_is_one_line_with_the_command_that_installs_it() -> None:
    error = MissingExtra("reading from the hub", "hub")
    assert str(error) == (
        'reading from the hub needs packages that are not installed: pip install "understudy[hub]"'
    )
    assert isinstance(error, BadInput)
    assert error.exit_status == 2


@pytest.mark.parametrize(
    "error",
    [MissingExtra("reading from the hub", "hub"), BadInput("why"), Damaged("why"), StageFailed("why")],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_the_same_after_it_was_sent_to_another_process(error: UnderstudyError) -> None:
    again = copy.deepcopy(error)  # takes an object apart and puts it together as sending does
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_a_list_in_a_message_reads_well() -> None:
    assert listed(["teacher", "assistant"]) == "teacher, assistant"
    assert listed([0, 1]) == "0, 1"
    assert listed([]) == "none"
    assert listed(name for name in ("one",)) == "one"


def test_a_slip_of_the_keyboard_is_recognised() -> None:
    assert suggestion("soft_wieght", ["temperature", "soft_weight"]) == " Did you mean 'soft_weight'?"


@pytest.mark.parametrize("word", ["", "zzz", "colour"])
def test_a_word_that_resembles_none_gets_no_suggestion(word: str) -> None:
    assert suggestion(word, ["temperature", "soft_weight"]) == ""
    assert suggestion(word, []) == ""


def test_errors_need_nothing_heavy() -> None:
    code = f"import sys, {errors.__name__}; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
