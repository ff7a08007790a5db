"""Runs a program of Tk, and evaluates the Tcl that comes on standard input in its window: `tk_driver.py PROGRAM …`.

Every line is a JSON text of Tcl; each is answered by a JSON line, [done, result]. Tk's own loop reads them, so they
come between events as a user's keys do, also while a dialog waits.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tkinter as tk
from pathlib import Path


def listen(self: tk.Misc, n: int = 0) -> None:
    """Listen, and then wait for events."""
    lines = os.fdopen(os.dup(0), "rb", buffering=0)

    def answer(*_: object) -> None:
        line = lines.readline()
        if not line:
            self.tk.deletefilehandler(lines)
            return
        try:
            said = [True, self.tk.eval(json.loads(line))]
        except tk.TclError as e:
            said = [False, str(e)]
        os.write(1, (json.dumps(said) + "\n").encode())

    self.tk.createfilehandler(lines, tk.READABLE, answer)
    mainloop(self, n)


mainloop = tk.Misc.mainloop
if __name__ == "__main__":
    tk.Misc.mainloop = listen  # type: ignore[method-assign]
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))
    runpy.run_path(sys.argv[0], run_name="__main__")
