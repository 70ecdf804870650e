"""
Chromium without a screen, told what to do over a pipe.

    with browser(tmp_path) as chromium:
        tab = chromium.open("http://127.0.0.1:3210/")
        tab.wait("document.title === 'Help desk'")

What is said is the DevTools protocol: JSON messages that end in a zero byte,
commands on descriptor 3 and answers on descriptor 4.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ANSWER_S_MAX = 60.0
"""Starting takes most of it, on a machine that does other things as well."""
WAIT_S_MAX = 15.0
STOP_S_MAX = 10.0

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not here")


class NotDone(AssertionError):
    """The page threw, or chromium could not do what it was asked; the message is what it said."""


class Browser:
    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = answers
        self._read = b""
        self._sent = 0

    def open(self, url: str, *, width: int = 1000, height: int = 700) -> Tab:
        """A window of its own at `url`."""
        target = self.ask(
            "Target.createTarget", url=url, newWindow=True, width=width, height=height
        )
        attached = self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        return Tab(self, attached["sessionId"])

    def ask(self, method: str, *, session: str | None = None, **params: Any) -> dict[str, Any]:
        """
        Do `method`; what it answers.

        Raises:
            NotDone: it answered with an error.
        """
        self._sent += 1
        message: dict[str, Any] = {"id": self._sent, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + ANSWER_S_MAX
        while (answer := self._next(deadline)).get("id") != self._sent:
            pass  # events, which nobody asked for
        if "error" in answer:
            raise NotDone(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._read:
            left_s = max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([self._answers], [], [], left_s)
            assert ready, f"chromium said nothing for {ANSWER_S_MAX:g} s"
            part = os.read(self._answers, 1 << 20)
            assert part, "chromium ended"
            self._read += part
        text, _, self._read = self._read.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message


class Tab:
    """One window."""

    def __init__(self, chromium: Browser, session: str) -> None:
        self._browser = chromium
        self._session = session

    def run(self, script: str) -> Any:
        """
        Evaluate JavaScript in the page; its value, awaited.

        Raises:
            NotDone: it threw, or the page it ran in was left meanwhile.
        """
        answer = self._browser.ask(
            "Runtime.evaluate",
            session=self._session,
            expression=script,
            awaitPromise=True,
            returnByValue=True,
        )
        if thrown := answer.get("exceptionDetails"):
            raise NotDone(thrown.get("exception", {}).get("description") or thrown["text"])
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """
        Wait until a JavaScript expression is true.

        One that throws is not true yet: the page may have begun to load and not have ended.

        Raises:
            AssertionError: it was not in time; the message has what it threw last, if it did.
        """
        deadline = time.monotonic() + WAIT_S_MAX
        while (why_not := self._why_not(condition)) is not None:
            if time.monotonic() > deadline:
                raise AssertionError(f"{condition} is {why_not} in:\n{self.text()}")
            time.sleep(0.05)

    def _why_not(self, condition: str) -> str | None:
        try:
            return None if self.run(condition) else "false"
        except NotDone as error:
            return f"not known ({error})"

    def type(self, selector: str, text: str) -> None:
        """Type into the field at `selector`, as a person does."""
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self._browser.ask("Input.insertText", session=self._session, text=text)

    def click(self, selector: str) -> None:
        """Press the mouse in the middle of what is at `selector`."""
        box = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        x, y = self.run(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({box})")
        for kind in ("mousePressed", "mouseReleased"):
            self._browser.ask(
                "Input.dispatchMouseEvent",
                session=self._session,
                type=kind,
                x=x,
                y=y,
                button="left",
                clickCount=1,
            )

    def text(self) -> str:
        """What the page shows; nothing while it has no body."""
        return str(self.run("document.body?.innerText ?? ''"))

    def screenshot(self, file: Path) -> None:
        """What the window shows, as PNG."""
        shot = self._browser.ask("Page.captureScreenshot", session=self._session, format="png")
        file.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser(scratch: Path) -> Iterator[Browser]:
    """A browser with nothing remembered, for the length of the block."""
    assert CHROMIUM is not None
    take, commands = os.pipe()
    answers, give = os.pipe()
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command = [CHROMIUM, *options, "--remote-debugging-pipe", f"--user-data-dir={scratch}/profile"]
    # The shell puts the two ends where the browser looks for them.
    shell = f'exec 3<&{take} 4>&{give}; exec "$@"'
    process = subprocess.Popen(
        ["bash", "-c", shell, "bash", *command],
        pass_fds=(take, give),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(take)
    os.close(give)
    try:
        yield Browser(commands, answers)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_S_MAX)
        os.close(commands)
        os.close(answers)
