"""Conditions on fields: what fits, what does not, what is no condition; and the verb that reads with them."""

from __future__ import annotations

import json
import re
import sqlite3
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sqlstate
from sqlstate.cli import options
from sqlstate.cli.where import Condition
from tests.cli.test_program import bad, good, run

VALUE = {
    "age": 31,
    "half": 0.5,
    "name": "Ada",
    "on": True,
    "none": None,
    "tags": ["a", {"deep": [1, 2]}],
    "a b": {"$x": 1},
    "": 0,
    "big": 2**64 - 1,
}


@pytest.mark.parametrize(
    ("condition", "fits"),
    [
        ("$.age > 30", True),
        ("$.age>30", True),
        ("  $.age   >   30  ", True),
        ("$.age > 31", False),
        ("$.age >= 31", True),
        ("$.age < 31.5", True),
        ("$.age <= 30", False),
        ("$.age = 31", True),
        ("$.age == 31.0", True),
        ("$.age != 31", False),
        ("$.age != 30", True),
        ('$.age > "30"', False),
        ('$.age != "31"', True),
        ('$.name = "Ada"', True),
        ('$.name > "A"', True),
        ('$.name < "B"', True),
        ("$.name > 3", False),
        ("$.on = true", True),
        ("$.on = 1", False),
        ("$.on != 1", True),
        ("$.on > 0", False),
        ("$.none", True),
        ("$.none = null", True),
        ("$.none = false", False),
        ("$.missing", False),
        ("$.missing = null", False),
        ("$.missing != 1", False),
        ('$.tags[0] = "a"', True),
        ("$.tags[1].deep[1] = 2", True),
        ("$.tags[2]", False),
        ("$.tags[999999999]", False),
        ("$.tags.deep", False),
        ("$.name[0]", False),
        ('$.tags[1] = {"deep":[1,2.0]}', True),
        ('$.tags[1] = {"deep":[1,true]}', False),
        ('$."a b"."$x" = 1', True),
        ('$."a b".$x = 1', True),
        ('$."" = 0', True),
        ("$.big = 18446744073709551615", True),
        ("$.big > 18446744073709551614", True),
        ("$.half = 5e-1", True),
        ("$", True),
        ("$ = 5", False),
        ("$ != 5", True),
    ],
)
def test_a_condition_fits_or_does_not(condition: str, fits: bool) -> None:
    assert Condition(condition).fits(VALUE) is fits


