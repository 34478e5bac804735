"""Chromium without a window, driven through a pipe: what a page looks like, does, and says on its console."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
LAUNCH = """import fcntl, os, sys
ends = [fcntl.fcntl(int(each), fcntl.F_DUPFD, 10) for each in sys.argv[1:3]]
for theirs, end in zip((3, 4), ends):  # Chromium reads commands from 3 and answers on 4
    os.dup2(end, theirs)
os.execv(sys.argv[3], sys.argv[3:])
"""
TROUBLE = ("Runtime.exceptionThrown", "Log.entryAdded")
PATIENCE = 60.0  # seconds


class Browser:
    """One page of a browser; a context manager that ends the browser.

    Args:
        folder: for the browser's profile.
    """

    def __init__(self, folder: Path) -> None:
        assert CHROMIUM is not None
        (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
        launch = [sys.executable, "-c", LAUNCH, str(theirs_in), str(theirs_out)]
        command = [*launch, CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}"]
        self.process = subprocess.Popen(command, pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        self.reader, self.writer = open(ours_in, "rb"), open(ours_out, "wb")  # noqa: PTH123, SIM115 - pipes, closed in __exit__
        self.sent, self.session, self.rest = 0, "", b""
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        try:
            target = self.tell("Target.createTarget", url="about:blank")["targetId"]
            self.session = self.tell("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.tell(f"{domain}.enable")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.writer.close()  # Chromium ends when its pipe does
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.close()

    def tell(self, method: str, **params: object) -> dict[str, Any]:
        """One command of the DevTools protocol; gives its result."""
        self.sent += 1
        message = {"id": self.sent, "method": method, "params": params} | ({"sessionId": self.session} if self.session else {})
        self.writer.write(json.dumps(message).encode() + b"\0")
        self.writer.flush()
        while True:
            heard = self._hear()
            if heard.get("id") == self.sent:
                assert "error" not in heard, heard["error"]
                return dict(heard["result"])
            self.events.append(heard)

    def open(self, path: Path, width: int = 1280, height: int = 900, *, dark: bool = False, address: str = "") -> None:
        """Open a file that sets `data-ready` on its root when it is."""
        self.tell("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.tell("Page.navigate", url="about:blank")
        self.events.clear()
        self.tell("Page.navigate", url=path.as_uri() + address)
        self.until("document.documentElement?.dataset.ready === 'yes'")

    def run(self, script: str) -> Any:
        """The value of an expression in the page; promises are waited for."""
        told = self.tell("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"].get("exception", {}).get("description", told)
        return told["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.run(f"Boolean({script})"):
            assert time.monotonic() < end, f"never true: {script}; {self.trouble()}"
            time.sleep(0.02)

    def press(self, key: str) -> None:
        """Press and release a key that has a name, such as `ArrowDown`."""
        for kind in ("keyDown", "keyUp"):
            codes = {"Enter": 13, "Escape": 27, "Tab": 9}
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.tell("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes.get(key, 0), **text)

    def mouse(self, x: float, y: float, *, click: bool = False) -> None:
        """Move the pointer, and click."""
        self.tell("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased") if click else ():
            self.tell("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Write what is in sight, or the whole page, as a PNG."""
        shot = self.tell("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def trouble(self) -> list[str]:
        """What the page complained about, policy violations among it."""
        return [json.dumps(each["params"])[:600] for each in self.events if each.get("method") in TROUBLE]

    def asked(self) -> list[str]:
        """Addresses that were asked for."""
        return [each["params"]["request"]["url"] for each in self.events if each.get("method") == "Network.requestWillBeSent"]

    def _hear(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            more = self.reader.read1(1 << 20)
            assert more, "the browser is gone"
            self.rest += more
        message, _, self.rest = self.rest.partition(b"\0")
        return dict(json.loads(message))
