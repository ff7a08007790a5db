"""Hostile pickles: whatever the machine of pickles can call is not called, and none takes memory or time without end.

Method: pickles made by hand, one for each way to a call. Each is loaded by Python's own pickle first, where it makes a
file: so it would do harm.
"""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self

import pytest

from sqlstate.importing.encoding import encode_foreign
from sqlstate.importing.exact_json import ContentError
from sqlstate.importing.pickled import unpickled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HERE: Final = __name__


# ---- Ways to a call ----


class ByNew:
    """Makes a file when an object is made."""

    def __new__(cls, path: str, **_: object) -> Self:
        os.mkdir(path)
        return super().__new__(cls)


class ByInit:
    """Makes a file when an object is filled at once."""

    def __init__(self, path: str) -> None:
        os.mkdir(path)


class ByState:
    """Makes a file when it gets its state."""

    def __setstate__(self, state: str) -> None:
        os.mkdir(state)


class ByAppend:
    """Makes a file when something is added to it."""

    def append(self, path: str) -> None:
        os.mkdir(path)

    def __setitem__(self, path: str, _: object) -> None:
        os.mkdir(path)

    def add(self, path: str) -> None:
        os.mkdir(path)


class ByHash:
    """Makes a file when it is hashed."""

    path = ""

    def __hash__(self) -> int:
        if self.path:
            os.mkdir(self.path)
        return 1

    def __eq__(self, other: object) -> bool:
        return self is other


class ByIter:
    """Makes a file when its items are asked for, as list subclasses of a cache may."""

    path = ""

    def __iter__(self) -> Iterator[int]:
        os.mkdir(self.path)
        return iter(())


def text(value: str) -> bytes:
    """A pickle's opcode for a text."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def named(module: str, name: str) -> bytes:
    """A pickle's opcodes for a class or function, as protocol 4 has it."""
    return text(module) + text(name) + b"\x93"


def own(cls: type) -> bytes:
    """The opcodes for a class of this module."""
    return named(HERE, cls.__name__)


WAYS: dict[str, Callable[[str], bytes]] = {
    "REDUCE of a GLOBAL": lambda p: b"cos\nmkdir\n(" + text(p) + b"tR.",
    "REDUCE of a STACK_GLOBAL": lambda p: named("os", "mkdir") + text(p) + b"\x85R.",
    "REDUCE of a name with dots": lambda p: b"\x80\x04" + named("shutil", "os.mkdir") + text(p) + b"\x85R.",
    "REDUCE of what is remembered": lambda p: named("os", "mkdir") + b"\x940h\x00" + text(p) + b"\x85R.",
    "system": lambda p: named("os", "system") + text(f"mkdir {p}") + b"\x85R.",
    "eval": lambda p: named("builtins", "eval") + text(f"__import__('os').mkdir({p!r})") + b"\x85R.",
    "exec, as Python 2 named it": lambda p: b"c__builtin__\nexec\n(" + text(f"import os; os.mkdir({p!r})") + b"tR.",
    "getattr": lambda p: (
        named("builtins", "getattr")
        + named("builtins", "__import__")
        + text("os")
        + b"\x85R"
        + text("mkdir")
        + b"\x86R"
        + text(p)
        + b"\x85R."
    ),
    "partial": lambda p: named("functools", "partial") + named("os", "mkdir") + text(p) + b"\x86R)R.",
    "map in a list": lambda p: (
        named("builtins", "list") + named("builtins", "map") + named("os", "mkdir") + b"(" + text(p) + b"l\x86R\x85R."
    ),
    "map in a set": lambda p: (
        named("builtins", "set") + named("builtins", "map") + named("os", "mkdir") + b"(" + text(p) + b"l\x86R\x85R."
    ),
    "map in an OrderedDict": lambda p: (
        named("collections", "OrderedDict")
        + named("builtins", "map")
        + named("os", "mkdir")
        + b"("
        + text(p)
        + b"l\x86R\x85R."
    ),
    "INST": lambda p: b"(" + text(p) + b"ios\nmkdir\n.",
    "INST of a class": lambda p: b"(" + text(p) + f"i{HERE}\nByInit\n.".encode(),
    "OBJ": lambda p: b"(" + named("os", "mkdir") + text(p) + b"o.",
    "OBJ of a class": lambda p: b"(" + own(ByInit) + text(p) + b"o.",
    "NEWOBJ": lambda p: own(ByNew) + text(p) + b"\x85\x81.",
    "NEWOBJ_EX": lambda p: own(ByNew) + text(p) + b"\x85}\x92.",
    "NEWOBJ_EX with keywords": lambda p: own(ByNew) + b")}" + text("path") + text(p) + b"s\x92.",
    "copyreg.__newobj__": lambda p: named("copyreg", "__newobj__") + own(ByNew) + text(p) + b"\x86R.",
    "copyreg.__newobj_ex__": lambda p: named("copyreg", "__newobj_ex__") + own(ByNew) + text(p) + b"\x85}\x87R.",
    "copyreg._reconstructor": lambda p: (
        named("copyreg", "_reconstructor") + own(ByNew) + own(ByNew) + text(p) + b"\x87R."
    ),
    "BUILD": lambda p: own(ByState) + b")\x81" + text(p) + b"b.",
    "BUILD of a UUID": lambda p: (
        named("uuid", "UUID") + b")\x81}" + text("int") + named("os", "mkdir") + text(p) + b"\x85Rsb."
    ),
    "APPEND": lambda p: own(ByAppend) + b")\x81" + text(p) + b"a.",
    "APPENDS": lambda p: own(ByAppend) + b")\x81(" + text(p) + b"e.",
    "ADDITEMS": lambda p: own(ByAppend) + b")\x81(" + text(p) + b"\x90.",
    "SETITEM": lambda p: own(ByAppend) + b")\x81" + text(p) + b"Ns.",
    "SETITEMS": lambda p: own(ByAppend) + b")\x81(" + text(p) + b"Nu.",
    "hash of a key": lambda p: b"}" + own(ByHash) + b")\x81}" + text("path") + text(p) + b"sbNs.",
    "hash of a member": lambda p: b"(" + own(ByHash) + b")\x81}" + text("path") + text(p) + b"sb\x91.",
    "items for a Counter": lambda p: (
        named("collections", "Counter") + own(ByIter) + b")\x81}" + text("path") + text(p) + b"sb\x85R."
    ),
    "a time zone": lambda p: (
        named("datetime", "datetime")
        + b"C\x0a\x07\xea\x01\x01\x01\x01\x01\x00\x00\x00"
        + named("os", "mkdir")
        + text(p)
        + b"\x85R\x86R."
    ),
    "behind the value": lambda p: b"N0" + named("os", "mkdir") + text(p) + b"\x85R0N.",
}


