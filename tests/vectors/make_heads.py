"""Write heads.json from docs/reference/proofs.md, sections 4 and 5: `python -m tests.vectors.make_heads`.

It imports nothing of sqlstate: signatures are those of the package `cryptography`, by seeds that are no secret.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.reference import log, plain
from tests.reference.notation import u32, u64

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
ABOUT = "docs/reference/proofs.md, sections 4 and 5; digests and proofs are hexadecimal, the error is sqlstate's"
ORIGIN = "example.com/orders"
AT = "2026-11-23T17:09:46.000000Z"

NOT_ONE = "this is no signed head: it is text, an empty line, and lines with signatures"
NO_SIGNATURE = "this is no signed head: a line below the empty one is no signature"
NO_HEAD = "this is signed, and is no head of a store of sqlstate"
NUMBER = "the signed head has a number that no store can have"
UNSIGNED = "the head is not signed by this key"
BROKEN = "the head was not signed by this key, or was changed since"
NOTHING = "the signed head is of no commit, and says that there is something"
LARGE = "this is no signed head: it has more than 131072 bytes"
OTHER_PATH = "the proof leads to another history than the one that was signed"
HISTORY = "the two heads do not belong to one history, or the proof is for other heads"
NO_DIGESTS = "the path of the proof is not made of digests, or is longer than any log is deep"
LONG = "the path of the proof is longer than the log is deep"
SHORT = "the path of the proof does not reach the root of the log"


def b64(data: bytes) -> str:
    """The base64 of the page."""
    return base64.b64encode(data).decode()


class Key:
    """A key of an origin, from a seed."""

    def __init__(self, origin: str, seed: bytes = bytes(32)) -> None:
        self.origin = origin
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        public = b"\x01" + self._key.public_key().public_bytes_raw()
        self.id = sha256(origin.encode() + b"\n" + public).digest()[:4]
        self.public = f"{origin}+{self.id.hex()}+{b64(public)}"

    def line(self, text: str, name: str | None = None) -> str:
        """The line with its signature of a text."""
        return f"\u2014 {name or self.origin} {b64(self.id + self._key.sign(text.encode()))}\n"

    def signed(self, text: str) -> str:
        """The signed note of a text."""
        return text + "\n" + self.line(text)


OURS, AGAIN = Key(ORIGIN), Key(ORIGIN, bytes(31) + b"\x01")
WITNESS = "\u2014 witness.example AAAAAAA=\n"


@dataclass(frozen=True)
class Head:
    """What a signed head says."""

    seq: int
    log_root: bytes
    root: bytes
    count: int
    at: str = AT
    origin: str = ORIGIN

    def text(self) -> str:
        """What is signed."""
        lines = f"{self.origin}\n{self.seq}\n{b64(self.log_root)}\n", f"root {self.root.hex()}\n"
        return "".join(lines) + f"count {self.count}\nat {self.at}\n"

    def facts(self) -> dict[str, Any]:
        """What a verifier gives; numbers as text, which holds them in every language."""
        roots = {"logRoot": self.log_root.hex(), "root": self.root.hex()}
        return {"origin": self.origin, "seq": str(self.seq), **roots, "count": str(self.count), "at": self.at}


SEVEN = Head(7, bytes(range(32)), bytes(reversed(range(32))), 3)
NONE = Head(0, log.tree([]), plain.empty_root(), 0)


def accepted() -> Iterator[dict[str, Any]]:
    """Texts that are signed heads."""
    text = SEVEN.text()
    line, most = OURS.line(text), replace(SEVEN, seq=2**63 - 1, count=2**63 - 1, at="9999-99-99T99:99:99.999999Z")
    for head, note, key, why in (
        (SEVEN, OURS.signed(text), OURS, "one signature"),
        (NONE, OURS.signed(NONE.text()), OURS, "of no commit"),
        (most, OURS.signed(most.text()), OURS, "the greatest numbers; there is no such day"),
        (SEVEN, f"{text}\n{WITNESS}{line}", OURS, "an unknown name before ours"),
        (SEVEN, f"{text}\n{line}{AGAIN.line(text)}", OURS, "our name, another key id"),
        (SEVEN, f"{text}\n{line}{OURS.line(text, 'w')}", OURS, "our key id, another name"),
        (SEVEN, f"{text}\n{line}{line}", OURS, "our signature twice"),
        (SEVEN, f"{text}\n{WITNESS * 15}{line}", OURS, "16 signatures"),
        (SEVEN, f"{text}\n{line}\u2014 \u2014 AAAAAAA=\n\u2014 \x7f\u200b= AAAAAAA=\n", OURS, "names that C2SP allows"),
        *(
            (replace(SEVEN, origin=origin), key.signed(replace(SEVEN, origin=origin).text()), key, f"origin {origin!a}")
            for origin in ("a", "\u00e9", "\U0001f511", "\u0378", "\ue000", "\u2014", "a" * 255, "\u00e9" * 127)
            for key in [Key(origin)]
        ),
    ):
        yield {"why": why, "text": note, "key": key.public, "head": head.facts()}
    for before, after in ((" \t", ""), ("", "\r\n"), ("\n", "\n\n ")):
        yield {
            "why": "around the key",
            "text": OURS.signed(text),
            "key": before + OURS.public + after,
            "head": SEVEN.facts(),
        }


def refused() -> Iterator[dict[str, Any]]:
    """Texts that are none, and why."""
    text, note = SEVEN.text(), OURS.signed(SEVEN.text())
    line = OURS.line(text)
    bad = b64(OURS.id + bytes(64))
    cases: list[tuple[str, str, str]] = [
        ("", "nothing", NOT_ONE),
        (text, "no signature", NOT_ONE),
        (text + "\n", "an empty line, and nothing", NOT_ONE),
        (note[:-1], "no line end", NOT_ONE),
        (note + "\n", "an empty line behind", NOT_ONE),
        (note.replace("\n", "\r\n"), "CR LF", NOT_ONE),
        (text + line, "no empty line", NOT_ONE),
        ("\ufeff" + note, "a byte order mark", NO_HEAD),
        ("\n" + note, "an empty line before", NO_HEAD),
        (text + "\n\n" + line, "two empty lines", NO_HEAD),
        (note + "\n" + line, "two blocks of signatures", NO_HEAD),
        (note + "\u2014 w AAAAAAA=", "a last line without its end", NOT_ONE),
        (OURS.signed(text + "more\n"), "a line more, signed", NO_HEAD),
        (OURS.signed("more\n" + text), "a line before, signed", NO_HEAD),
        (OURS.signed(text.replace("at ", "\nat ")), "an empty line inside, signed", NO_HEAD),
        (OURS.signed("\n".join(text.split("\n")[:3]) + "\n"), "a checkpoint without root, count and time", NO_HEAD),
        (f"{text}\n{AGAIN.line(text)}", "another key of this origin", UNSIGNED),
        (f"{text}\n{WITNESS}", "a witness alone", UNSIGNED),
        (f"{text}\n{OURS.line(text, 'w')}", "our signature under another name", UNSIGNED),
        (note.replace("count 3", "count 4"), "changed since", BROKEN),
        (
            f"{text}\n{line}\u2014 {ORIGIN} {bad}\n",
            "a signature of ours that does not hold, behind one that does",
            BROKEN,
        ),
        (f"{text}\n\u2014 {ORIGIN} {bad}\n{line}", "and before it", BROKEN),
        (f"{text}\n{line}\u2014 {ORIGIN} {b64(OURS.id + bytes(1))}\n", "a signature of ours of 1 byte", BROKEN),
        (f"{text}\n{line}{WITNESS * 16}", "17 signatures", "the signed head has more than 16 signatures"),
        (note + f"\u2014 {'x' * 131_072} AAAAAAA=\n", "too long", LARGE),
        (
            Key("a.example").signed(replace(SEVEN, origin="a.example").text()),
            "another origin",
            f"the signed head is of origin 'a.example', and the key is for '{ORIGIN}'",
        ),
        *(
            (OURS.signed(text.replace("\n7\n", f"\n{seq}\n")), f"SEQ {seq!r}", NO_HEAD)
            for seq in ("07", "+7", "-7", " 7", "7 ", "\uff17", "", "7.0", "9" * 20)
        ),
        *(
            (OURS.signed(text.replace("count 3", f"count {count}")), f"N {count!r}", NO_HEAD)
            for count in ("03", "+3", "", " 3", "\u0663")
        ),
        (OURS.signed(replace(SEVEN, seq=2**63).text()), "SEQ 2^63", NUMBER),
        (OURS.signed(replace(SEVEN, count=2**63).text()), "N 2^63", NUMBER),
        *(
            (OURS.signed(replace(SEVEN, at=at).text()), f"TIME {at!a}", NO_HEAD)
            for at in (
                AT[:-1],
                AT.lower(),
                AT.replace("T", " "),
                AT.replace(".", ","),
                AT[:-2] + "Z",
                AT[:-1] + "0Z",
                AT[:-1] + "+00:00",
                AT.replace("6", "\u0666"),
                f"{AT} ",
            )
        ),
        *(
            (OURS.signed(text.replace(SEVEN.root.hex(), digits)), f"HEX {why}", NO_HEAD)
            for digits, why in (
                (SEVEN.root.hex().upper(), "in capitals"),
                (SEVEN.root.hex()[1:], "of 63"),
                (SEVEN.root.hex() + "00", "of 66"),
            )
        ),
        *(
            (OURS.signed(text.replace(b64(SEVEN.log_root), spelt)), f"BASE64 {why}", NO_HEAD)
            for spelt, why in (
                (b64(SEVEN.log_root)[:-1], "without padding"),
                (b64(SEVEN.log_root)[:-2] + "9=", "with unused bits"),
                (b64(bytes(31)), "of 31 bytes"),
                (b64(bytes(33)), "of 33 bytes"),
                (b64(b"\xff" * 32).replace("/", "_"), "of another alphabet"),
                (b64(SEVEN.log_root) + " ", "and a space"),
            )
        ),
        *(
            (OURS.signed(replace(SEVEN, **part).text()), f"of no commit, {why}", NOTHING)
            for part, why in (
                ({"seq": 0}, "all else of one"),
                ({"seq": 0, "log_root": log.tree([]), "root": plain.empty_root()}, "with entries"),
                ({"seq": 0, "log_root": log.tree([]), "count": 0}, "with a root"),
                ({"seq": 0, "root": plain.empty_root(), "count": 0}, "with a log"),
            )
        ),
        *(
            (f"{note}\u2014 a{character}b AAAAAAA=\n", f"a signature's name with U+{ord(character):04X}", NO_SIGNATURE)
            for character in ("+\0\t\x0b\x0c\r\x1b\x1f \x85\xa0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000")
        ),
        *(
            (note + below, f"below, {below!a}", NO_SIGNATURE)
            for below in (
                "\u2014 a\n",
                "\u2014 a \n",
                "\u2014  AAAAAAA=\n",
                "\u2014 a  AAAAAAA=\n",
                "\u2014 a AAAAAAA= \n",
                "\u2013 a AAAAAAA=\n",
                "\u2014a AAAAAAA=\n",
                " \u2014 a AAAAAAA=\n",
                "\u2014 a AAAAAA==\n",
                "\u2014 a AAAA\n",
                "\u2014 a AAAAAAB=\n",
                "\u2014 a AAAAAAA\n",
                "\u2014 a AAAAAA-_\n",
                "\u2014 a AAAAAAA=\r\n",
                "more\n",
            )
        ),
        *(
            (Key(origin).signed(replace(SEVEN, origin=origin).text()), f"an origin {why}", NO_HEAD)
            for origin, why in (
                ("a" * 256, "of 256 bytes"),
                ("\u00e9" * 128, "of 256 bytes in UTF-8"),
                ("a\x7fb", "with U+007F"),
                ("a\u200bb", "with U+200B"),
                ("a\u202eb", "with U+202E"),
                ("a\ufeffb", "with U+FEFF"),
            )
        ),
    ]
    for each, why, error in cases:
        yield {"why": why, "text": each, "key": OURS.public, "error": error}


def no_keys() -> Iterator[dict[str, str]]:
    """Texts that are no public key."""
    name, digits, key = OURS.public.split("+", 2)
    for text, why in (
        ("", "nothing"),
        (f"PRIVATE+KEY+{OURS.public}", "private"),
        (f"{name}+{AGAIN.id.hex()}+{key}", "the key id of another"),
        (f"{name}x+{digits}+{key}", "another origin"),
        (f"{name}+{digits.upper()}+{key}", "digits in capitals"),
        (f"{name}+{digits}+{key[:-1]}", "cut"),
        (f"{name}+{digits}+{key}=", "padded"),
        (f"{name}+{digits}+{key}x", "longer"),
        (f"{name} +{digits}+{key}", "a space inside"),
        (f"\u00a0{OURS.public}", "another space before"),
        (f"{OURS.public}\x0b", "a vertical tab behind"),
        (f"\ufeff{OURS.public}", "a byte order mark"),
        (f"{OURS.public}\n{OURS.public}", "two lines"),
        (Key("a" * 256).public, "an origin of 256 bytes"),
        (Key("a\u2066b").public, "an origin with an invisible mark"),
    ):
        yield {"why": why, "key": text}


# ---- Proofs about commits ----


def commit_body(head: Head, before: bytes = bytes(32)) -> tuple[bytes, bytes]:
    """What stands before the path in the proof of a head's commit, and its leaf."""
    at = head.at.encode()
    body = before + head.root + u64(head.count) + u32(len(at)) + at + b"\x07" * 32
    return body, log.leaf(sha256(b"\x03" + body[:32] + u64(head.seq) + body[32:]).digest())


