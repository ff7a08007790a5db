"""The structure of the project, as rules that can fail: imports, sizes, names, docstrings, invariants, links.

Method: each rule takes sources or pages as text and returns what is against it, so that beside the project
itself each rule is given a violation, seeded here, that it must find.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from urllib.parse import unquote

import pytest

import sqlstate
from sqlstate import errors
from tests import ROOT

# Top to bottom: a folder imports only from below its own line.
FLOORS = (
    "__main__",
    "cli",
    "__init__",
    "cluster",
    "aio",
    "importing",
    "integrations",
    "store",
    "maintenance",
    "recovery",
    "proving",
    "commit",
    "tables",
    "sqlite",
    "files",
    # Below this line: no clock, files, threads or SQL.
    "headlog",
    "proof",
    "format",
    "errors",
)
PURE = FLOORS[FLOORS.index("headlog") :]
# All that the pure modules need of others. Nothing here reads a clock, a file or a random number.
PURE_MAY_IMPORT = {
    "__future__",
    "base64",
    "binascii",
    "collections",
    "contextlib",
    "cryptography",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "bisect",
    "functools",
    "hashlib",
    "html",
    "itertools",
    "json",
    "math",
    "re",
    "msgspec",
    "struct",
    "types",
    "typing",
    "uuid",
}
# These alone ask which system they run on; files.system has the table of what differs.
ASKS_THE_SYSTEM = {"files.system", "files.linux", "files.windows"}
OF_ONE_SYSTEM = {"fcntl", "grp", "msvcrt", "platform", "pty", "pwd", "resource", "termios", "winreg"}
OF_THE_SYSTEM = re.compile(
    r"sys\.platform|os\.name\b|hasattr\((os|signal),|getattr\((os|signal), \"|platform\.system|/proc/|/dev/"
    r"|os\.(chown|fchmod|fchown|fork|fsync|geteuid|getuid|pread|pwrite|rename|replace|statvfs|uname)\b"
)
IMPURE_BUILTINS = {"open", "print", "input", "exec", "eval", "compile", "breakpoint"}
# Reading a store never runs code from it.
NOWHERE = {"pickle", "shelve", "marshal", "dill", "cloudpickle", "sqlite3"}
# The one door to it, with the reason.
ALLOWED = {("importing.decoding", "pickle"): "an import of one's own pickles, asked for with allow_pickle"}
# Where imports by a name that is put together at run time are allowed, with the reason.
DYNAMIC = {
    "__init__": "loads a module when one of its names is first used, so that a verifier needs no SQLite",
    "cli.program": "loads a command's module when it is called, of cli only",
}

TABLES = {
    "state": "tables.state",
    "merkle": "tables.merkle",
    "wal": "tables.wal",
    "staged": "tables.staged",
    "meta": "tables.meta",
    "schema_migrations": "tables.migrations",
    "audit": "tables.audit",
    "log_blocks": "tables.log_blocks",
    "cut_commits": "tables.cut_commits",
    "claims": "tables.claims",
    "digest_logs": "tables.wal_digests",
}

FUNCTION_LINES_MAX = 60
PARAMETERS_MAX = 6
METHODS_MAX = 25
MODULES_MAX = 12
# Folders that are still above, and what they may hold.
FULLER = {"aio": 15, "commit": 16, "format": 13, "sqlite": 21, "store": 16, "tables": 19}
MODULE_LINES_MAX = 450
LARGER = {
    "store.opening.open": "the one door of the package: each parameter is a choice that only opening can make",
    "importing.import_from.import_from": "one function for all kinds of sources, and what to do with them",
}
NAMES_THAT_SAY_NOTHING = {"utils", "util", "common", "helpers", "helper", "core", "base", "manager", "misc", "tools"}

Sources = Mapping[str, str]
Finding = str


def read_package() -> dict[str, str]:
    """The package's modules: dotted name inside the package to source. A folder's own is `cli.__init__`."""
    folder = ROOT / "sqlstate"
    files = sorted(folder.rglob("*.py"))
    return {".".join(file.relative_to(folder).with_suffix("").parts): file.read_text("utf-8") for file in files}


PACKAGE = read_package()


@lru_cache(maxsize=1024)
def parse(source: str) -> ast.Module:
    return ast.parse(source)


# ---- Imports ----


class Import(NamedTuple):
    """One import: `of` is a module of the package, or `/name` for a top-level module outside it."""

    line: int
    of: str


def imports(module: str, source: str, package: Sources) -> list[Import]:
    """Every import of a module: at its top, in functions, and under TYPE_CHECKING."""
    return imports_among(module, source, frozenset(package))


@lru_cache(maxsize=4096)
def imports_among(module: str, source: str, package: frozenset[str]) -> list[Import]:
    """The same, given the names of all modules."""
    found = []
    for node in ast.walk(parse(source)):
        if isinstance(node, ast.Import):
            found += [Import(node.lineno, _module(alias.name, package)) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = _absolute(module, node)
            for alias in node.names:
                inner = _module(f"{origin}.{alias.name}", package)
                is_module = not inner.startswith("/") and inner != _module(origin, package)
                found.append(Import(node.lineno, inner if is_module else _module(origin, package)))
        elif isinstance(node, ast.Call) and module not in DYNAMIC and _called(node) in ("import_module", "__import__"):
            found.append(Import(node.lineno, "/a name made at run time"))
    return found


def _called(call: ast.Call) -> str:
    """The last part of the name of what is called, `""` if it has none."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _absolute(module: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = ["sqlstate", *module.split(".")][: -node.level]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _module(dotted: str, package: frozenset[str]) -> str:
    top, _, rest = dotted.partition(".")
    if top != "sqlstate":
        return f"/{top}"
    while rest and rest not in package and f"{rest}.__init__" not in package:
        rest = rest.rpartition(".")[0]
    if not rest:
        return "__init__"
    return rest if rest in package else f"{rest}.__init__"


