"""Write documents.json from docs/reference/file-format.md, section 3.2: `python -m tests.vectors.make_documents`.

`spelled` are documents in some spelling, and the one spelling that sqlstate gives what they mean; `read` are some that
it never writes. All can stand in a range. `refused` are bytes that no store holds as a document, in hexadecimal digits.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ABOUT = "docs/reference/file-format.md, section 3.2; the error is sqlstate's, of a range that holds it"
ERROR = "a value under this root is no JSON document that a store holds"
LARGEST = 2**1024 - 2**970  # the first that is as near to infinity as to a double

SPELLED = [
    *((word, word) for word in ("null", "true", "false", "[]", "{}", '""', "[[],{}]")),
    *((" [ 1 ,\t2\r\n] ", "[1,2]"), ('{"b":1, "a":2}', '{"a":2,"b":1}'), ('{"a":1,"a":2}', '{"a":2}')),
    *(("0", "0"), ("-0", "0"), ("-1", "-1"), (str(2**64 - 1), str(2**64 - 1)), (str(-(2**63)), str(-(2**63)))),
    *(("0.0", "0.0"), ("-0.0", "-0.0"), ("0e5", "0.0"), ("-0E-0", "-0.0"), ("1e-999", "0.0"), ("1.0", "1.0")),
    *(("1E2", "100.0"), ("1e+2", "100.0"), ("0.10", "0.1"), ("1e-1", "0.1"), ("-2.5e0", "-2.5")),
    *(("1e-4", "0.0001"), ("1e-5", "0.00001"), ("1.25e-5", "0.0000125"), ("1e-6", "1e-6"), ("0.0000099", "9.9e-6")),
    *(("1e15", "1000000000000000.0"), ("9999999999999998.0", "9999999999999998.0"), ("1e16", "1e16")),
    *(("12345678901234567.0", "1.2345678901234568e16"), ("1e21", "1e21"), ("1e23", "1e23"), ("1.5e300", "1.5e300")),
    *(
        ("5e-324", "5e-324"),
        ("2.2250738585072014e-308", "2.2250738585072014e-308"),
        ("0.30000000000000004", "0.30000000000000004"),
    ),
    *(("1.7976931348623157e308", "1.7976931348623157e308"), (f"{LARGEST - 1}.0", "1.7976931348623157e308")),
    *((r'"\u0041\/\u00e9"', '"A/\u00e9"'), (r'"\ud83d\udd11"', '"\U0001f511"'), (r'"\u000a\u0009"', r'"\n\t"')),
    *((r'"\b\t\n\f\r\"\\"', r'"\b\t\n\f\r\"\\"'), (r'"\u0000\u001F\u000B"', r'"\u0000\u001f\u000b"')),
    *((r'"\u007f\u2028\u0080"', '"\x7f\u2028\x80"'), (r'"\\ud800"', r'"\\ud800"'), ('"\ufeff"', '"\ufeff"')),
    (
        '{"\U0001f511":1,"\uffff":2,"\u00e9":3,"":4,"a\\u0000":5,"a":6,"B":7}',
        '{"":4,"B":7,"a":6,"a\\u0000":5,"\u00e9":3,"\uffff":2,"\U0001f511":1}',
    ),
    ("[" * 200 + "]" * 200, "[" * 200 + "]" * 200),
    ('{"a":' * 200 + "1" + "}" * 200, '{"a":' * 200 + "1" + "}" * 200),
]

READ = [str(LARGEST - 1), "1" + "0" * 308, str(2**64), str(-(2**63) - 1), "[" + "[]," * 300 + "0]"]
"""Documents that only another program writes: sqlstate has no value that it would spell so."""

REFUSED = [
    *(("", "nothing"), (" ", "white space alone"), ("1 1", "two"), ("[1", "cut"), ("[1,]", "a comma too many")),
    *(
        ("NaN", "no number"),
        ("-Infinity", "no number"),
        ("01", "a leading 0"),
        ("+1", "a plus sign"),
        (".5", "no digit before the point"),
    ),
    *(
        ("1.", "no digit behind the point"),
        ("\u0661", "a digit of another script"),
        ("1e", "no exponent"),
        ("\ufeff1", "a byte order mark"),
    ),
    *(
        ("\xa01", "another space"),
        ("'a'", "other quotes"),
        ('"\t"', "a control in a string"),
        (r'"\x41"', "no escape"),
        (r'"\u00g0"', "no digits"),
    ),
    *(
        ("1e309", "beyond the doubles"),
        ("-1e309", "beyond them, below 0"),
        (str(LARGEST), "the first whole number beyond them"),
    ),
    *(
        (f"{LARGEST}.0", "the same as a double"),
        ("9" * 310, "310 digits"),
        ("9" * 4_301, "4,301 digits"),
        ('{"a":[1e999]}', "beyond, inside"),
    ),
    *(
        (r'"\ud800"', "half of a pair"),
        (r'"\udc00\ud800"', "two halves, turned"),
        (r'{"\uD83D":1}', "half of a pair in a name"),
    ),
    *(
        (r'"\ud83d\\udd11"', "half, and a backslash"),
        ("[" * 201 + "]" * 201, "201 levels"),
        ('{"a":' * 201 + "1" + "}" * 201, "201 levels"),
    ),
    *(
        ("[" * 5_000 + "]" * 5_000, "5,000 levels"),
        ("[" * 5_000, "5,000 levels, cut"),
        ("true false", "two words"),
        ("True", "a capital"),
    ),
]

BYTES = [
    (b"\xff", "no UTF-8"),
    (b'"\xed\xa0\x80"', "half of a pair in UTF-8"),
    (b'"\xc0\x80"', "overlong UTF-8"),
    (b"\0", "a zero byte"),
]


def document() -> str:
    """The text of documents.json."""
    spelled = [{"document": given, "spelled": right} for given, right in SPELLED]
    refused = [(text.encode(), why) for text, why in REFUSED] + BYTES
    none = [{"bytes": raw.hex(), "why": why, "error": ERROR} for raw, why in refused]
    lists: dict[str, list[Any]] = {"spelled": spelled, "read": READ, "refused": none}
    written = [f"{json.dumps(name)}: [\n" + ",\n".join(map(json.dumps, cases)) + "\n]" for name, cases in lists.items()]
    return ",\n".join(['{"about": ' + json.dumps(ABOUT), *written]) + "\n}\n"


def main() -> None:
    """Write the file beside this one."""
    (HERE / "documents.json").write_text(document(), encoding="ascii")


if __name__ == "__main__":
    main()
