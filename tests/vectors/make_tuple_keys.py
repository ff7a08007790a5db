"""Write tuple_keys.json from docs/reference/tuple-keys.md: `python -m tests.vectors.make_tuple_keys`.

`keys` are tuples in their order, with the bytes that they are stored as. `prefixes` are tuples, and the numbers of
those keys that begin with them. `refused` are bytes that no tuple is stored as. Elements stand with their SQLite
storage class, as in encoding.json.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.reference.tuple_keys import Element, order, packed
from tests.vectors.make import typed

HERE = Path(__file__).parent
ABOUT = "docs/reference/tuple-keys.md"

INTS: list[Element] = [-(2**63), -(2**63) + 1, -256, -1, 0, 1, 255, 256, 2**32, 2**53 + 1, 2**63 - 1]
TEXTS: list[Element] = [
    "",
    "\x00",
    "\x00\x00",
    "\x00\x01",
    "\x01",
    "1",
    "a",
    "a\x00",
    "a\x00b",
    "ab",
    "é",
    "e\u0301",
    "\uffff",
    "\U0001f511",
]
BLOBS: list[Element] = [b"", b"\x00", b"\x00\x00", b"\x00\xff", b"\x01", b"a", b"a\x00", b"a\xff", b"\xff", b"\xff\xff"]

KEYS: list[tuple[Element, ...]] = sorted(
    {
        *((each,) for each in (*INTS, *TEXTS, *BLOBS)),
        *(("a", each) for each in (*INTS[::3], *TEXTS[::3], *BLOBS[::3])),
        *((each, "a") for each in (*INTS[::4], *TEXTS, *BLOBS)),
        *(("a\x00", 1), ("a\x00", 1, b""), ("", "", ""), (b"", b"", b""), (0, 0, 0), ("a", 1, "b", 2, b"c", 3)),
    },
    key=order,
)
PREFIXES: list[tuple[Element, ...]] = [(), ("a",), ("a\x00",), ("",), (b"",), (0,), ("a", 1), (b"\xff",), ("zz",)]

REFUSED = [
    (b"\x00", "no kind of element"),
    (b"\x04", "no kind of element"),
    (b"\xff", "no kind of element"),
    (b"a", "no kind of element"),
    (b"\x01", "an int cut short"),
    (b"\x01" + bytes(7), "an int cut short"),
    (b"\x02", "text without an end"),
    (b"\x02a", "text without an end"),
    (b"\x02a\x00\xff", "text without an end"),
    (b"\x02a\x00\x00", "no kind of element behind text"),
    (b"\x02\xff\x00", "text that is not UTF-8"),
    (b"\x02\xed\xa0\x80\x00", "text that is not UTF-8: a surrogate"),
    (b"\x02\xc0\x80\x00", "text that is not UTF-8: an overlong form"),
    (b"\x03\x00\xff", "bytes without an end"),
    (b"\x02a\x00\x01", "an int cut short behind text"),
]


def document() -> str:
    """The text of tuple_keys.json."""
    whole = {
        "about": ABOUT,
        "keys": [{"key": [typed(each) for each in key], "bytes": packed(key).hex()} for key in KEYS],
        "prefixes": [
            {
                "prefix": [typed(each) for each in prefix],
                "keys": [number for number, key in enumerate(KEYS) if order(key)[: len(prefix)] == order(prefix)],
            }
            for prefix in PREFIXES
        ],
        "refused": [{"bytes": raw.hex(), "why": why} for raw, why in REFUSED],
    }
    return json.dumps(whole, indent=1) + "\n"


if __name__ == "__main__":
    (HERE / "tuple_keys.json").write_text(document(), encoding="ascii")