def paper(kind: bytes, body: bytes) -> str:
    """A proof, as digits."""
    return (b"SqSp\x01" + kind + body).hex()


def history(size: int, last: Head) -> tuple[bytes, list[bytes]]:
    """A log of so many commits, whose last is that of a head, and the proof of that before its path."""
    body, leaf = commit_body(replace(last, seq=size))
    return body, [*(log.leaf(bytes([number]) * 32) for number in range(1, size)), leaf]


def commits() -> Iterator[dict[str, Any]]:
    """Proofs of commits, under heads; with an error those that are refused."""
    for size in (1, 2, 3, 7, 8):
        body, leaves = history(size, SEVEN)
        head = replace(SEVEN, seq=size, log_root=log.tree(leaves))
        path = log.inclusion(size - 1, leaves)
        right: dict[str, Any] = {"proof": paper(b"L", body + b"".join(path)), "head": head.facts(), "seq": size}
        answer = {"seq": str(size), "root": head.root.hex(), "count": "3", "at": AT}
        yield {"why": f"the newest of {size}", **right, "answer": answer}
        error = f"commit {size} of the signed history has another root, count or time than the head says"
        for name, value in (("root", bytes(32)), ("count", 4), ("at", AT.replace("46", "47"))):
            other = replace(head, **{name: value})  # type: ignore[arg-type]
            yield {"why": f"the head's {name} is another", **right, "head": other.facts(), "error": error}
        longer = [*leaves, log.leaf(bytes(32))]
        later = replace(head, seq=size + 1, log_root=log.tree(longer), root=bytes(32), count=9)
        made = paper(b"L", body + b"".join(log.inclusion(size - 1, longer)))
        yield {"why": "an earlier one", "proof": made, "head": later.facts(), "seq": size, "answer": answer}
        yield {"why": "another log", **right, "head": replace(head, log_root=bytes(32)).facts(), "error": OTHER_PATH}
        yield {"why": "a digest more", **right, "proof": right["proof"] + "00" * 32, "error": LONG}
        yield {"why": "a byte more", **right, "proof": right["proof"] + "00", "error": NO_DIGESTS}
        if path:
            yield {"why": "a digest less", **right, "proof": right["proof"][:-64], "error": SHORT}
        else:
            yield {"why": "cut", **right, "proof": right["proof"][:-2], "error": "the proof is cut short"}
    for head, why, error in (
        (replace(SEVEN, at=AT[:-2] + "Z"), "26 bytes of time", "the proof is cut short"),
        (replace(SEVEN, at=AT[:-1] + "0Z"), "28 bytes of time", "the proof has a time that no commit has"),
        (replace(SEVEN, at=AT.lower()), "small letters", "the proof has a time that no commit has"),
        (replace(SEVEN, count=2**63), "a count of 2^63", "the proof has a number that no store can have"),
    ):
        body, leaf = commit_body(replace(head, seq=1))
        facts = replace(SEVEN, seq=1, log_root=leaf).facts()
        yield {"why": why, "proof": paper(b"L", body), "head": facts, "seq": 1, "error": error}


