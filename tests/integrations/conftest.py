"""What the tests of the adapters share."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The frameworks are for asyncio only."""
    return "asyncio"
