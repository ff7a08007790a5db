"""Tells the logger `sqlstate` what the people who run a program should know. Ordinary work is never logged."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal


def log(level: Literal["info", "warning", "error"], message: str) -> None:
    """Log *message*. Whatever a handler raises, the caller goes on: its commit may be durable already."""
    with suppress(Exception):
        import logging  # noqa: PLC0415, takes long to import, and most processes never log

        logger = logging.getLogger("sqlstate")
        if not logger.handlers:  # without one, Python would print warnings to standard error
            logger.addHandler(logging.NullHandler())
        getattr(logger, level)("%s", message)
