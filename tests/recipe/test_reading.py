from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.recipe.tiny import short
from understudy.errors import BadInput
from understudy.recipe import changed, long_form, read_file, read_text
from understudy.recipe.reading import DEEPEST, LARGEST_FILE, MOST_VALUES, written


def refusal(text: str, *, source: str = "the recipe") -> str:
    """The one line that says why ``text`` cannot be read."""
    with pytest.raises(BadInput) as caught:
        read_text(text, source=source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("-2e+3", -2000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("+0.25", 0.25),
        ("1_000", 1000),
        ("-7", -7),
        ("0", 0),
        ("010", "010"),
        ("0x10", "0x10"),
        ("1:30", "1:30"),
        ("2026-01-31", "2026-01-31"),
        ("2026-01-31 10:00:00", "2026-01-31 10:00:00"),
        ("e5", "e5"),
        ("=", "="),
        ("true", True),
        ("off", False),
        ("~", None),
        ("null", None),
        ("'1e-3'", "1e-3"),
        ("plain_cnn-4", "plain_cnn-4"),
        ("timm/resnet18", "timm/resnet18"),
    ],
)
def test_numbers_are_numbers_and_the_rest_are_words(text: str, value: object) -> None:
    found = read_text(f"key: {text}")["key"]
    assert found == value
    assert type(found) is type(value)


def test_a_byte_order_mark_and_other_alphabets_are_read(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_bytes("data: {path: größe/画像.npz}\n".encode("utf-8-sig"))
    assert read_file(file) == {"data": {"path": "größe/画像.npz"}}


def test_anchors_and_merged_keys_are_followed() -> None:
    text = "base: &base {epochs: 3, lr: 1e-2}\ntraining: {<<: *base, lr: 0.1}\nagain: *base\n"
    assert read_text(text) == {
        "base": {"epochs": 3, "lr": 0.01},
        "training": {"epochs": 3, "lr": 0.1},
        "again": {"epochs": 3, "lr": 0.01},
    }


def test_a_merged_key_deep_inside_is_not_taken_for_a_key_that_stands_twice() -> None:
    text = "one: &one {x: 1}\na: {deep: &two {<<: *one, x: 2}}\nb: {<<: *two}\n"
    assert read_text(text)["b"] == {"x": 2}


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ("data: {path: x\nseeds: [0]\n", "line 2, column 6", "expected ',' or '}'"),
        ("data:\n\tpath: x\n", "line 2, column 1", "cannot start any token"),
        ("data: a: b\n", "line 1, column 8", "mapping values are not allowed here"),
        ("seeds: [0, 1\n", "line 2, column 1", "expected ',' or ']'"),
        ("data: *nope\n", "line 1, column 7", "undefined alias 'nope'"),
        ("data: 'x\n", "line 2, column 1", "unexpected end of stream"),
        ("a: 1\n---\nb: 2\n", "line 2, column 1", "second document"),
        ("a: 1\nb: \x07\n", "line 2, column 4", r"character '\x07'"),
    ],
)
def test_unreadable_yaml_is_said_with_line_and_column(text: str, place: str, what: str) -> None:
    said = refusal(text, source="my.yaml")
    assert said.startswith(f"my.yaml is not readable YAML, {place}: ")
    assert what in said


def test_a_key_that_stands_twice_is_refused_where_it_stands() -> None:
    assert refusal("a: 1\nb:\n  c: 2\n  c: 3\n") == "the recipe has the key 'c' twice, line 4, column 3."
    assert "'a' twice" in refusal("{a: 1, 'a': 2}")


@pytest.mark.parametrize("key", ["1", "1.5", "true", "null", "~"])
def test_a_key_that_is_no_word_is_refused(key: str) -> None:
    assert refusal(f"{key}: 2").endswith("keys are words.")


@pytest.mark.parametrize("text", ["? [a, b]\n: c", "? {a: 1}\n: c"])
def test_a_list_or_mapping_is_no_key(text: str) -> None:
    assert refusal(text) == "the recipe has a key that is no word, line 1, column 3."


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object:os.system {}",
        "!!python/object/apply:os.system ['true']",
        "!!python/name:os.system",
        "!!binary aGVsbG8=",
        "!!set {x, y}",
        "!!timestamp 2026",
        "!!int ''",
        "!!bool maybe",
        "!!map x",
        "!mine {a: 1}",
        "! x",
    ],
)
def test_tags_are_refused_whatever_they_ask_for(value: str) -> None:
    said = refusal(f"data: {value}")
    assert "line 1, column 7" in said
    assert f"{value.split()[0]} is a tag" in said