@pytest.mark.parametrize("value", [5, "x", None, [], b"bytes", True])
def test_a_value_without_fields_fits_no_condition_on_one(value: Any) -> None:
    assert not Condition("$.age != 3").fits(value)
    assert Condition("$").fits(value) is not isinstance(value, bytes)


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ("", "does not begin with a path"),
        ("age > 3", "does not begin with a path"),
        ("$.age >", "neither a part of a path"),
        ("$.age > 3 and $.b", "not JSON"),
        ("$.age ~ 3", "neither a part of a path"),
        ("$.name = Ada", "text stands in double quotes"),
        ("$.name = NaN", "not JSON"),
        ('$.name = {"a":1,"a":2}', "twice"),
        ("$.on > true", "has no order"),
        ("$.tags < [1]", "has no order"),
        ("$.tags[-1]", "neither a part of a path"),
        ("$.tags[x]", "neither a part of a path"),
        ("$..a", "neither a part of a path"),
        ('$."a', "neither a part of a path"),
        ('$."\\x" = 1', "not text in JSON quotes"),
        ("$.age = " + "[" * 5000, "not JSON"),
    ],
)
def test_what_is_no_condition_is_refused_with_what_is_wrong(condition: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        Condition(condition)


def people(db: str) -> None:
    with sqlstate.open(db) as store:
        store["people"].update({"ada": {"age": 36}, "bob": {"age": 20}, "eve": {"age": 41, "on": True}, "raw": b"{}"})


def test_query_prints_what_fits_and_says_that_it_read_everything(tmp_path: Any) -> None:
    db = str(tmp_path / "app.db")
    people(db)
    result = run("query", db, "people", "--where", "$.age > 30")
    assert result.exit_code == 0
    assert result.stdout == (
        '{"collection":"people","key":"ada","value":{"age":36}}\n'
        '{"collection":"people","key":"eve","value":{"age":41,"on":true}}\n'
    )
    assert result.stderr == "4 entries read, 2 fit\n"
    both = run("query", db, "people", "--where", "$.age > 30", "--where", "$.on", "--keys")
    assert both.stdout == '{"collection":"people","key":"eve"}\n'
    assert both.stderr == "4 entries read, 1 fits\n"
    first = run("query", db, "people", "--where", "$.age", "--limit", "1", "--json")
    assert (first.stdout, first.stderr) == (
        '[\n{"collection":"people","key":"ada","value":{"age":36}}\n]\n', "1 entry read; the rest was not\n",
    )  # fmt: skip
    assert run("query", db, "people", "--where", "$.none").stderr == "no entry fits\n4 entries read, 0 fit\n"
    with sqlstate.open(db) as store:
        del store["people"]["ada"]
    assert '"ada"' in good("query", db, "people", "--where", "$.age > 30", "--at", "1")
    said = bad(2, "query", db, "people", "--where", "$.age > x")
    assert "'x' is not JSON" in said
    assert "query --help" in said
    assert "Missing option '--where'" in bad(2, "query", db, "people")


def test_a_condition_never_becomes_sql(tmp_path: Any) -> None:
    db = str(tmp_path / "app.db")
    name = "x'; DROP TABLE state; --"
    with sqlstate.open(db) as store:
        store[name].update({name: {name: name}, "other": {"a": 1}})
        before = store.head()
    quoted = json.dumps(name)
    assert good("query", db, name, "--where", f"$.{quoted} = {quoted}", "--keys") == (
        f'{{"collection":{quoted},"key":{quoted}}}\n'
    )
    for text in ("$.a = 1 OR 1=1", "$.a = 1; DROP TABLE state", "$.a') OR ('1'='1", "1=1", "$.a UNION SELECT 1"):
        bad(2, "query", db, name, "--where", text)
    with sqlstate.open(db) as store:
        assert store.head() == before
        assert store.check().ok


def test_query_answers_in_each_form_and_with_a_limit(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    db = str(tmp_path / "app.db")
    people(db)
    assert json.loads(good("query", db, "people", "--where", "$.age > 100", "--json")) == []
    assert good("query", db, "nobody", "--where", "$") == ""
    assert run("query", db, "nobody", "--where", "$").stderr == "no entry fits\n0 entries read, 0 fit\n"
    assert good("query", db, "people", "--where", "$.age", "--limit", "0") == ""
    assert run("query", db, "people", "--where", "$", "--quiet").stderr == ""
    monkeypatch.setattr(options, "on_terminal", lambda: True)
    monkeypatch.setattr(options, "TERMINAL_ROWS_MAX", 2)
    cut = run("query", db, "people", "--where", "$.age")
    assert len(cut.stdout.splitlines()) == 3
    assert cut.stderr.splitlines()[0].startswith("the first 2; there are more")
    assert cut.stderr.splitlines()[1] == "3 entries read; the rest was not"


def test_a_damaged_entry_ends_a_query_with_what_is_wrong(tmp_path: Any) -> None:
    db = str(tmp_path / "app.db")
    people(db)
    with sqlite3.connect(db) as connection:
        connection.execute("UPDATE state SET value = '{\"age\":' WHERE key = 'eve'")
    connection.close()
    result = run("query", db, "people", "--where", "$.age > 30")
    assert (result.exit_code, '"ada"' in result.stdout, "eve" in result.stderr) == (3, True, True)


DOCUMENT = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from([0.5, 2.0, "", "a", "b", "\U0001f600", '"']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b c", '"', "", "é"]), inner),
    max_leaves=8,
)


@given(DOCUMENT, st.lists(st.sampled_from(["a", "b c", '"', "", "é", 0, 1, 2]), max_size=4), DOCUMENT)
def test_a_path_and_its_comparisons_mean_what_python_means(value: Any, path: list[str | int], other: Any) -> None:
    text = "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{json.dumps(step)}" for step in path)
    field: Any = value
    there = True
    for step in path:
        try:
            there = there and isinstance(field, dict if isinstance(step, str) else list)
            field = field[step] if there else None
        except (KeyError, IndexError):
            there = False
    written = json.dumps(other)
    assert Condition(text).fits(value) is there
    same = there and json.dumps(plain(field), sort_keys=True) == json.dumps(plain(other), sort_keys=True)
    assert Condition(f"{text} = {written}").fits(value) is same
    assert Condition(f"{text} != {written}").fits(value) is (there and not same)
    both = {type(field), type(other)}
    if both == {str} or both <= {int, float}:
        assert Condition(f"{text} < {written}").fits(value) is (there and field < other)
        assert Condition(f"{text} >= {written}").fits(value) is (there and field >= other)


def plain(value: Any) -> Any:
    """Write whole floats as ints, which they equal."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value
