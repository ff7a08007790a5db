"""Conditions on fields: what fits, what does not, what is no condition; and the verb that reads with them."""

from __future__ import annotations

import re
from typing import Any

import pytest

import sqlstate
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
        '[\n{"collection":"people","key":"ada","value":{"age":36}}\n]\n', "1 entry read, 1 fits\n",
    )  # fmt: skip
    assert run("query", db, "people", "--where", "$.none").stderr == "no entry fits\n4 entries read, 0 fit\n"
    with sqlstate.open(db) as store:
        del store["people"]["ada"]
    assert '"ada"' in good("query", db, "people", "--where", "$.age > 30", "--at", "1")
    said = bad(2, "query", db, "people", "--where", "$.age > x")
    assert "'x' is not JSON" in said
    assert "query --help" in said
    assert "Missing option '--where'" in bad(2, "query", db, "people")