def consistencies() -> Iterator[dict[str, Any]]:
    """Proofs that a history goes on, from one head to another; with an error those that are refused."""
    _, leaves = history(8, SEVEN)

    def head(size: int) -> Head:
        return replace(SEVEN, seq=size, log_root=log.tree(leaves[:size])) if size else NONE

    def case(why: str, old: Head, new: Head, path: list[bytes], error: str = "") -> dict[str, Any]:
        made = {"why": why, "proof": paper(b"K", b"".join(path)), "old": old.facts(), "new": new.facts()}
        return made | ({"error": error} if error else {})

    for new in (1, 2, 3, 6, 7, 8):
        yield case("from nothing", NONE, head(new), [])
        yield case("from nothing, with a digest", NONE, head(new), [bytes(32)], HISTORY)
        error = f"the two heads say of commit {new} another root, count or time: one of them is false"
        for name, value in (("root", bytes(32)), ("count", 4), ("at", AT.replace("46", "47"))):
            other = replace(head(new), **{name: value})  # type: ignore[arg-type]
            yield case(f"one commit, another {name}", head(new), other, [], error)
        yield case("one commit, another log", head(new), replace(head(new), log_root=bytes(32)), [], HISTORY)
        yield case("one commit, with a digest", head(new), head(new), [bytes(32)], HISTORY)
        for old in range(1, new + 1):
            path = log.consistency(old, leaves[:new])
            yield case("the same" if old == new else "later", head(old), head(new), path)
            if old < new:
                error = f"the later head has {old} commits and the earlier one {new}: history was cut off"
                yield case("it shrinks", head(new), head(old), path, error)
                yield case("a digest more", head(old), head(new), [*path, bytes(32)], LONG)
    yield case(
        "nothing after something",
        head(3),
        NONE,
        [],
        "the later head has 0 commits and the earlier one 3: history was cut off",
    )
    yield case("an empty log with a root", replace(NONE, log_root=bytes(32)), head(3), [], HISTORY)
    other = replace(head(7), origin="a.example")
    yield case("two origins", head(7), other, [], f"the heads are of two origins, '{ORIGIN}' and 'a.example'")
    yield case(
        "two empty stores",
        NONE,
        replace(NONE, at=AT.replace("46", "47")),
        [],
        "the two heads say of commit 0 another root, count or time: one of them is false",
    )


def document() -> str:
    """The text of heads.json."""
    lists = {"accepted": accepted(), "refused": refused(), "no_keys": no_keys()}
    lists |= {"commits": commits(), "consistency": consistencies()}
    written = [f"{json.dumps(name)}: [\n" + ",\n".join(map(json.dumps, cases)) + "\n]" for name, cases in lists.items()]
    return ",\n".join(['{"about": ' + json.dumps(ABOUT), *written]) + "\n}\n"


def main() -> None:
    """Write the file beside this one."""
    (HERE / "heads.json").write_text(document(), encoding="ascii")


if __name__ == "__main__":
    main()
