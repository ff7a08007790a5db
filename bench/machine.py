"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Final

import apsw

import sqlstate
from bench.baselines import BASELINES

_IN_MEMORY: Final = ("tmpfs", "ramfs")


def facts(folder: Path) -> dict[str, str]:
    """Return the machine, the file system of *folder*, and the versions, as lines of a header."""
    kind = file_system(folder)
    if in_memory(folder):
        kind += " (in memory: a sync costs nothing here, so the goals do not apply)"
    return {
        "machine": f"{_cpu()}, {os.cpu_count()} cores",
        "disk": f"{kind}, kernel {platform.release()}, fdatasync of one overwritten 4 KiB page {_sync_cost(folder)}",
        "versions": f"Python {platform.python_version()}, apsw {apsw.apsw_version()}, "
        f"SQLite {apsw.sqlite_lib_version()}, sqlstate {sqlstate.__version__}",
        "peers": ", ".join(dict.fromkeys(kind.version for kind in BASELINES.values() if kind.package)),
        "page cache": "warm: all files were written moments before and stay in memory, so no read waits for the disk",
    }


def load() -> str:
    """Return how many processes wanted the processor in the last minute."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def file_system(folder: Path) -> str:
    """Return the type of the file system that *folder* is on."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text()
    except OSError:
        return "unknown file system"
    place = folder.resolve()
    found, kind = -1, "unknown file system"
    for line in mounts.splitlines():
        mount, _, source = line.partition(" - ")
        at = Path(mount.split()[4].replace("\\040", " "))
        if place.is_relative_to(at) and len(at.parts) >= found:  # of two on one place, the later covers the earlier
            found, kind = len(at.parts), source.split()[0]
    return kind


def in_memory(folder: Path) -> bool:
    """Tell whether files in *folder* never reach a disk."""
    return file_system(folder) in _IN_MEMORY


def on_disk(*folders: Path) -> Path:
    """Return the first of *folders* that is not in memory, or the first if all are."""
    return next((folder for folder in folders if not in_memory(folder)), folders[0])


def scratch() -> Path:
    """Return the folder to measure in where none is chosen: on a disk if the usual one or this one is."""
    return on_disk(Path(tempfile.gettempdir()), Path.cwd())


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _sync_cost(folder: Path) -> str:
    sync = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync
    file = folder / "sync"
    descriptor = os.open(file, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        samples = []
        for _ in range(201):
            os.pwrite(descriptor, os.urandom(4096), 0)
            began = perf_counter_ns()
            sync(descriptor)
            samples.append(perf_counter_ns() - began)
    finally:
        os.close(descriptor)
        file.unlink()
    return f"{median(samples) / 1000:.0f} µs"
