"""Chromium without a window, driven through its debugging pipe; needs Debian's package `chromium` and no Python one."""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 60  # for an answer at most


def executable() -> str | None:
    """Where the browser is, if it is installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """A browser with one page. Errors and warnings of its console, and scripts that fail, are gathered in `errors`."""

    def __init__(self, folder: Path, width: int = 1280, height: int = 900):
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._number, self._left, self._session = 0, b"", None
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"]
        flags += [f"--user-data-dir={folder}", "--no-first-run", f"--window-size={width},{height}"]
        self._process, self._out, self._in = _started(executable() or NAMES[0], flags)
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.resize(width, height)

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # it has ended already
            os.write(self._out, json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
        os.close(self._out)
        while select.select([self._in], [], [], 5)[0] and os.read(self._in, 1 << 20):
            pass
        os.close(self._in)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)

    def open(self, address: str) -> None:
        """Load a page, and wait until it has loaded."""
        self.send("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def resize(self, width: int, height: int, dark: bool = False) -> None:
        """Show the page so large, in pixels, as on a light or a dark desktop."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def run(self, script: str) -> object:
        """The value of a JavaScript expression in the page. Raises AssertionError for one that fails."""
        found = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + SECONDS
        while not self.run(script):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.05)

    def press(self, x: float, y: float, kind: str = "click") -> None:
        """Click at a place of the window, or only move there."""
        events = {"move": ["mouseMoved"], "click": ["mouseMoved", "mousePressed", "mouseReleased"]}[kind]
        for event in events:
            count = {} if event == "mouseMoved" else {"button": "left", "clickCount": 1}
            self.send("Input.dispatchMouseEvent", type=event, x=x, y=y, **count)

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """Write a PNG of the window, or of the whole page."""
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def send(self, method: str, **parameters: object) -> dict:
        """The answer to a command of the Chrome DevTools Protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._note(answer.get("method"), answer.get("params", {}))

    def _note(self, event: str | None, found: dict) -> None:
        if event == "Runtime.exceptionThrown":
            self.errors.append(str(found["exceptionDetails"]))
        elif event == "Log.entryAdded" and found["entry"]["level"] in ("error", "warning"):
            self.errors.append(found["entry"]["text"])
        elif event == "Runtime.consoleAPICalled" and found["type"] in ("error", "warning", "assert"):
            self.errors.append(str(found["args"]))
        elif event == "Network.requestWillBeSent":
            self.requests.append(found["request"]["url"])

    def _receive(self) -> dict:
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._in], [], [], SECONDS)
            part = os.read(self._in, 1 << 20) if ready else b""
            assert part, "the browser does not answer, or has ended"
            self._left += part
        message, self._left = self._left.split(b"\0", 1)
        return json.loads(message)


def _started(program: str, flags: list[str]) -> tuple[int, int, int]:
    """A new process that reads commands from descriptor 3 and answers through 4: its id, and our ends of both pipes."""
    pipes = [os.pipe(), os.pipe()]
    above = [[fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in pipe] for pipe in pipes]  # 3 and 4 are the child's
    for end in (*pipes[0], *pipes[1]):
        os.close(end)
    (theirs_in, out), (back, theirs_out) = above
    actions = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_RDWR, 0) for stream in (0, 1, 2)]
    actions += [(os.POSIX_SPAWN_DUP2, theirs_in, 3), (os.POSIX_SPAWN_DUP2, theirs_out, 4)]
    process = os.posix_spawn(program, [program, *flags], os.environ, file_actions=actions)
    os.close(theirs_in)
    os.close(theirs_out)
    return process, out, back
