"""The operator's keys, read one by one on a thread of their own, so that nothing on the screen can delay a stop.

Knows no robot: it calls what it is given.
"""

from __future__ import annotations

import contextlib
import os
import select
import termios
import threading
import tty
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self


class Keys:
    """A context manager: inside, the terminal gives each key at once and without echo. Ctrl-C stays a signal."""

    def __init__(self, terminal: int, pressed: Callable[[str], None], gone: Callable[[], None]) -> None:
        """`terminal`: the file descriptor of a terminal. `gone` is called once when no key can come any more."""
        self._terminal, self._pressed, self._gone = terminal, pressed, gone
        self._before: list[Any] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keys", daemon=True)

    def __enter__(self) -> Self:
        self._before = termios.tcgetattr(self._terminal)
        tty.setcbreak(self._terminal)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join(1.0)
        with contextlib.suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(self._terminal, termios.TCSANOW, self._before)

    def _run(self) -> None:
        try:
            self._read()
        except OSError:  # the terminal is gone
            pass
        finally:
            if not self._ended.is_set():
                self._gone()

    def _read(self) -> None:
        while not self._ended.is_set():
            ready, _, _ = select.select([self._terminal], [], [], 0.1)
            if not ready:
                continue
            typed = os.read(self._terminal, 64)
            if not typed:  # its end
                return
            for key in typed.decode("latin-1"):
                self._pressed(key)
