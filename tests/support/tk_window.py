"""A program of Tk on a virtual screen: what its window shows is read from the tree of its widgets."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Self

from tests import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

PATIENCE_SECONDS = 60


class WindowGone(Exception):
    """The program has ended."""


def missing() -> str:
    """Return what this machine lacks for such a program; nothing if it lacks nothing."""
    if shutil.which("Xvfb") is None:
        return "there is no Xvfb, the virtual screen"
    return "" if find_spec("_tkinter") else "this Python has no tkinter"


@contextmanager
def screen() -> Iterator[str]:
    """Start a virtual screen, and give its name."""
    command = ["Xvfb", "-displayfd", "1", "-screen", "0", "900x600x24", "-nolisten", "tcp", "-noreset"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            yield f":{server.stdout.readline().strip()}"
        finally:
            server.terminate()


class Window:
    """One such program."""

    def __init__(self, display: str, program: Path, *arguments: object, cwd: Path) -> None:
        driver = ROOT / "tests" / "support" / "tk_driver.py"
        self.process = subprocess.Popen(
            [sys.executable, str(driver), str(program), *map(str, arguments)],
            cwd=cwd,
            env=os.environ | {"DISPLAY": display, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def tcl(self, script: str) -> str:
        """Evaluate *script* in the window, and return its result."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(script) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise WindowGone from None
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE_SECONDS)
        assert ready, f"the window does not answer {script}"
        line = self.process.stdout.readline()
        if not line:
            raise WindowGone
        done, result = json.loads(line)
        if "application has been destroyed" in str(result):
            raise WindowGone
        assert done, f"{script}: {result}"
        return str(result)

    def press(self, widget: str, *keys: str) -> None:
        """Press keys, by the names that Tk has for them, with nothing in between."""
        self.tcl(f"focus -force {widget}; " + "; ".join(f"event generate {widget} <{key}>" for key in keys))

    def later(self, script: str) -> None:
        """Have *script* evaluated, and do not wait: it may open a dialog."""
        self.tcl(f"after 0 {{{script}}}")

    def type(self, widget: str, text: str) -> None:
        """Press the keys of *text*."""
        names = {" ": "space", "\n": "Return", ",": "comma", ".": "period"}
        self.press(widget, *(f"Key-{names.get(letter, letter)}" for letter in text))

    def until(self, script: str, right: Callable[[str], bool] | str) -> str:
        """Wait until *script* has the *right* result, and return it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            result = self.tcl(script)
            if result == right if isinstance(right, str) else right(result):
                return result
            assert time.monotonic() < deadline, f"{script} stays {result!r}; the window shows {self.shown()}"
            time.sleep(0.02)

    def tree(self, under: str = ".") -> Sequence[str]:
        """Return the widgets, parents first."""
        children = self.tcl(f"winfo children {under}").split()
        return [under, *(each for child in children for each in self.tree(child))]

    def shown(self, under: str = ".") -> str:
        """Return every text that is shown by labels and buttons."""
        texts = [
            self.tcl(f"if {{[catch {{{each} cget -text}} found]}} {{}} else {{set found}}") for each in self.tree(under)
        ]
        return "\n".join(filter(None, texts))

    def kill(self) -> None:
        """End it as a crash does."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def wait(self) -> str:
        """Wait for its end, and return what it said on standard error."""
        _, said = self.process.communicate(timeout=PATIENCE_SECONDS)
        assert self.process.returncode == 0, said
        return said

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()