def test_nothing_in_a_recipe_is_run(tmp_path: Path) -> None:
    refusal(f"a: !!python/object/apply:pathlib.Path.touch [{tmp_path / 'x'}]")
    assert list(tmp_path.iterdir()) == []


def test_an_alias_bomb_is_refused_before_it_is_followed() -> None:
    laughs = ["a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    laughs += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 20)]
    assert refusal("\n".join(laughs)) == (
        f"the recipe has more than {MOST_VALUES} values once its aliases are followed."
    )


def test_a_bomb_of_merged_keys_is_refused_before_it_is_followed() -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 12)]
    assert "aliases are followed" in refusal("\n".join(lines))


def test_aliases_do_not_get_around_the_depth() -> None:
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, DEEPEST + 5))]
    assert refusal("\n".join(lines)) == (
        f"the recipe is nested more than {DEEPEST} deep once its aliases are followed."
    )


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "a: &a {<<: *a}", "a: &a [[[{b: [*a]}]]]"])
def test_an_alias_that_contains_itself_is_refused(text: str) -> None:
    assert refusal(text) == "the recipe has an alias that contains itself, line 1, column 4."


@pytest.mark.parametrize("text", ["[" * 50_000, "{" * 50_000, "- " * 50_000, "? " * 50_000, "{a: " * 500])
def test_deep_nesting_is_refused_at_once(text: str) -> None:
    assert refusal(text).endswith(f"nested more than {DEEPEST} deep.")


@pytest.mark.parametrize("number", [".nan", ".NaN", ".inf", "-.INF", "1e400", "-1e999"])
def test_nan_and_infinity_are_refused_with_their_path(number: str) -> None:
    said = refusal(f"training: {{lr: [1, {number}]}}")
    assert re.fullmatch(r"training\.lr\.1 is (nan|-?inf); a finite number is needed\.", said)


def test_huge_numbers_are_refused() -> None:
    assert refusal("a: {b: 99999999999999999999}") == "a.b is a number of 20 digits; that is too large."
    assert "number of 5000 digits, line 1, column 4" in refusal("a: " + "9" * 5000)


@pytest.mark.parametrize("text", ['a: "\\ud800"', '"\\ud800": 1'])
def test_half_a_character_is_refused(text: str) -> None:
    said = refusal(text)
    assert "half a character" in said
    said.encode("utf-8")


@pytest.mark.parametrize("text", ["", "   \n\n", "# only a comment\n", "---\n", "null"])
def test_an_empty_recipe_is_said_to_be_empty(text: str) -> None:
    assert refusal(text) == "the recipe is empty. The least it needs is data: and models:."


@pytest.mark.parametrize(
    ("text", "kind"), [("- a\n- b", "list"), ("hello", "word"), ("3", "number"), ("yes", "truth value")]
)
def test_anything_but_a_mapping_at_the_top_is_refused(text: str, kind: str) -> None:
    assert refusal(text).startswith(f"the recipe is a {kind}; a recipe is keys with values")


def test_a_text_that_is_too_long_is_refused() -> None:
    assert str(LARGEST_FILE) in refusal("a: " + "x" * LARGEST_FILE)


def test_files_that_cannot_be_a_recipe_are_named(tmp_path: Path) -> None:
    binary, large = tmp_path / "b.yaml", tmp_path / "l.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x01data")
    large.write_bytes(b"#" * (LARGEST_FILE + 1))
    for path, what in (
        (binary, f"{binary} is not a text file in UTF-8."),
        (large, f"{large} has {LARGEST_FILE + 1} bytes"),
        (tmp_path, f"{tmp_path} is a folder"),
        (tmp_path / "nope.yaml", f"there is no recipe {tmp_path / 'nope.yaml'}."),
        (binary / "below", "cannot be read"),
        (tmp_path / ("x" * 300), "cannot be read"),
    ):
        with pytest.raises(BadInput, match=re.escape(what)):
            read_file(path)


# --- writing --------------------------------------------------------------------------------------------------------

plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=12)
    | st.sampled_from(
        ["1e-3", "010", "2026-01-31", "1:30", "=", "<<", "yes", "null", "~", ".nan", "0x1", "1_0", "-"]
    ),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(deadline=None, database=None)
@given(
    st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), plain_values, min_size=1, max_size=4)
)
def test_what_is_written_is_read_again(value: dict[str, object]) -> None:
    assert read_text(written(value)) == value


@pytest.mark.parametrize("word", ["1e-3", "010", "2026-01-31", "yes", "null", "1_000"])
def test_words_that_look_like_something_else_are_quoted_for_other_readers_too(word: str) -> None:
    assert yaml.safe_load(written({"path": word})) == {"path": word}


# --- settings from the command line ---------------------------------------------------------------------------------


