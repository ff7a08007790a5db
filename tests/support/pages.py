"""Pages of documents: run their examples, follow their links. A check returns what is wrong with a page.

    ```python           is run; the blocks of a page share one namespace
    ```text             directly behind it: what that block prints
    ```console          lines that begin with "$ " are run by one bash; the lines behind each are what it prints
    ```python no-run    is compiled only
    ```console no-run   is left alone: what a test must not do, such as making an environment

A line `…` stands for any lines, `…` within a line for any text. Each page has an empty folder of its own, an
interpreter and a shell; `python` and `sqlstate` are those of the environment that is asked for, or of this one.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterator

FENCES = {"", "text", "sql", "json", "python", "python no-run", "console", "console no-run"}
DEADLINE = 120.0
END = "\x1e"  # what a session prints behind the output of each source

DRIVER = f"""
def drive():
    import json, os, sys, types
    feed = os.fdopen(os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    for line in feed:
        source, place, above = json.loads(line)
        exec(compile("\\n" * above + source, place, "exec"), vars(main))
        print(end={END!r}, flush=True)
drive()
"""


class Block(NamedTuple):
    """A fenced block of a page."""

    line: int
    """Of its opening fence."""
    info: str
    text: str
    adjacent: bool
    """Whether nothing but blank lines is between it and the block before."""


def blocks(page: str) -> Iterator[Block]:
    lines = enumerate(page.split("\n"), 1)
    adjacent = False
    for number, line in lines:
        if opened := re.fullmatch(r"( *)(`{3,})(.*)", line):
            inside = []
            for _, each in lines:
                if each.strip() == opened[2]:
                    break
                inside.append(each.removeprefix(opened[1]) + "\n")
            else:
                raise AssertionError(f"the fence in line {number} is not closed")
            yield Block(number, opened[3].strip(), "".join(inside), adjacent)
            adjacent = True
        elif line.strip():
            adjacent = False


class Session:
    """A process that runs one source after the other and keeps its variables: Python, or bash."""

    def __init__(self, python: str, command: list[str], folder: Path) -> None:
        environment = os.environ | {"PATH": f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"}
        if python != sys.executable:
            environment.pop("PYTHONPATH", None)
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, source: str) -> tuple[str, bool]:
        """Return what *source* printed, and whether the process could go on after it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watch = threading.Timer(DEADLINE, self._process.kill)
        watch.daemon = True
        watch.start()
        self._process.stdin.write(source.encode())
        self._process.stdin.flush()
        printed = b""
        while not printed.endswith(END.encode()):
            chunk = os.read(self._process.stdout.fileno(), 1 << 16)
            if not chunk:
                break
            printed += chunk
        watch.cancel()
        text = printed.decode(errors="replace")
        return text.removesuffix(END), text.endswith(END)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=DEADLINE)


def example_problems(page: str, place: str, folder: Path, executable: str = sys.executable) -> list[str]:
    """Run the examples of a page, up to the first that ends its session; return what is not as the page says."""
    found = []
    every = list(blocks(page))
    with ExitStack() as stack:
        python = stack.enter_context(Session(executable, [executable, "-u", "-c", DRIVER], folder))
        shell = stack.enter_context(Session(executable, ["bash", "--noprofile", "--norc"], folder))
        for block, behind in zip_longest(every, every[1:]):
            where = f"{place}:{block.line}"
            if block.info not in FENCES:
                found.append(f"{where}: {block.info!r} is not a kind of block")
            if block.info == "python no-run":
                compile(block.text, where, "exec")
            elif block.info == "python":
                shown = behind.text if behind and behind.info == "text" and behind.adjacent else None
                printed, alive = python.run(json.dumps([block.text, place, block.line]) + "\n")
                if not alive:
                    return [*found, f"{where}: the block failed:\n{printed}"]
                found += difference(where, shown, printed)
            elif block.info == "console":
                for command, shown in commands(block.text):
                    printed, alive = shell.run(f"{{ {command}\n}} </dev/null; printf '\\036'\n")
                    if not alive:
                        return [*found, f"{where}: {command} ended the shell:\n{printed}"]
                    found += difference(f"{where}: {command}", shown, printed)
    return found


def commands(console: str) -> Iterator[tuple[str, str]]:
    """Yield (command, what it prints) of a console block; a line that ends with a backslash goes on."""
    before, *parts = re.split(r"^\$ ", console, flags=re.MULTILINE)
    assert not before, f"a console block begins with '$ ', not {before!r}"
    for part in parts:
        found = re.fullmatch(r"((?:[^\n]*\\\n)*[^\n]*)\n(.*)", part, re.DOTALL)
        assert found
        yield found[1], found[2]


def difference(where: str, shown: str | None, printed: str) -> list[str]:
    """Compare what a page shows, None for nothing, with what was printed; ends of lines may have spaces."""
    if shown is None or pattern(shown).fullmatch(trimmed(printed)):
        return []
    return [f"{where}: the page shows\n{trimmed(shown)}and this was printed\n{trimmed(printed)}"]


def trimmed(text: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in text.rstrip().split("\n")) if text.strip() else ""


def pattern(shown: str) -> re.Pattern[str]:
    lines = trimmed(shown).splitlines()
    return re.compile(
        "".join(r"(?:.*\n)*?" if line == "…" else ".*?".join(map(re.escape, line.split("…"))) + r"\n" for line in lines)
    )


def prose(page: str) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^( *)(`{3,}).*?^ *\2$", "", page, flags=re.MULTILINE | re.DOTALL)


def anchors(page: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#{1,6} +(.*?) *#*$", prose(page), re.MULTILINE)
    seen = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
    return {f"{each}-{seen[:i].count(each)}" if each in seen[:i] else each for i, each in enumerate(seen)}


def link_problems(page: Path) -> list[str]:
    text = re.sub(r"`[^`\n]+`", "", prose(page.read_text(encoding="utf-8")))
    found = []
    for link in re.findall(r"\]\(<?([^)>\s]+)", text) + re.findall(r"^\[[^\]]+\]: *(\S+)", text, re.MULTILINE):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / unquote(path)).resolve() if path else page
        if not target.exists():
            found.append(f"{page.name}: {link} leads to no file")
        elif anchor and anchor not in anchors(target.read_text(encoding="utf-8")):
            found.append(f"{page.name}: {link} leads to no heading")
    return found
