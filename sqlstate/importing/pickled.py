"""Pickles, read without running them: builtin types are built, and what needs anything else is named.

A pickle is a program for a small machine, and may call whatever Python can import. Here is that machine without the
calls: pickletools parses it, and nothing that it says leads to anything but the types of the table below. Where another
class or function is needed, an Unbuilt stands in the value, so that a refusal can name the place.

The standard library's way, a pickle.Unpickler whose find_class() allows some classes, is not enough for files that
anybody may have made. tests/importing/test_hostile_pickles.py shows the first two points with CPython 3.11, and tries
this machine with all of them:

* An extension code that this process has resolved before (copyreg) never comes to find_class(): the call is made.
* NEWOBJ takes nothing but real classes, and BUILD sets attributes of what it is given, also of a class that is allowed.
* A key that is a tuple of twice the same tuple, and so on, sixty deep, is hashed for ever, in C, where no signal comes
  through. A PUT with a large number takes memory for all the numbers below it.
* An entry that needs one class more fails as a whole, without a word of where.
"""

from __future__ import annotations

import pickletools
from collections import Counter, OrderedDict, defaultdict
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlstate.format import constants as fmt
from sqlstate.format.documents import short_repr
from sqlstate.importing.exact_json import ContentError

if TYPE_CHECKING:
    from collections.abc import Callable

_HASHED_MAX: Final = 256  # parts of a key; each time that it is recalled, it is hashed again
_DECIMAL_MAX: Final = 10_000  # characters
_INT_BITS_MAX: Final = 1 << 16  # the digits of more take long
_NODE_BYTES: Final = 16


class Unbuilt:
    """Stands in a value for what cannot be had from the source.

    Attributes:
        reason: why, as the end of a sentence.
    """

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __repr__(self) -> str:
        return f"<{self.reason}>"


class _Name(Unbuilt):
    """A class or function that a pickle names."""

    __slots__ = ("name",)

    def __init__(self, module: str, name: str) -> None:
        self.name = f"{_PYTHON_2.get(module, module)}.{name}"
        shown = self.name if self.name.isprintable() and len(self.name) <= 200 else short_repr(self.name)
        super().__init__(f"the pickle needs {shown}, and only builtin types are built")


# What protocols 0 to 2 call the modules.
_PYTHON_2: Final = {"__builtin__": "builtins", "copy_reg": "copyreg"}


def unpickled(raw: bytes) -> Any:
    """Return the value of a pickle. No code of the pickle runs, and nothing is imported.

    Raises:
        ContentError: it is not a pickle, or is cut short.
    """
    return _Machine().run(raw)


def weight(value: Any, weights: dict[int, int] | None = None, depth: int = fmt.JSON_DEPTH_MAX) -> int:
    """Return about how many bytes *value* takes where each part that stands in it several times is written out.

    A short pickle can hold a list twice, which holds a list twice, and so on: written out, that has no end. What is in
    itself is left to those who refuse it.

    Raises:
        ContentError: it is nested too deeply.
    """
    if type(value) in (str, bytes, bytearray):
        return _NODE_BYTES + len(value)
    members = _members(value)
    if not members:
        return _NODE_BYTES
    if not depth:
        raise ContentError(f"nested more than {fmt.JSON_DEPTH_MAX} levels deep")
    weights = {} if weights is None else weights
    known = weights.get(id(value))
    if known is None:
        weights[id(value)] = _NODE_BYTES  # while it is counted: it may be in itself
        known = _NODE_BYTES + sum(weight(member, weights, depth - 1) for member in members)
        weights[id(value)] = known
    return known