def test_a_setting_changes_one_value_and_nothing_of_what_was_given() -> None:
    raw = short()
    before = written(raw)
    whole = changed(raw, ["training.epochs=30", "seeds=[0, 1]", "data.views.flip=true", "training.lr=1e-3"])
    assert whole["training"] == {"precision": "fp32", "device": "cpu", "epochs": 30, "lr": 1e-3}
    assert whole["seeds"] == [0, 1]
    assert whole["data"]["views"] == {"flip": True}
    assert written(raw) == before


def test_settings_are_put_in_from_left_to_right() -> None:
    assert changed({}, ["a.b=1", "a={b: 2, c: 3}", "a.b=4"])["a"] == {"b": 4, "c": 3}


def test_a_setting_reaches_into_names_that_stand_for_mappings() -> None:
    whole = changed(short(), ["models.student.width=0.5", "models.assistants.0.training.epochs=9"])
    assert whole["models"]["student"] == {"name": "plain_cnn-2", "width": 0.5}
    assert whole["models"]["assistants"] == [{"name": "plain_cnn-3", "training": {"epochs": 9}}]


def test_a_setting_reaches_into_stages_and_a_shape_by_name() -> None:
    stages = [{"name": "a", "model": "plain_cnn-4"}, {"name": "b", "model": "plain_cnn-2", "teachers": ["a"]}]
    whole = changed(
        {"ladder": {"stages": stages}}, ["ladder.stages.1.model.width=0.5", "ladder.stages.1.teachers.0=c"]
    )
    assert whole["ladder"]["stages"][1] == {
        "name": "b",
        "model": {"name": "plain_cnn-2", "width": 0.5},
        "teachers": ["c"],
    }
    assert changed({"ladder": "dense"}, ["ladder.stochastic.keep=0.5"])["ladder"] == {
        "shape": "dense",
        "stochastic": {"keep": 0.5},
    }


def test_a_value_may_hold_an_equals_sign_and_may_be_empty() -> None:
    assert changed({}, ["data.path=a=b.npz"])["data"] == {"path": "a=b.npz"}
    assert changed({}, ["data.path="])["data"] == {"path": None}


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        ("training.epochs", "the form is path=value"),
        ("=3", "the form is path=value"),
        ("training..lr=3", "the form is path=value"),
        ("training.=3", "the form is path=value"),
        (
            "models.assistants.1=plain_cnn-2",
            "models.assistants.1 is no place in that list; it has 1, counted from 0",
        ),
        ("models.assistants.first=plain_cnn-2", "models.assistants.first is no place in that list"),
        ("models.assistants.-1=plain_cnn-2", "models.assistants.-1 is no place in that list"),
        ("data.path.x=3", "data.path is a word and has no keys inside"),
        ("seeds.0=4", "the recipe has no seeds; give the whole list, seeds=[...]"),
        ("training.lr={", "is not readable YAML"),
        ("training.lr=1\nseeds: [1]", "is not readable YAML"),
        ("training.lr=.nan", "training.lr is nan"),
        ("data=!!python/name:os.system", "is a tag"),
    ],
)
def test_a_setting_that_cannot_be_put_in_is_refused(setting: str, what: str) -> None:
    with pytest.raises(BadInput, match=re.escape(what)) as caught:
        changed(short(), [setting])
    assert "\n" not in str(caught.value)


# --- short forms ----------------------------------------------------------------------------------------------------


def test_names_become_mappings_and_controls_are_filled_in() -> None:
    whole = long_form(short(ladder="chain"))
    assert whole["ladder"] == {"shape": "chain"}
    assert whole["models"] == {
        "teacher": {"name": "plain_cnn-4"},
        "assistants": [{"name": "plain_cnn-3"}],
        "student": {"name": "plain_cnn-2"},
    }
    assert whole["controls"] == ["scratch", "direct"]


def test_the_usual_controls_are_those_of_the_shape_that_is_set() -> None:
    raw = {"ladder": "scratch", "models": {"teacher": "plain_cnn-4", "student": "plain_cnn-2"}}
    assert long_form(changed(raw, ["ladder=direct"]))["controls"] == ["scratch", "direct"]
    assert long_form(changed({**raw, "ladder": "direct"}, ["ladder=scratch"]))["controls"] == []
    assert changed(raw, ["controls=[direct]"])["controls"] == ["direct"]
    assert changed({**raw, "ladder": "chain"}, ["controls.1=dense"])["controls"] == ["scratch", "dense"]


def test_a_student_alone_has_no_controls_unless_asked_for() -> None:
    assert long_form({"ladder": "scratch"})["controls"] == []
    assert long_form({"ladder": "scratch", "controls": ["direct"]})["controls"] == ["direct"]
    assert long_form(short(controls=[]))["controls"] == []
