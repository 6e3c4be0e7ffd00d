"""A tab of a real Chromium that takes keys and tells what it shows: the DevTools protocol over two pipes, standard library alone."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE_S = 30.0
NAMED = {"Enter": "\r", "Escape": "", "ArrowDown": "", "ArrowUp": ""}
"""Keys with a name, and the text that each writes."""


class Tab:
    """One page."""

    def __init__(self, home: str, to: int, back: int) -> None:
        self._home, self._to, self._back, self._number, self._rest, self._session = home, to, back, 0, b"", ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def call(self, method: str, **params: object) -> dict[str, Any]:
        """One command, and its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params} | ({"sessionId": self._session} if self._session else {})
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._read()
            if reply.get("id") == self._number:
                assert "error" not in reply, reply
                result: dict[str, Any] = reply["result"]
                return result

    def open(self, path: str) -> None:
        """Go to a page of its server."""
        self.call("Page.navigate", url=self._home + path)
        self.until("document.readyState === 'complete'")

    def value(self, script: str) -> Any:
        """What an expression gives on the page; None while the page is changing."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return found["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until an expression is true on the page."""
        end = time.monotonic() + PATIENCE_S
        while not self.value(f"try {{ Boolean({script}) && document.readyState === 'complete' }} catch (e) {{ false }}"):
            assert time.monotonic() < end, f"never true: {script}; the page says: {self.text()[:600]}"
            time.sleep(0.02)

    def text(self) -> str:
        """The words of the page, in one line."""
        return " ".join(str(self.value("document.body ? document.body.innerText : ''")).split())

    def press(self, *keys: str) -> None:
        """Keys, one after the other, as from a keyboard."""
        for key in keys:
            words = NAMED.get(key, key)
            typed = {"text": words} if words else {}
            self.call("Input.dispatchKeyEvent", type="keyDown" if words else "rawKeyDown", key=key, **typed)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def picture(self, path: Path) -> None:
        """A picture of the window."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._back, 1 << 16)
            assert part, "Chromium has ended"
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message


@contextmanager
def tab(chromium: str, folder: Path, flags: Sequence[str], home: str) -> Iterator[Tab]:
    """A new Chromium with one tab on the server at ``home``; it ends with the block."""
    read_commands, write_commands = os.pipe()
    read_replies, write_replies = os.pipe()
    command = [chromium, *flags, f"--user-data-dir={folder / 'profile'}", "--remote-debugging-pipe"]
    joined = ["/bin/bash", "-c", f'exec "$@" 3<&{read_commands} 4>&{write_replies}', "chromium", *command]
    browser = subprocess.Popen(joined, pass_fds=(read_commands, write_replies), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(read_commands)
    os.close(write_replies)
    try:
        yield Tab(home, write_commands, read_replies)
    finally:
        browser.kill()
        browser.wait()
        os.close(write_commands)
        os.close(read_replies)
