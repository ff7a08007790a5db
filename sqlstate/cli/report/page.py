"""Writes a report as one page of HTML, which loads nothing and runs two scripts: the verifier and its few lines.

Everything that comes from the store is escaped. Were something not, it could not run: the page's own policy allows
no script and no style but those of the digests that it names.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlstate.errors import InvalidOption
from sqlstate.files.paths import shipped

if TYPE_CHECKING:
    from collections.abc import Mapping


def check_installed() -> None:
    """Look for the package that makes pages.

    Raises:
        InvalidOption: it is not installed.
    """
    _jinja2()


def html(facts: Mapping[str, Any]) -> str:
    """Return the page.

    Args:
        facts: what facts.gather() found.

    Raises:
        InvalidOption: the package jinja2 is not installed.
    """
    jinja2 = _jinja2()
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": "{:,}".format, "size": _size}
    scripts = [_verifier(), _own("page.js")]
    style = _own("page.css")
    return str(
        environment.from_string(_own("page.html")).render(
            facts, scripts=scripts, style=style, script_digests=[*map(_digest, scripts)], style_digest=_digest(style)
        )
    )


def _jinja2() -> Any:
    try:
        import jinja2  # noqa: PLC0415, an extra
    except ImportError:
        raise InvalidOption("a report needs the package jinja2: pip install 'sqlstate-store[report]'") from None
    return jinja2


def _own(name: str) -> str:
    return Path(__file__).with_name(name).read_text("utf-8")


def _verifier() -> str:
    """Return docs/verify/verify.js, which an installation carries."""
    path = shipped("_verify/verify.js", "docs/verify/verify.js")
    if path is None:
        raise InvalidOption("the installation has no verify.js; install sqlstate-store again")
    # A comment in it shows how a page loads it, and an element <script> ends at the first of these.
    return Path(path).read_text("utf-8").replace("</script", "<\\/script")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _size(number: int) -> str:
    """Return a number of bytes for people."""
    size = float(number)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{number} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
