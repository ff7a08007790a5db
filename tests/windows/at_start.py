"""What each Python under wine does as it starts, as its sitecustomize.py: around what wine lacks."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

# Wine ends a process that calls it; shutil does without.
vars(import_module("_winapi")).pop("CopyFile2", None)

# To ask of a file takes wine a millisecond, and an import asks three times for each module, of which hundreds stay.
_files: Any = import_module("_frozen_importlib_external")
_ask = _files._path_stat
_TREES = (sys.prefix, os.environ.get("PYTHONPATH") or sys.prefix)
_known: dict[str, Any] = {}


def _stat(path: str) -> Any:
    if path not in _known:
        found = _ask(path)
        if not path.startswith(_TREES):
            return found
        _known[path] = found
    return _known[path]


_files._path_stat = _stat