@pytest.mark.parametrize("way", WAYS)
def test_no_way_to_a_call_is_gone(way: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    raw = WAYS[way](str(marker))
    with suppress(ContentError):
        encode_foreign("c", "k", unpickled(raw))
    with suppress(ContentError):  # also where the call itself is a key
        encode_foreign("c", unpickled(raw), None)
    assert not marker.exists()
    with suppress(Exception):
        pickle.loads(raw)  # noqa: S301
    assert marker.exists(), "it is harmless, and proves nothing"


class Allowing(pickle.Unpickler):
    """The standard library's way: only some classes are found."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "Counter"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")


@pytest.mark.parametrize("size", [1, 2, 4])
def test_an_extension_code_leads_nowhere_also_one_that_was_resolved_before(size: int, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    code = {1: 240, 2: 0xF000, 4: 0x7FFFFFF0}[size]
    opcode = {1: b"\x82", 2: b"\x83", 4: b"\x84"}[size]
    raw = opcode + code.to_bytes(size, "little") + text(str(marker)) + b"\x85R."
    copyreg.add_extension("os", "mkdir", code)
    try:
        pickle.loads(opcode + code.to_bytes(size, "little") + b".")  # noqa: S301
        with pytest.raises(ContentError):
            encode_foreign("c", "k", unpickled(raw))
        assert not marker.exists()
        Allowing(io.BytesIO(raw)).load()
        assert marker.exists(), "find_class() keeps it away: then this machine has one reason less"
    finally:
        copyreg.remove_extension("os", "mkdir", code)
        copyreg._extension_cache.pop(code, None)  # type: ignore[attr-defined]


def test_a_class_that_is_built_gets_no_attributes() -> None:
    program = """
import io
from collections import Counter
from tests.importing.test_hostile_pickles import Allowing
from sqlstate.importing.pickled import unpickled
raw = b"ccollections\\nCounter\\nN}X\\x05\\0\\0\\0totalX\\x04\\0\\0\\0ownds\\x86b."
unpickled(raw)
print(callable(Counter.total))
Allowing(io.BytesIO(raw)).load()
print(Counter.total)
"""
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=here, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "ownd"], "an unpickler that allows the class changes it"


# ---- Memory and time without end ----

DEEP: Final = b"N" + b"\x85" * 150 + b"2\x86" * 60  # a tuple of twice the same, sixty times

ENDLESS: dict[str, bytes] = {
    "a long BINBYTES8": b"\x8e" + b"\xff" * 7 + b"\x7fab.",
    "a long BYTEARRAY8": b"\x96" + b"\xff" * 7 + b"\x7fab.",
    "a long BINUNICODE8": b"\x8d" + b"\xff" * 7 + b"\x7fab.",
    "a longer BINBYTES": b"B\xff\xff\xff\xffab.",
    "a longer BINUNICODE": b"X\xff\xff\xff\xffab.",
    "a longer LONG4": b"\x8b\xff\xff\xff\x7fab.",
    "a negative LONG4": b"\x8b\xff\xff\xff\xffab.",
    "a negative BINSTRING": b"T\xff\xff\xff\xffab.",
    "a long FRAME": b"\x95" + b"\xff" * 8 + b"N.",
    "a far LONG_BINPUT": b"]r\xff\xff\xff\xff.",
    "a far PUT": b"]p99999999999999999999\n.",
    "a negative PUT": b"]p-1\n.",
    "many digits": b"I" + b"9" * 1_000_000 + b"\n.",
    "a LONG of many bits": b"\x8b" + struct.pack("<i", 4_000_000) + b"\x7f" * 4_000_000 + b".",
    "many digits of a Decimal": b"cdecimal\nDecimal\n(" + text("9" * 1_000_000) + b"tR.",
    "a key that is hashed for ever": b"}" + DEEP + b"Ns.",
    "a member that is hashed for ever": b"\x8f(" + DEEP + b"\x90.",
    "a frozenset that is hashed for ever": b"(" + DEEP + b"\x91.",
    "a member for the set() of a call": b"cbuiltins\nset\n((" + DEEP + b"ltR.",
    "twice the same list, sixty times": b"]" + b"".join(b"q\x00]h\x00ah\x00a" for _ in range(60)) + b".",
    "twice the same dict, sixty times": b"}" + b"".join(b"q\x00}K\x01h\x00sK\x02h\x00s" for _ in range(60)) + b".",
    "a long text, many times": b"(" + text("x" * 1_000_000) + b"q\x00" + b"h\x00" * 1000 + b"l.",
    "deep lists": b"]" * 200_000 + b"a" * 199_999 + b".",
    "deep tuples": b")" + b"\x85" * 200_000 + b".",
    "deep marks": b"(" * 200_000 + b"t" * 200_000 + b".",
    "a list in itself": b"]q\x00h\x00a.",
    "a dict in itself": b"}q\x00K\x01h\x00s.",
    "a tuple in itself": b"]q\x00h\x00\x85q\x01a0h\x01.",
}


HARMLESS: Final = ("a long FRAME", "a far LONG_BINPUT", "a far PUT", "a negative PUT")


@pytest.mark.parametrize("name", ENDLESS)
@pytest.mark.parametrize("at", ["value", "key"])
def test_no_pickle_takes_memory_or_time_without_end(name: str, at: str) -> None:
    tracemalloc.start()
    try:
        with suppress(ContentError):
            read = unpickled(ENDLESS[name])
            encode_foreign("c", *(("k", read) if at == "value" else (read, None)))
            assert at == "value"
            assert name in HARMLESS
        assert tracemalloc.get_traced_memory()[1] < 256 << 20
    finally:
        tracemalloc.stop()


def colliding(count: int) -> list[bytes]:
    """Opcodes of ints that have one hash, none of them twice."""
    return [b"\x8a\x0c" + (number * (2**61 - 1) << 3).to_bytes(12, "little") for number in range(1, count)]


@pytest.mark.parametrize(
    "around",
    [
        lambda keys: b"}(" + b"N".join(keys) + b"Nu.",
        lambda keys: b"}" + b"".join(key + b"Ns" for key in keys) + b".",
        lambda keys: b"(" + b"N".join(keys) + b"Nd.",
        lambda keys: b"\x8f(" + b"".join(keys) + b"\x90.",
        lambda keys: b"(" + b"".join(keys) + b"\x91.",
        lambda keys: b"\x8f(" + b"".join(key + b"\x85" for key in keys) + b"\x90.",
        lambda keys: b"cbuiltins\nset\n((" + b"".join(keys) + b"ltR.",
        lambda keys: b"ccollections\nOrderedDict\n((" + b"".join(key + b"N\x86" for key in keys) + b"ltR.",
        lambda keys: b"\x8f(" + b"".join(b"cuuid\nUUID\n)\x81}X\3\0\0\0int" + key + b"sb" for key in keys) + b"\x90.",
    ],
    ids=["dict", "one by one", "DICT", "set", "frozenset", "tuples", "set()", "OrderedDict()", "UUIDs"],
)
def test_keys_that_were_chosen_to_have_one_hash_are_refused(around: Callable[[list[bytes]], bytes]) -> None:
    assert unpickled(b"]" + b"".join(around(colliding(60))[:-1] + b"a" for _ in range(3)) + b".")
    raw = around(colliding(1_000))
    with pytest.raises(ContentError):
        encode_foreign("c", "k", unpickled(raw))


def test_many_recalls_of_a_key_are_no_way_around() -> None:
    row = b"(" + b"N" * 255 + b"tq\x00"
    wide = b"(" + b"N" * 100_000 + b"tq\x00"
    recalled = b"\x8f(" + b"h\x00" * 2_000 + b"\x90."
    assert unpickled(row + recalled) == {(None,) * 255}
    with pytest.raises(ContentError, match="too many parts"):
        unpickled(wide + recalled)
