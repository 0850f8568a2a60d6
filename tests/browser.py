"""A headless Chromium, driven through its debugging pipe; only what the tests of pages need."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe",
)  # fmt: skip


class Browser:
    """One tab; `tell` speaks the DevTools protocol."""

    def __init__(self, process: subprocess.Popen[bytes], out: int, back: int) -> None:
        self.process, self.out, self.back = process, out, back
        self.count, self.rest, self.session = 0, b"", None
        self.heard: list[dict[str, Any]] = []
        target = self.tell("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.tell("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.tell(f"{domain}.enable")

    def tell(self, method: str, **params: Any) -> dict[str, Any]:
        """A command's answer; events that come before it are kept."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self.count:
                assert "error" not in found, found["error"]
                return dict(found["result"])
            self.heard.append(found)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            part = os.read(self.back, 1 << 20)
            assert part, "the browser has gone"
            self.rest += part
        one, self.rest = self.rest.split(b"\0", 1)
        return dict(json.loads(one))

    def open(self, path: Path, width: int = 1280, dark: bool = False) -> None:
        """Show a page at a width; below 600 px as on a phone."""
        self.heard.clear()
        small = width < 600
        self.tell("Emulation.setDeviceMetricsOverride", width=width, height=844 if small else 900, mobile=small,
                  deviceScaleFactor=2 if small else 1)  # fmt: skip
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.tell("Emulation.setEmulatedMedia", features=scheme)
        self.tell("Page.navigate", url=path.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.heard):
            self.heard.append(self._next())

    def value(self, script: str) -> Any:
        """What a piece of JavaScript gives."""
        found = self.tell("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    @property
    def complaints(self) -> list[str]:
        """Errors of scripts and of the page since it was opened."""
        methods = ("Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(e["params"]) for e in self.heard if e.get("method") in methods]

    @property
    def requests(self) -> list[str]:
        """Addresses that were asked for since the page was opened, without its own and those that hold their data."""
        asked = [e["params"]["request"]["url"] for e in self.heard if e.get("method") == "Network.requestWillBeSent"]
        return [url for url in asked[1:] if not url.startswith("data:")]

    def picture(self, path: Path, full: bool = True) -> None:
        """The whole page as PNG."""
        found = self.tell("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        path.write_bytes(base64.b64decode(found["data"]))

    def pdf(self, path: Path) -> None:
        """The page as it is printed, on A4."""
        found = self.tell("Page.printToPDF", printBackground=True, paperWidth=8.27, paperHeight=11.69)
        path.write_bytes(base64.b64decode(found["data"]))


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser of its own; skips where none is installed."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium is installed; pages are tested as text only")
    theirs, ours = os.pipe()
    back, answer = os.pipe()

    def connect() -> None:
        # high numbers first: 3 and 4 may be taken by the very pipes
        low, high = os.dup(theirs), os.dup(answer)
        os.dup2(low, 3)
        os.dup2(high, 4)

    process = subprocess.Popen(
        [program, *FLAGS, f"--user-data-dir={folder}"], preexec_fn=connect, close_fds=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs)
    os.close(answer)
    try:
        yield Browser(process, ours, back)
    finally:
        process.terminate()
        process.wait(20)
        os.close(ours)
        os.close(back)
