"""Sources that gzip or zstd compressed. Their first bytes tell: no text in UTF-8 begins with them."""

from __future__ import annotations

import gzip
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Final, cast

from sqlstate.errors import InvalidOption
from sqlstate.importing.exact_json import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"


@contextmanager
def decompressed(stream: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    """Give the content of a stream, decompressed if it is compressed.

    Raises:
        InvalidOption: zstd compressed it, and no module for that is installed.
        SourceError: what was compressed is damaged, or cut short.
    """
    first = _first_bytes(stream)
    try:
        if first.startswith(_GZIP):
            with gzip.GzipFile(fileobj=stream) as plain:
                yield cast("IO[bytes]", plain)
        elif first.startswith(_ZSTD):
            zstd = _zstd(name)
            try:
                with zstd.open(stream) as plain:
                    yield plain
            except zstd.ZstdError as e:
                raise SourceError("", f"what zstd compressed is damaged: {e}") from None
        else:
            yield stream
    except EOFError:
        raise SourceError("", "the compressed file is cut short") from None
    except (gzip.BadGzipFile, zlib.error) as e:
        raise SourceError("", f"what gzip compressed is damaged: {e}") from None


def _first_bytes(stream: IO[bytes]) -> bytes:
    """Return the first bytes of a stream, and leave them in it; none of one that cannot do that."""
    peek = getattr(stream, "peek", None)
    if peek is not None:
        return bytes(peek(len(_ZSTD))[: len(_ZSTD)])
    if not stream.seekable():
        return b""
    at = stream.tell()
    first = stream.read(len(_ZSTD))
    stream.seek(at)
    return first


def _zstd(name: str) -> Any:
    try:
        from compression import zstd  # noqa: PLC0415, from Python 3.14 on
    except ImportError:
        try:
            from backports import zstd  # noqa: PLC0415, an extra
        except ImportError:
            raise InvalidOption(
                f"{name}: zstd compressed it, and this Python cannot read that: pip install 'sqlstate-store[zstd]'"
            ) from None
    return zstd