def room_of(module: str) -> str:
    """The folder, or the module beside the folders, that a module is of."""
    return module.partition(".")[0]


def every_folder_has_a_floor(package: Sources) -> Iterator[Finding]:
    rooms = {room_of(module) for module in package}
    yield from (f"{room} has no floor" for room in sorted(rooms - set(FLOORS)))
    yield from (f"{room} has a floor, and there is no such folder" for room in FLOORS if room not in rooms)


def imports_run_down(package: Sources) -> Iterator[Finding]:
    for module, source in package.items():
        own = room_of(module)
        for each in imports(module, source, package):
            room = room_of(each.of)
            if each.of.startswith("/") or own == room or own not in FLOORS or room not in FLOORS:
                continue
            if FLOORS.index(room) < FLOORS.index(own):
                yield f"{module}:{each.line} imports {each.of}, which does not stand below it"


def imports_have_no_cycle(package: Sources) -> Iterator[Finding]:
    graph = {
        module: {each.of for each in imports(module, source, package)} - {module} for module, source in package.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as e:
        yield f"a cycle: {' -> '.join(e.args[1])}"


def one_folder_imports_apsw(package: Sources) -> Iterator[Finding]:
    for module, source in package.items():
        for each in imports(module, source, package):
            if each.of == "/apsw" and room_of(module) != "sqlite":
                yield f"{module}:{each.line} imports apsw"


def few_modules_ask_which_system_it_is(package: Sources) -> Iterator[Finding]:
    for module, source in package.items():
        if module in ASKS_THE_SYSTEM:
            continue
        for each in imports(module, source, package):
            if each.of[1:] in OF_ONE_SYSTEM:
                yield f"{module}:{each.line} imports {each.of[1:]}, which one system has"
            elif room_of(module) != "files" and each.of in ("files.linux", "files.windows"):
                yield f"{module}:{each.line} imports {each.of}, and not files.system"
        for number, line in enumerate(source.splitlines(), 1):
            if found := OF_THE_SYSTEM.search(line):
                yield f"{module}:{number} asks which system it is on: {found[0]}"


def nothing_imports_what_runs_code_from_data(package: Sources) -> Iterator[Finding]:
    for module, source in package.items():
        for each in imports(module, source, package):
            name = each.of[1:]
            if (name in NOWHERE or name == "a name made at run time") and (module, name) not in ALLOWED:
                yield f"{module}:{each.line} imports {name}"


def the_lower_half_is_pure(package: Sources) -> Iterator[Finding]:
    for module in (module for module in package if room_of(module) in PURE):
        for each in imports(module, package[module], package):
            if each.of.startswith("/") and each.of[1:] not in PURE_MAY_IMPORT:
                yield f"{module}:{each.line} imports {each.of[1:]}"
        for node in ast.walk(parse(package[module])):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_BUILTINS:
                yield f"{module}:{node.lineno} calls {node.func.id}()"


# ---- SQL ----


NAMED_IN_SQL = re.compile(r"\b(?:FROM|INTO|UPDATE|JOIN|TABLE|TABLE IF NOT EXISTS|INDEX \w+ ON)\s+(\w+)")


def each_table_has_one_module_that_knows_its_sql(package: Sources) -> Iterator[Finding]:
    views = set(re.findall(r"CREATE VIEW (\w+)", migrations()))
    made = set(re.findall(r"CREATE TABLE (\w+)", migrations())) | {"schema_migrations"}
    yield from (f"the table {table} has no module" for table in sorted(made - set(TABLES)))
    yield from (f"there is no table {table}" for table in sorted(set(TABLES) - made))
    for module, source in package.items():
        for line, text in strings(source):
            for name in NAMED_IN_SQL.findall(text):
                if name in views:
                    yield f"{module}:{line} reads the view {name}, which is for people"
                home = TABLES.get(name, module)
                if module != home and not module.startswith(f"{home}_"):
                    yield f"{module}:{line} has SQL for {name}, which is {TABLES[name]}'s"


def each_module_with_a_table_uses_it(package: Sources) -> Iterator[Finding]:
    """Otherwise the rule above would be kept by not seeing any SQL."""
    for table, module in TABLES.items():
        if not any(table in NAMED_IN_SQL.findall(text) for _, text in strings(package[module])):
            yield f"{module} has no statement about {table}"


def migrations() -> str:
    return "\n".join(file.read_text("utf-8") for file in sorted((ROOT / "migrations").glob("*.sql")))


@lru_cache(maxsize=1024)
def strings(source: str) -> list[tuple[int, str]]:
    """Every string of a module with its line, f-strings as one with `?` for what is put in, docstrings left out."""
    found = []
    tree = parse(source)
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            known = [
                part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "?"
                for part in node.values
            ]
            found.append((node.lineno, "".join(known)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (parts | docs):
            found.append((node.lineno, node.value))
    return found


# ---- Sizes, names, docstrings ----


Function = ast.FunctionDef | ast.AsyncFunctionDef


@lru_cache(maxsize=1024)
def functions(source: str) -> list[Function]:
    return [node for node in ast.walk(parse(source)) if isinstance(node, Function)]


def functions_fit_a_screen(package: Sources) -> Iterator[Finding]:
    for module, source in package.items():
        for function in functions(source):
            lines = (function.end_lineno or 0) - function.lineno + 1 - doc_lines(function)
            if lines > FUNCTION_LINES_MAX:
                yield f"{module}.{function.name} has {lines} lines"


def doc_lines(function: Function) -> int:
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is None:
        return 0
    return (first.end_lineno or 0) - first.lineno + 1


def functions_take_few_parameters(package: Sources) -> Iterator[Finding]:
    larger = set()
    for module, source in package.items():
        for function in functions(source):
            names = [each.arg for each in ast.walk(function.args) if isinstance(each, ast.arg)]
            count = len([name for name in names if name not in ("self", "cls")])
            if count > PARAMETERS_MAX:
                larger.add(f"{module}.{function.name}")
                if f"{module}.{function.name}" not in LARGER:
                    yield f"{module}.{function.name} has {count} parameters"
    yield from (f"{name} is listed as larger, and is not" for name in sorted(set(LARGER) - larger))


def modules_are_not_too_long(package: Sources) -> Iterator[Finding]:
    for module, source in package.items():
        lines = len(source.splitlines())
        if lines > MODULE_LINES_MAX:
            yield f"{module} has {lines} lines"


def classes_have_few_methods(package: Sources) -> Iterator[Finding]:
    for module, source in package.items():
        for node in ast.walk(parse(source)):
            if isinstance(node, ast.ClassDef):
                methods = {each.name for each in node.body if isinstance(each, Function)}
                if len(methods) > METHODS_MAX:
                    yield f"{module}.{node.name} has {len(methods)} methods"


def folders_are_not_too_full(package: Sources) -> Iterator[Finding]:
    inside = Counter(module.rpartition(".")[0] for module in package if not module.endswith("__init__"))
    for folder, modules in inside.items():
        if modules > FULLER.get(folder, MODULES_MAX):
            yield f"{folder} has {modules} modules"


def module_names_say_what_is_inside(package: Sources) -> Iterator[Finding]:
    for module in package:
        for part in set(re.split(r"[._]", module)) & NAMES_THAT_SAY_NOTHING:
            yield f"{module}: {part} says nothing"


def everything_public_has_a_docstring(package: Sources) -> Iterator[Finding]:
    for module, source in package.items():
        tree = parse(source)
        if ast.get_docstring(tree) is None:
            yield f"{module} has no docstring"
        yield from (f"{module}.{name} has no docstring" for name in undocumented(tree.body))


def undocumented(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    for node in body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        is_overload = any(ast.unparse(each) == "overload" for each in node.decorator_list)
        if ast.get_docstring(node) is None and not is_overload:
            yield prefix + node.name
        if isinstance(node, ast.ClassDef):
            yield from undocumented(node.body, f"{prefix}{node.name}.")


PACKAGE_RULES: tuple[Callable[[Sources], Iterator[Finding]], ...] = (
    every_folder_has_a_floor,
    imports_run_down,
    imports_have_no_cycle,
    one_folder_imports_apsw,
    few_modules_ask_which_system_it_is,
    nothing_imports_what_runs_code_from_data,
    the_lower_half_is_pure,
    each_table_has_one_module_that_knows_its_sql,
    each_module_with_a_table_uses_it,
    functions_fit_a_screen,
    functions_take_few_parameters,
    modules_are_not_too_long,
    classes_have_few_methods,
    folders_are_not_too_full,
    module_names_say_what_is_inside,
    everything_public_has_a_docstring,
)


@pytest.mark.parametrize("rule", PACKAGE_RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_the_rule(rule: Callable[[Sources], Iterator[Finding]]) -> None:
    assert list(rule(PACKAGE)) == []


class Seed(NamedTuple):
    """A violation: text added to a module, and what its rule must say of it."""

    rule: Callable[[Sources], Iterator[Finding]]
    module: str
    text: str
    finding: str


LONG = "def long():\n    '''Be long.'''\n" + "    pass\n" * 59
WIDE = "def wide(a, b, /, c, *d, e, **f): ...\ndef wider(a, b, /, c, *d, e, f, **g): ...\n"
METHOD = "class C:\n    '''A class.'''\n    def method(self): ...\n"
MANY = "class Many:\n" + "".join(f"    def m{number}(self): ...\n" for number in range(26))

SEEDS = (
    Seed(every_folder_has_a_floor, "extra", "", "extra has no floor"),
    Seed(imports_run_down, "errors", "from sqlstate.store.store import Store", "imports store"),
    Seed(imports_run_down, "errors", "from sqlstate import store", "imports store"),
    Seed(imports_run_down, "errors", "import sqlstate.store.store", "imports store"),
    Seed(imports_run_down, "errors", "import sqlstate", "imports __init__"),
    Seed(imports_run_down, "errors", "from sqlstate import Store", "imports __init__"),
    Seed(imports_run_down, "errors", "from . import store", "imports store"),
    Seed(imports_run_down, "errors", "from .store import Store", "imports store"),
    Seed(imports_run_down, "store.store", "from sqlstate.cli.program import main", "imports cli.program"),
    Seed(imports_run_down, "store.store", "from sqlstate.cli import main", "imports cli.__init__"),
    Seed(imports_run_down, "cli.program", "from .. import __main__", "imports __main__"),
    Seed(
        imports_run_down,
        "tables.wal",
        "if TYPE_CHECKING:\n    from sqlstate.commit.group import Group",
        "imports commit.group",
    ),
    Seed(imports_run_down, "sqlite.life", "def f():\n    from sqlstate.tables.wal import Head", "imports tables.wal"),
    Seed(imports_have_no_cycle, "cli.output", "from sqlstate.cli.program import main", "a cycle"),
    Seed(one_folder_imports_apsw, "commit.commit", "import apsw", "commit.commit:"),
    Seed(one_folder_imports_apsw, "tables.merkle", "import apsw.ext", "imports apsw"),
    Seed(one_folder_imports_apsw, "cli.program", "def f():\n    from apsw import Connection", "imports apsw"),
    Seed(few_modules_ask_which_system_it_is, "sqlite.life", "import fcntl", "imports fcntl, which one system has"),
    Seed(few_modules_ask_which_system_it_is, "files.replace", "x = os.name == 'nt'", "which system it is on: os.name"),
    Seed(few_modules_ask_which_system_it_is, "cli.output", "if sys.platform == 'win32': pass", "sys.platform"),
    Seed(few_modules_ask_which_system_it_is, "store.opening", "if hasattr(os, 'fork'): pass", "hasattr(os,"),
    Seed(few_modules_ask_which_system_it_is, "commit.group", "os.replace(x, y)", "os.replace"),
    Seed(few_modules_ask_which_system_it_is, "sqlite.forks", "open('/proc/locks')", "/proc/"),
    Seed(
        few_modules_ask_which_system_it_is,
        "maintenance.compact",
        "from sqlstate.files.windows import move",
        "and not files.system",
    ),
    Seed(nothing_imports_what_runs_code_from_data, "format.names", "import pickle", "imports pickle"),
    Seed(nothing_imports_what_runs_code_from_data, "cli.transfer.forms", "from shelve import open", "imports shelve"),
    Seed(nothing_imports_what_runs_code_from_data, "cli.program", "import marshal as m", "imports marshal"),
    Seed(
        nothing_imports_what_runs_code_from_data, "store.store", "__import__('pick' + 'le')", "a name made at run time"
    ),
    Seed(
        nothing_imports_what_runs_code_from_data, "store.store", "importlib.import_module(x)", "a name made at run time"
    ),
    Seed(nothing_imports_what_runs_code_from_data, "cli.transfer.import_export", "import sqlite3", "imports sqlite3"),
    *(
        Seed(the_lower_half_is_pure, module, f"import {impure}", f"{module}:")
        for module in PURE
        for impure in ("os", "os.path", "time", "threading", "apsw", "sqlite3", "random", "secrets", "pathlib")
    ),
    Seed(the_lower_half_is_pure, "format.merkle", "open('x')", "calls open()"),
    Seed(each_table_has_one_module_that_knows_its_sql, "store.store", "x = 'SELECT key FROM state'", "store:"),
    Seed(
        each_table_has_one_module_that_knows_its_sql,
        "commit.commit",
        "x = f'DELETE FROM wal WHERE {x}'",
        "which is tables.wal's",
    ),
    Seed(
        each_table_has_one_module_that_knows_its_sql,
        "tables.state",
        "x = f'{x} JOIN merkle'",
        "which is tables.merkle's",
    ),
    Seed(
        each_table_has_one_module_that_knows_its_sql,
        "tables.wal",
        "x = 'UPDATE meta SET value = 1'",
        "which is tables.meta's",
    ),
    Seed(
        each_table_has_one_module_that_knows_its_sql,
        "cli.commands.entries",
        "x = 'SELECT 1 FROM entries'",
        "for people",
    ),
    Seed(functions_fit_a_screen, "store.store", LONG + "    pass\n", "long has 61 lines"),
    Seed(functions_take_few_parameters, "store.store", WIDE, "wider has 7 parameters"),
    Seed(modules_are_not_too_long, "format.constants", "#\n" * 450, "format.constants has"),
    Seed(classes_have_few_methods, "store.store", MANY, "store.store.Many has 26 methods"),
    Seed(module_names_say_what_is_inside, "cli.utils", "", "utils says nothing"),
    Seed(module_names_say_what_is_inside, "store_base", "", "base says nothing"),
    Seed(everything_public_has_a_docstring, "store.store", "def bare(): ...", "store.bare has no docstring"),
    Seed(everything_public_has_a_docstring, "store.store", METHOD, "store.C.method has no docstring"),
    Seed(everything_public_has_a_docstring, "cli.extra", "x = 1", "cli.extra has no docstring"),
)


@lru_cache
def of_package(rule: Callable[[Sources], Iterator[Finding]]) -> frozenset[Finding]:
    return frozenset(rule(PACKAGE))


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"{seed.rule.__name__}-{seed.module}-{seed.text[:30]!r}")
def test_a_rule_of_the_package_finds_a_violation(seed: Seed) -> None:
    seeded = {**PACKAGE, seed.module: f"{PACKAGE.get(seed.module, '')}\n{seed.text}\n"}
    new = set(seed.rule(seeded)) - of_package(seed.rule)
    assert [finding for finding in new if seed.finding in finding] != []


def test_a_missing_module_and_a_missing_statement_are_found() -> None:
    without = {module: source for module, source in PACKAGE.items() if not module.startswith("proving.")}
    assert "proving has a floor, and there is no such folder" in set(every_folder_has_a_floor(without))
    meta = re.sub(r"(INTO|FROM|UPDATE) meta", r"\1 x", PACKAGE["tables.meta"])
    silent = {**PACKAGE, "tables.meta": meta}
    assert list(each_module_with_a_table_uses_it(silent)) == ["tables.meta has no statement about meta"]


def test_a_folder_that_is_too_full_is_found() -> None:
    for folder, most in [*FULLER.items(), ("cli", MODULES_MAX)]:
        full = {f"{folder}.m{number}": "" for number in range(most)}
        assert list(folders_are_not_too_full({**full, f"{folder}.__init__": ""})) == []
        assert list(folders_are_not_too_full({**full, f"{folder}.more": ""})) == [f"{folder} has {most + 1} modules"]


def test_a_function_of_sixty_lines_and_six_parameters_is_allowed() -> None:
    seeded = {**PACKAGE, "extra": LONG + WIDE}
    assert not any("extra.long" in finding for finding in functions_fit_a_screen(seeded))
    assert not any("extra.wide " in finding for finding in functions_take_few_parameters(seeded))


# ---- The face ----


def listed_wrongly(names: list[str], face: Mapping[str, object]) -> Iterator[Finding]:
    """What is wrong with `__all__`, given the names of the package's top level."""
    public = {name for name, each in face.items() if not name.startswith("_") and not isinstance(each, ModuleType)}
    yield from (f"{name} is public and not in __all__" for name in sorted(public - set(names)))
    yield from (f"{name} is in __all__ and not there" for name in sorted(set(names) - public))
    if names != sorted(set(names)):
        yield "__all__ is not sorted, or has a name twice"


def test_all_is_sorted_and_complete() -> None:
    typed = {
        alias.asname: getattr(import_module(str(node.module)), alias.name)
        for node in ast.walk(parse(PACKAGE["__init__"]))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname is not None
    }
    assert list(listed_wrongly(sqlstate.__all__, typed)) == []
    assert {name: getattr(sqlstate, name) for name in typed} == typed, "what type checkers see is what there is"
    assert set(sqlstate.__all__) <= set(dir(sqlstate))
    exceptions = {name for name, each in vars(errors).items() if isinstance(each, type)}
    assert {name for name in exceptions if not name.startswith("_")} - {"Any"} <= set(sqlstate.__all__)


def test_a_wrong_all_is_found() -> None:
    face = {"a": 1, "b": 2, "_c": 3, "os": ast}
    assert list(listed_wrongly(["a", "b"], face)) == []
    assert list(listed_wrongly(["a"], face)) == ["b is public and not in __all__"]
    assert list(listed_wrongly(["a", "b", "z"], face)) == ["z is in __all__ and not there"]
    assert list(listed_wrongly(["b", "a"], face)) == ["__all__ is not sorted, or has a name twice"]


Tree = list[tuple[str, str, tuple[str, ...]]]
"""(class, its parent, other bases), in the order in which they are drawn."""


def drawn_tree(text: str) -> Tree:
    """The tree of exceptions as a docstring draws it."""
    found: Tree = []
    above: list[str] = []
    for line in text.splitlines():
        match = re.fullmatch(r"    ((?:│   |    )*(?:[├└]── )?)(\w+)(?: \(([\w, ]+)\))?(?:  +\S.*)?", line)
        if match is None or not (match[1] or not found):
            continue
        depth = len(match[1]) // 4
        del above[depth:]
        others = tuple(match[3].split(", ")) if match[3] else ()
        found.append((match[2], above[-1] if above else "Exception", others))
        above.append(match[2])
    return found


def real_tree(root: type[BaseException]) -> Tree:
    """The tree of exceptions below *root*, depth first, children in the order of their definition."""
    parent, *others = root.__bases__
    found: Tree = [(root.__name__, parent.__name__, tuple(each.__name__ for each in others))]
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            found += real_tree(child)
    return found


def test_the_tree_of_exceptions_is_the_one_that_is_drawn() -> None:
    drawn = drawn_tree(errors.__doc__ or "")
    assert drawn == real_tree(errors.StoreError)
    exceptions = {each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)}
    assert {name for name, _, _ in drawn} == {each.__name__ for each in exceptions if not issubclass(each, Warning)}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("│   ├── StoreMissing", "│   ├── StoreGone   "),
        ("    ├── Busy ", "    │   ├── Busy "),
        ("InvalidInput (ValueError)", "InvalidInput"),
        ("EntryNotFound (KeyError)", "EntryNotFound (LookupError)"),
        ("    ├── ReadOnly ", "    Nothing ReadOnly "),
    ],
)
def test_another_tree_of_exceptions_is_found(before: str, after: str) -> None:
    text = errors.__doc__ or ""
    assert before in text
    assert drawn_tree(text.replace(before, after)) != real_tree(errors.StoreError)


# ---- Invariants ----


def invariants_are_kept_and_attacked(page: str, package: Sources, tests: Sources) -> Iterator[Finding]:
    """Each invariant of the format page is named where it is kept and where it is attacked; no other number is."""
    section = re.search(r"^## 9\. Invariants$(.*?)^## ", page, re.MULTILINE | re.DOTALL)
    stated = re.findall(r"^\* \*\*(I\d+)\*\* ", section[1] if section else "", re.MULTILINE)
    if not stated or stated != [f"I{number}" for number in range(1, len(stated) + 1)]:
        yield f"the page states {stated}"
    for where, sources in (("module of the package", package), ("test", tests)):
        named = {name: re.findall(r"\bI[1-9]\d*\b", source) for name, source in sources.items()}
        everywhere = {number for numbers in named.values() for number in numbers}
        yield from (f"{number} is named in no {where}" for number in stated if number not in everywhere)
        for name, numbers in named.items():
            yield from (f"{name} names {number}, which is not stated" for number in sorted(set(numbers) - set(stated)))


def read_tests() -> dict[str, str]:
    files = [file for file in sorted((ROOT / "tests").rglob("*.py")) if file != Path(__file__)]
    return {file.relative_to(ROOT).as_posix(): file.read_text("utf-8") for file in files}


PAGE = (ROOT / "docs/reference/file-format.md").read_text("utf-8")


def test_each_invariant_is_named_where_it_is_kept_and_where_it_is_attacked() -> None:
    assert list(invariants_are_kept_and_attacked(PAGE, PACKAGE, read_tests())) == []


def test_a_forgotten_invariant_is_found() -> None:
    page = "## 9. Invariants\n\n* **I1** One.\n* **I2** Two.\n\n## 10. More\n"
    good, bad = {"m": "# I1 (I2)"}, {"m": "# I1, I3"}
    assert list(invariants_are_kept_and_attacked(page, good, good)) == []
    assert list(invariants_are_kept_and_attacked(page, bad, good)) == [
        "I2 is named in no module of the package",
        "m names I3, which is not stated",
    ]
    assert list(invariants_are_kept_and_attacked(page, good, {"t": "I1"})) == ["I2 is named in no test"]
    assert "the page states" in next(invariants_are_kept_and_attacked(page.replace("I2", "I4"), good, good))
    assert "the page states" in next(invariants_are_kept_and_attacked("no section", good, good))


# ---- Pages ----


def broken_links(pages: Mapping[Path, str], root: Path) -> Iterator[Finding]:
    """Relative links that lead to no file, or to no heading in it."""
    for page, text in pages.items():
        for target in links(text):
            address, _, anchor = target.partition("#")
            if re.match(r"[a-z][a-z0-9+.-]*:", address):
                continue
            file = (page.parent / unquote(address)).resolve() if address else page
            where = page.relative_to(root).as_posix()
            if not file.is_relative_to(root) or not file.exists():
                yield f"{where}: {target} leads to no file"
            elif anchor and file.suffix == ".md" and anchor not in anchors(pages.get(file) or file.read_text("utf-8")):
                yield f"{where}: {target} leads to no heading"


def prose(text: str) -> str:
    """A page without its code."""
    text = re.sub(r"^( *)(```+|~~~+).*?^\1\2[`~]*$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "code", text)


def links(text: str) -> list[str]:
    """Targets of inline links, images and reference definitions."""
    text = prose(text)
    inline = re.findall(r"\]\(<?([^()\s>]+(?:\([^()\s]*\))?)>?(?:\s+\"[^\"]*\")?\)", text)
    return inline + re.findall(r"^ {0,3}\[[^\]]+\]:\s*<?(\S+?)>?(?:\s|$)", text, re.MULTILINE)


def anchors(text: str) -> set[str]:
    """Anchors that GitHub makes of a page's headings, and those that the page sets itself."""
    found: set[str] = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))
    body = re.sub(r"^( *)(```+|~~~+).*?^\1\2[`~]*$", "", text, flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#{1,6}\s+(.+?)\s*#*$", body, re.MULTILINE):
        shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        number = 0
        while slug + (f"-{number}" if number else "") in found:
            number += 1
        found.add(slug + (f"-{number}" if number else ""))
    return found


def read_pages() -> dict[Path, str]:
    files = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
    return {file: file.read_text("utf-8") for file in files}


def test_every_relative_link_of_the_pages_leads_somewhere() -> None:
    pages = read_pages()
    assert {ROOT / "README.md", ROOT / "docs/reference/file-format.md"} <= set(pages)
    assert list(broken_links(pages, ROOT)) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    target = tmp_path / "docs" / "with space.md"
    target.parent.mkdir()
    text = "# A page: of `code`\n\n## Twice\n\n## Twice\n\n```\n# Not this\n```\n"
    target.write_text(text, "utf-8", newline="\n")
    page = tmp_path / "README.md"

    def found(link: str) -> list[str]:
        return list(broken_links({page: f"# Top\n\nSee {link} there.\n", target: text}, tmp_path))

    page.touch()
    for good in (
        "[a](docs/with%20space.md)",
        "[a](docs/with%20space.md#a-page-of-code)",
        "[a](docs/with%20space.md#twice-1)",
        "![a](docs)",
        "[a](#top)",
        "[a](https://example.org/no#no)",
        "`[a](no.md)`",
        "\n```\n[a](no.md)\n```\n",
        "\n[a]: docs/with%20space.md\n",
    ):
        assert found(good) == []
    for bad in ("[a](no.md)", "[a](docs/no.md#top)", "[a](../README.md)", "![a](no.png)", "\n[a]: no.md\n"):
        assert [finding for finding in found(bad) if "leads to no file" in finding] != []
    for bad in ("[a](#no)", "[a](docs/with%20space.md#twice-2)", "[a](docs/with%20space.md#not-this)"):
        assert [finding for finding in found(bad) if "leads to no heading" in finding] != []