def _members(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return [*value] if isinstance(value, list | tuple | set | frozenset) else []


class _Machine:
    """Reads one pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.hashed = _Hashing()
        self.remembered: dict[int, list[int]] = {}  # where in the memo an Unbuilt is, by its id

    def run(self, raw: bytes) -> Any:
        """Return the value."""
        steps = pickletools.genops(raw)
        while True:
            try:
                opcode, arg, _ = next(steps)
            except (ValueError, StopIteration, DeprecationWarning) as e:  # of an escape, as an error
                raise ContentError(f"this is not a pickle: {str(e)[:80]}") from None
            name = opcode.name
            if name == "STOP":
                return self.pop()
            if name in _GIVEN:
                self.stack.append(_no_huge_int(arg))
            else:
                step = _STEPS.get(name)
                if step is None:
                    self.stack.append(Unbuilt(f"the pickle needs what is not in it ({name})"))
                else:
                    step(self, arg)

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ContentError("this is not a pickle: it takes what it did not give")
        return self.stack.pop()

    def top(self) -> Any:
        self.stack.append(value := self.pop())
        return value

    def to_mark(self) -> list[Any]:
        if not self.marks:
            raise ContentError("this is not a pickle: it has no mark where it needs one")
        at = self.marks.pop()
        items = self.stack[at:]
        del self.stack[at:]
        return items

    def remember(self, at: int) -> None:
        value = self.memo[at] = self.top()
        if isinstance(value, Unbuilt):
            self.remembered.setdefault(id(value), []).append(at)

    def recall(self, at: int) -> None:
        if at not in self.memo:
            raise ContentError("this is not a pickle: it asks for what it did not keep")
        self.stack.append(self.memo[at])

    def append(self, items: list[Any]) -> None:
        target = self.top()
        if type(target) is list:
            target.extend(items)
        elif type(target) is set:
            target.update(map(self.hashed, items))
        elif not isinstance(target, Unbuilt):
            raise ContentError(f"this is not a pickle: it adds to {type(target).__name__}")

    def set(self, items: list[Any]) -> None:
        target = self.top()
        if isinstance(target, dict):
            target.update(self.hashed.pairs(items))
        elif not isinstance(target, Unbuilt):
            raise ContentError(f"this is not a pickle: it sets members of {type(target).__name__}")

    def named(self) -> None:
        name, module = self.pop(), self.pop()
        if type(name) is not str or type(module) is not str:
            raise ContentError("this is not a pickle: a class has a name that is not text")
        self.stack.append(_Name(module, name))

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        self.stack.append(_built(function, arguments, self.hashed))

    def new(self, *, keywords: bool) -> None:
        given = self.pop() if keywords else {}
        arguments, cls = self.pop(), self.pop()
        self.stack.append(_blank(cls) if given or arguments == () else _built(cls, arguments, self.hashed))

    def fill(self) -> None:
        state, target = self.pop(), self.pop()
        filled = target
        if isinstance(target, Unbuilt) and target.reason == _EMPTY_UUID and type(state) is dict:
            number = state.get("int")
            if type(number) is int and 0 <= number < 1 << 128:
                filled = UUID(int=number)
                for at in self.remembered.get(id(target), ()):
                    self.memo[at] = filled
        elif not isinstance(target, Unbuilt):
            filled = Unbuilt(f"the pickle gives a {type(target).__name__} attributes")
        self.stack.append(filled)

    def of_class(self, arg: str) -> None:
        self.to_mark()
        self.stack.append(_blank(_global(arg)))

    def from_stack(self) -> None:
        items = self.to_mark()
        self.stack.append(_blank(items[0]) if items else Unbuilt("the pickle has an object without a class"))

    def discard(self) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()  # POP takes a mark too
        else:
            self.pop()


def _blank(value: Any) -> Any:
    """Return, for a class, an Unbuilt that stands for a new object of it; for anything else, itself."""
    if not isinstance(value, _Name):
        return value
    # Of the types that are built, only a UUID is made empty and filled later: fill() builds it.
    return Unbuilt(_EMPTY_UUID if value.name == "uuid.UUID" else value.reason)


_EMPTY_UUID: Final = "the pickle has a UUID without its number"


def _global(arg: str) -> _Name:
    module, _, name = arg.partition(" ")
    return _Name(module, name)


def _no_huge_int(value: Any) -> Any:
    if type(value) is int and value.bit_length() > _INT_BITS_MAX:
        return Unbuilt(f"an int of {value.bit_length():,} bits is more than is read")
    return value


def _python_2(text: str) -> Any:
    return text if text.isascii() else Unbuilt("the pickle has a string of Python 2 that is not ASCII")


class _Hashing:
    """Tells what can be a key or a member: hashing takes as long as it is large when written out.

    Numbers, UUIDs and tuples can be chosen so that many have one hash, and each is compared with all before it.
    """

    def __init__(self) -> None:
        self._same: dict[int, set[Any]] = {}

    def __call__(self, value: Any) -> Any:
        if type(value) in _SPREAD:
            return value
        if isinstance(value, tuple | frozenset):
            is_flat = len(value) <= _HASHED_MAX and not any(isinstance(each, tuple | frozenset) for each in value)
            if not is_flat and weight(value) > _HASHED_MAX * _NODE_BYTES:
                raise ContentError("a key or a member of a set has too many parts")
        try:
            same = self._same.setdefault(hash(value), set())
        except (TypeError, RecursionError):
            raise ContentError(f"this is not a pickle: {type(value).__name__} as a key or member") from None
        same.add(value)
        if len(same) > _SAME_HASH_MAX:
            raise ContentError("many keys or members were chosen to have one hash")
        return value

    def pairs(self, items: list[Any]) -> dict[Any, Any]:
        if len(items) % 2:
            raise ContentError("this is not a pickle: it has a key without a value")
        return {self(items[at]): items[at + 1] for at in range(0, len(items), 2)}


# Nobody can choose their hashes, or not many that are one.
_SPREAD: Final = frozenset((str, bytes, bool, type(None), date, datetime, time))
_SAME_HASH_MAX: Final = 64


# ---- Types that are built ----


def _built(function: Any, arguments: Any, hashed: _Hashing) -> Any:
    """Return what a call of *function* would, if it makes one of the types that are built."""
    if not isinstance(function, Unbuilt):
        raise ContentError("this is not a pickle: it calls what is no class and no function")
    if type(arguments) is not tuple:
        return _blank(function)
    if not isinstance(function, _Name):
        return Unbuilt(function.reason)
    if function.name in ("copyreg._reconstructor", "copyreg.__newobj__") and arguments:
        return _blank(arguments[0]) if isinstance(arguments[0], Unbuilt) else _blank(function)
    build = _BUILDERS.get(function.name)
    missing = next((each for each in arguments if isinstance(each, Unbuilt) and not isinstance(each, _Name)), None)
    if build is None or (missing is not None and function.name in _SCALARS):
        return _blank(function if build is None else missing)
    try:
        return build(hashed, *arguments) if function.name in _HASHED else build(*arguments)
    except (TypeError, ValueError, ArithmeticError):  # arguments that no pickle of this type has
        return Unbuilt(f"the pickle gives {function.name} what it cannot take")


def _exactly(value: Any, *types: type) -> Any:
    if type(value) not in types:
        raise TypeError
    return value


def _items(hashed: _Hashing, value: Any = ()) -> list[Any]:
    return [hashed(each) for each in _exactly(value, list, tuple)]


def _ordered(hashed: _Hashing, value: Any = ()) -> OrderedDict[Any, Any]:
    pairs = [_exactly(pair, list, tuple) for pair in _exactly(value, list, tuple)]
    return OrderedDict((hashed(key), member) for key, member in pairs)


def _moment(cls: type[datetime | time]) -> Callable[..., Any]:
    def build(state: Any, zone: Any = None) -> Any:
        raw = _exactly(state, bytes, str)
        # Python tests the month only; replace() tests the others.
        made: Any = cls(raw if type(raw) is bytes else raw.encode("latin-1"), _exactly(zone, type(None), timezone))  # type: ignore[arg-type, call-arg]
        return made.replace()

    return build


def _day(state: Any) -> date:
    raw = _exactly(state, bytes, str)
    return date(raw if type(raw) is bytes else raw.encode("latin-1")).replace()  # type: ignore[call-arg, arg-type]


def _decimal(text: Any) -> Decimal:
    if len(_exactly(text, str)) > _DECIMAL_MAX:  # it is hashed anew for each dict and set that it is in
        raise ValueError
    return Decimal(text)


def _bytearray(raw: Any = b"", _code: Any = None) -> bytearray:
    return bytearray(raw if type(raw) is bytes else _exactly(raw, str).encode("latin-1"))


def _new_dict() -> dict[Any, Any]:  # dict itself would take what cannot be hashed in time
    return {}


def _new_list() -> list[Any]:
    return []


_BUILDERS: Final[dict[str, Callable[..., Any]]] = {
    "builtins.set": lambda *arguments: set(_items(*arguments)),
    "builtins.frozenset": lambda *arguments: frozenset(_items(*arguments)),
    "builtins.dict": _new_dict,
    "builtins.list": _new_list,
    "builtins.bytes": lambda: b"",
    "builtins.bytearray": _bytearray,
    "builtins.complex": lambda real, imaginary: complex(_exactly(real, float), _exactly(imaginary, float)),
    "_codecs.encode": lambda text, _: _exactly(text, str).encode("latin-1"),
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": lambda _factory=None: defaultdict(None),
    "collections.Counter": lambda counts=None: Counter(_exactly({} if counts is None else counts, dict)),
    "datetime.date": _day,
    "datetime.datetime": _moment(datetime),
    "datetime.time": _moment(time),
    "datetime.timedelta": lambda days, seconds, parts: timedelta(
        _exactly(days, int), _exactly(seconds, int), _exactly(parts, int)
    ),
    "datetime.timezone": lambda offset, *name: timezone(
        _exactly(offset, timedelta), *(_exactly(each, str) for each in name)
    ),
    "decimal.Decimal": _decimal,
}
_HASHED: Final = frozenset(("builtins.set", "builtins.frozenset", "collections.OrderedDict"))
# What an Unbuilt cannot be part of.
_SCALARS: Final = frozenset(name for name in _BUILDERS if not name.startswith(("collections.", "builtins.")))


# ---- Steps of the machine ----

_Step = Any  # a function of the machine and the argument of the step
_GIVEN: Final = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)


def _push(make: Callable[[_Machine, Any], Any]) -> _Step:
    return lambda machine, arg: machine.stack.append(make(machine, arg))


def _tuple(size: int) -> _Step:
    def step(machine: _Machine, _arg: Any) -> None:
        items = [machine.pop() for _ in range(size)]
        machine.stack.append(tuple(reversed(items)))

    return step


_STEPS: Final[dict[str, _Step]] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda *_: None),
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), _push(lambda _, arg: _python_2(arg))),
    "NONE": _push(lambda *_: None),
    "NEWTRUE": _push(lambda *_: True),
    "NEWFALSE": _push(lambda *_: False),
    "EMPTY_LIST": _push(lambda *_: []),
    "EMPTY_TUPLE": _push(lambda *_: ()),
    "EMPTY_DICT": _push(lambda *_: {}),
    "EMPTY_SET": _push(lambda *_: set()),
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP_MARK": lambda m, _: m.to_mark(),
    "POP": lambda m, _: m.discard(),
    "DUP": _push(lambda m, _: m.top()),
    "LIST": _push(lambda m, _: m.to_mark()),
    "TUPLE": _push(lambda m, _: tuple(m.to_mark())),
    **{f"TUPLE{size}": _tuple(size) for size in (1, 2, 3)},
    "DICT": _push(lambda m, _: m.hashed.pairs(m.to_mark())),
    "FROZENSET": _push(lambda m, _: frozenset(map(m.hashed, m.to_mark()))),
    "APPEND": lambda m, _: m.append([m.pop()]),
    "APPENDS": lambda m, _: m.append(m.to_mark()),
    "ADDITEMS": lambda m, _: m.append(m.to_mark()),
    "SETITEM": lambda m, _: m.set([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, _: m.set(m.to_mark()),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, arg: m.recall(int(arg))),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), lambda m, arg: m.remember(int(arg))),
    "MEMOIZE": lambda m, _: m.remember(len(m.memo)),
    "GLOBAL": _push(lambda _, arg: _global(arg)),
    "STACK_GLOBAL": lambda m, _: m.named(),
    "REDUCE": lambda m, _: m.call(),
    "NEWOBJ": lambda m, _: m.new(keywords=False),
    "NEWOBJ_EX": lambda m, _: m.new(keywords=True),
    "BUILD": lambda m, _: m.fill(),
    "INST": lambda m, arg: m.of_class(arg),
    "OBJ": lambda m, _: m.from_stack(),
    "BINPERSID": lambda m, _: (m.pop(), m.stack.append(Unbuilt("the pickle needs what is not in it (BINPERSID)"))),
}
