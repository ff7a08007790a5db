"""Drives a headless Chromium over the pipes of its DevTools protocol: real keys, real paste, no port, no package."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-pipe",
)
# How long an answer may take before the browser is held to be stuck.
PATIENCE_SECONDS = 60
KEY_CODES = {"Tab": 9, "Enter": 13, "End": 35, "Home": 36, "ArrowUp": 38, "ArrowDown": 40}
CONTROL = 2
# The browser wants its pipes as file descriptors 3 and 4.
LAUNCH = "import os, sys; [os.dup2(int(sys.argv[n]), n + 2) for n in (1, 2)]; os.execv(sys.argv[3], sys.argv[3:])"


def chromium() -> str | None:
    """Path of the Chromium of this machine."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One Chromium with one page.

    Args:
        program: path of Chromium.
        profile: an empty folder.
        dark: whether the page is told that the user wants dark colours.
    """

    def __init__(self, program: str, profile: Path, *, dark: bool = False) -> None:
        fcntl = import_module("fcntl")  # which systems without Chromium may lack
        reads, self._write = os.pipe()
        self._read, writes = os.pipe()
        # Above the numbers that they get in the child, so that none is overwritten on the way.
        theirs = [fcntl.fcntl(each, fcntl.F_DUPFD, 10) for each in (reads, writes)]
        command = [sys.executable, "-c", LAUNCH, *map(str, theirs), program, *FLAGS, f"--user-data-dir={profile}"]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, pass_fds=theirs, stdin=quiet, stdout=quiet, stderr=quiet)
        for each in (reads, writes, *theirs):
            os.close(each)
        self._buffer = b""
        self._last = 0
        self._session = ""
        self.requests: list[str] = []
        """Every address that the page asked for."""
        self.complaints: list[str] = []
        """What the page wrote to the console, and exceptions that nobody caught."""
        try:
            target = self._call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log"):
                self._call(f"{domain}.enable")
            if dark:
                wish = {"name": "prefers-color-scheme", "value": "dark"}
                self._call("Emulation.setEmulatedMedia", features=[wish])
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the browser."""
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)

    # ---- What a person does ----

    def open(self, page: Path | str) -> None:
        """Open a file, or an address, and wait until it is loaded."""
        self._call("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def paste(self, field: str, text: str) -> None:
        """Replace what stands in the field of this id by *text*, through the clipboard."""
        self.focus(field)
        self.press("a", "selectAll")
        self._call("Input.insertText", text=text)
        if text:
            self.press("a", "selectAll")
            self.press("x", "cut")
            self.press("v", "paste")

    def choose(self, field: str, value: str) -> None:
        """Choose in a list, by keys."""
        self.focus(field)
        options = self.evaluate(f"[...document.getElementById({json.dumps(field)}).options].map((each) => each.value)")
        self.press("Home")
        for _ in range(options.index(value)):
            self.press("ArrowDown")
        assert self.evaluate(f"document.getElementById({json.dumps(field)}).value") == value

    def click(self, selector: str) -> None:
        """Click in the middle of what *selector* finds."""
        where = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{where}.scrollIntoView()")
        box = self.evaluate(f"{where}.getBoundingClientRect().toJSON()")
        middle = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **middle)

    def press(self, key: str, command: str = "") -> None:
        """Press a key; with an editing command, that key together with Control."""
        number = KEY_CODES.get(key, ord(key[0].upper()))
        facts: dict[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": number}
        if command:
            facts |= {"modifiers": CONTROL, "commands": [command], "code": f"Key{key.upper()}"}
        elif key == "Enter":
            facts["text"] = "\r"
        self._call("Input.dispatchKeyEvent", type="keyDown" if "text" in facts else "rawKeyDown", **facts)
        facts.pop("text", None)
        self._call("Input.dispatchKeyEvent", type="keyUp", **facts)

    def focus(self, field: str) -> None:
        """Move to the field of this id, which must be there to be seen."""
        found = f"document.getElementById({json.dumps(field)})"
        assert self.evaluate(f"{found}.checkVisibility()"), f"{field} is hidden"
        self.evaluate(f"{found}.focus()")

    # ---- What a person sees ----

    def text(self, selector: str) -> str:
        """What can be read there."""
        found: str = self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")
        return found

    def rows(self) -> dict[str, list[list[str]]]:
        """The tables by their captions: rows of cells, without the heads."""
        cells = "[...table.tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.innerText))"
        tables = f"[...document.querySelectorAll('table')].map((table) => [table.caption.innerText, {cells}])"
        return dict(self.evaluate(tables))

    def names(self) -> list[tuple[str, str]]:
        """Role and accessible name of all that can be filled in or pressed, seen or not."""
        nodes = self._call("Accessibility.getFullAXTree")["nodes"]
        wanted = {"textbox", "combobox", "button", "checkbox", "radio"}
        facts = [(node.get("role", {}).get("value", ""), node.get("name", {}).get("value", "")) for node in nodes]
        return [(role, name) for role, name in facts if role in wanted]

    def screenshot(self, to: Path, width: int = 900, height: int | None = None) -> None:
        """Write a picture of the whole page, or of its beginning."""
        size = {"width": width, "height": height or 900}
        self._call("Emulation.setDeviceMetricsOverride", **size, deviceScaleFactor=1, mobile=False)
        self._call("Emulation.setScrollbarsHidden", hidden=height is not None)
        taken = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=height is None)
        to.write_bytes(base64.b64decode(taken["data"]))

    def print_preview(self) -> None:
        """Show the page as it is printed."""
        self._call("Emulation.setEmulatedMedia", media="print")

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        result = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    # ---- The protocol ----

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._last += 1
        number = self._last
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer)
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self) -> dict[str, Any]:
        """The next message, noted if it tells what the page did."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], PATIENCE_SECONDS)
            data = os.read(self._read, 1 << 16) if ready else b""
            if not data:
                raise EOFError("the browser has ended, or does not answer")
            self._buffer += data
        raw, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        method, facts = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(facts["request"]["url"])
        elif method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.complaints.append(json.dumps(facts))
        return message
