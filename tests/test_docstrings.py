"""Goal: whoever reads `help(sqlstate.Store.run)`, or the API pages made from the same text, finds what it does, its
arguments, its errors, its cost, and an example that runs. Method: each public name is looked up in the package, its
docstring is taken apart, and its example is run in a folder of its own, with `store` newly opened, as `python -m
asyncio` would run it.
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import inspect
import io
import re
import traceback
import types
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from sqlstate import aio
from tests.test_docs import ADAPTERS, PUBLIC_OF

if TYPE_CHECKING:
    from collections.abc import Iterator

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
# They raise nothing of their own: they hand out what is in memory.
RAISES_NOTHING = {"as_dict", "to_bytes", "to_json", "withdraw", "rollback"}


def is_ours(member: object) -> bool:
    return str(getattr(member, "__module__", "")).startswith("sqlstate")


def public_names() -> Iterator[tuple[str, Any]]:
    """Yield every public function, class, method and property, by its name."""
    for module, names in PUBLIC_OF.items():
        for name in names:
            found = getattr(import_module(module), name)
            path = f"{module}.{name}"
            is_error = inspect.isclass(found) and issubclass(found, Warning | sqlstate.StoreError)
            if name in ("ABSENT", "REDACTED") or is_error:
                continue  # the page of errors has those, and test_docs.py looks at it
            yield path, found
            if not inspect.isclass(found):
                continue
            for member in dir(found):
                static = inspect.getattr_static(found, member)
                value = static.__func__ if isinstance(static, classmethod) else static
                of = value.fget if isinstance(value, property) else value
                if not member.startswith("_") and is_ours(of) and (callable(value) or isinstance(value, property)):
                    yield f"{path}.{member}", value


NAMES = dict(public_names())


def sections(text: str) -> dict[str, str]:
    """Return the parts of a docstring by their title; what comes first has none."""
    parts = re.split(r"^(Args|Returns|Raises|Attributes|Examples):$", text, flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def arguments(function: Any) -> set[str]:
    """Return the names that callers can give."""
    return set(inspect.signature(function).parameters) - {"self", "cls"}


def problems(path: str, member: Any) -> list[str]:
    """Return what the docstring of *member* lacks."""
    text = inspect.getdoc(member) or ""
    summary = text.partition("\n")[0]
    if not summary.endswith((".", ":")):
        return [f"{path}: the first line is not a sentence"]
    if isinstance(member, property):
        return []
    if text.endswith("See there."):
        of, _, name = path.rpartition(".a")
        return [] if f"{of}.{name}" in NAMES else [f"{path}: there is no {name}()"]
    found, parts = [], sections(text)
    if "Examples" not in parts or ">>> " not in parts.get("Examples", ""):
        found.append(f"{path}: no example")
    if inspect.isclass(member):
        return found
    if not re.search(r"^Cost: ", parts[""], re.MULTILINE):
        found.append(f"{path}: no cost")
    if "Raises" not in parts and path.rpartition(".")[2] not in RAISES_NOTHING:
        found.append(f"{path}: nothing of what it raises")
    said = set(re.findall(r"^ {4}(\w+): ", parts.get("Args", ""), re.MULTILINE))
    found += [f"{path}: no word of {name}" for name in sorted(arguments(member) - said)]
    return found + [f"{path}: there is no argument {name}" for name in sorted(said - arguments(member))]


def failures(text: str, name: str, known: dict[str, Any]) -> list[str]:
    """Run the examples of a docstring; return those that print something else than they show."""
    found = []
    checker = doctest.OutputChecker()
    with asyncio.Runner() as runner:
        if ".aio" in name:
            known["store"] = runner.run(opened())
        for example in doctest.DocTestParser().get_examples(text):
            printed = io.StringIO()
            want = example.want
            try:
                code = compile(example.source, name, "single", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                with redirect_stdout(printed):
                    runner.run(inside(types.FunctionType(code, known)))
                got = printed.getvalue()
            except Exception as error:  # noqa: BLE001, what an example raises is compared with what it shows
                got = f"{type(error).__name__}: {error}\n"
                if example.exc_msg is None:
                    got = "".join(traceback.format_exception(error))
                want = example.exc_msg or want
            if not checker.check_output(want, got, FLAGS):
                found.append(f"{name}: {example.source}shows\n{want}and this was printed\n{got}")
        if ".aio" in name:
            runner.run(known["store"].close())
    if isinstance(known["store"], sqlstate.Store):
        known["store"].close()
    return found


async def inside(example: types.FunctionType) -> None:
    """Run an example in the event loop, and await it if there is something to await."""
    result = example()
    if inspect.iscoroutine(result):
        await result


async def opened() -> aio.AsyncStore:
    return await aio.open("app.db")


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_says_what_its_reader_needs(name: str) -> None:
    assert problems(name, NAMES[name]) == []


# Those of clusters need nodes: tests/cluster/test_docstrings.py runs them.
SHOWN = [name for name in NAMES if ">>>" in (inspect.getdoc(NAMES[name]) or "") and ".cluster." not in name]


@pytest.mark.parametrize("name", SHOWN)
def test_the_example_of_a_public_name_prints_what_it_shows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {"sqlstate": sqlstate, "aio": aio, "asyncio": asyncio, "__name__": "__main__"}
    if ".aio" not in name:
        known["store"] = sqlstate.open("app.db")
    adapter = next((module for module in ADAPTERS if name.startswith(f"{module}.")), None)
    if adapter is not None:
        module = import_module(adapter)
        known |= {public: getattr(module, public) for public in module.__all__}
    found = failures(inspect.getdoc(NAMES[name]) or "", name, known)
    assert not found, "\n".join(found)


def classes(module: str) -> Iterator[ast.ClassDef]:
    """Yield the classes in the source of a module; those of a package say that they are of the package itself."""
    home = Path(import_module(module).__file__ or "")
    for file in home.parent.glob("*.py") if home.name == "__init__.py" else (home,):
        yield from (node for node in ast.parse(file.read_text("utf-8")).body if isinstance(node, ast.ClassDef))


def undescribed(kind: type) -> list[str]:
    """Return the fields of a class that no string below them describes."""
    source = next(found for found in classes(kind.__module__) if found.name == kind.__name__)
    fields = [
        (ast.unparse(node.target), isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant))
        for node, below in zip(source.body, [*source.body[1:], None], strict=True)
        if isinstance(node, ast.AnnAssign)
    ]
    return [f"{kind.__name__}.{name}" for name, described in fields if not described and not name.startswith("_")]


@pytest.mark.parametrize("name", [name for name in NAMES if inspect.isclass(NAMES[name])])
def test_the_fields_of_a_public_class_are_described(name: str) -> None:
    assert undescribed(NAMES[name]) == []


# ---- The checks find what is wrong ----


def good(key: str) -> str:
    """Return what *key* leads to.

    Cost: none.

    Args:
        key: any.

    Raises:
        KeyError: it leads nowhere.

    Examples:
        >>> 1 + 1
        2
    """
    return key


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("Return what *key* leads to.", "Return what\n*key* leads to.", "not a sentence"),
        ("Cost: none.", "It is free.", "no cost"),
        ("key: any", "name: any", "no word of key"),
        ("key: any.", "key: any.\n    name: any.", "there is no argument name"),
        ("Raises:", "Notes:", "nothing of what it raises"),
        (">>> 1 + 1", "1 + 1", "no example"),
    ],
)
def test_a_docstring_that_lacks_something_is_found_out(right: str, wrong: str, says: str) -> None:
    assert problems("good", good) == []
    bad = types.FunctionType(good.__code__, {}, "good")
    bad.__annotations__ = good.__annotations__
    assert right in (good.__doc__ or "")
    bad.__doc__ = inspect.cleandoc(good.__doc__ or "").replace(right, wrong)
    assert any(says in each for each in problems("good", bad))


@pytest.mark.parametrize("shown", ["3", "", "Traceback (most recent call last):\n    ValueError: 2"])
def test_an_example_that_prints_something_else_is_found_out(shown: str) -> None:
    assert failures(">>> 1 + 1\n2\n", "good", {"store": None}) == []
    assert len(failures(f">>> 1 + 1\n{shown}\n", "good", {"store": None})) == 1
