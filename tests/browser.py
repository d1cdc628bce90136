"""A headless Chromium, told what to do through its DevTools protocol."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

# The names that scripts/install-browser looks for.
NAMES = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--remote-debugging-port=0", "--window-size=1000,800"),
)
TIMEOUT_S = 60


class Page:
    """One tab. `problems` are the errors that its console has shown."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._num_sent = 0
        self.problems: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and give its result."""
        self._num_sent += 1
        message = {"id": self._num_sent, "method": method, "params": params}
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv(timeout=TIMEOUT_S))
            if answer.get("id") == self._num_sent:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self._hear(answer)

    def open(self, url: str) -> None:
        self.send("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """What a JavaScript expression gives on the page."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until a JavaScript expression is true."""
        end_s = time.monotonic() + TIMEOUT_S
        while not self.evaluate(expression):
            assert time.monotonic() < end_s, f"{expression} stays false; on the page: {self.text}"
            time.sleep(0.05)

    @property
    def text(self) -> str:
        """All that a person can read."""
        text: str = self.evaluate("document.body.innerText")
        return text

    def table(self, selector: str) -> list[list[str]]:
        """The cells of a table that a person can read, row by row."""
        rows = f"[...document.querySelectorAll('{selector} tr')]"
        cells: list[list[str]] = self.evaluate(
            f"{rows}.map(r => [...r.cells].map(c => c.innerText))"
        )
        return cells

    def type_into(self, selector: str, text: str) -> None:
        """Click into a field, type, and press Enter."""
        self.evaluate(f"document.querySelector('{selector}').select()")
        self.send("Input.insertText", text=text)
        for kind in ("keyDown", "keyUp"):
            enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
            self.send("Input.dispatchKeyEvent", type=kind, **enter)

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page."""
        height = self.evaluate("document.documentElement.scrollHeight")
        size = {"width": 900, "height": height, "deviceScaleFactor": 1.5, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))

    def _hear(self, event: dict[str, Any]) -> None:
        params = event["params"]
        if event["method"] == "Runtime.exceptionThrown":
            self.problems.append(str(params["exceptionDetails"]))
        elif event["method"] == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.problems.append(str(params["args"]))
        elif event["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(params["entry"]["text"])


@contextmanager
def browsing() -> Iterator[Page]:
    """Start a browser with a new, empty profile; give its tab, and end it."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    assert found, "this test needs Chromium or Chrome: run scripts/install-browser"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [found, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with connect(_address_of_tab(process, Path(profile)), max_size=None) as socket:
                yield Page(socket)
        finally:
            process.terminate()
            process.wait(TIMEOUT_S)


def _address_of_tab(process: subprocess.Popen[bytes], profile: Path) -> str:
    """Where the only tab listens, once the browser has written its port down."""
    end_s = time.monotonic() + TIMEOUT_S
    while True:
        assert process.poll() is None and time.monotonic() < end_s, "Chromium did not start"
        try:
            port = (profile / "DevToolsActivePort").read_text().split()[0]
            tabs = httpx.get(f"http://127.0.0.1:{port}/json").json()
            address: str = next(t for t in tabs if t["type"] == "page")["webSocketDebuggerUrl"]
            return address
        except (FileNotFoundError, IndexError, StopIteration, httpx.TransportError):
            time.sleep(0.1)
