"""docs/reference/tuple-keys.md, read plainly: it shares no code with sqlstate."""

from __future__ import annotations

Element = int | str | bytes


def packed(key: tuple[Element, ...]) -> bytes:
    """The bytes that a tuple is stored as."""
    out = bytearray()
    for element in key:
        if isinstance(element, int):
            out.append(1)
            out += (element + 2**63).to_bytes(8, "big")
            continue
        out.append(2 if isinstance(element, str) else 3)
        for byte in element.encode() if isinstance(element, str) else element:
            out += bytes([byte]) if byte else b"\x00\xff"
        out.append(0)
    return bytes(out)


def unpacked(raw: bytes) -> tuple[Element, ...]:
    """The reverse; ValueError if no tuple is stored like this."""
    key: list[Element] = []
    rest = list(raw)
    while rest:
        kind = rest.pop(0)
        if kind == 1:
            if len(rest) < 8:
                raise ValueError("cut short")
            key.append(int.from_bytes(rest[:8], "big") - 2**63)
            del rest[:8]
            continue
        if kind not in (2, 3):
            raise ValueError("no element")
        content = bytearray()
        while True:
            if not rest:
                raise ValueError("cut short")
            byte = rest.pop(0)
            if byte:
                content.append(byte)
            elif rest[:1] == [255]:
                del rest[0]
                content.append(0)
            else:
                break
        key.append(content.decode() if kind == 2 else bytes(content))
    return tuple(key)


def order(key: tuple[Element, ...]) -> tuple[tuple[int, Element], ...]:
    """What Python compares as tuples are ordered: each element with the rank of its kind before it."""
    return tuple(({int: 0, str: 1, bytes: 2}[type(element)], element) for element in key)
