"""Operators' commands in processes of their own, off a terminal and on one."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from types import TracebackType
from typing import NamedTuple, Self
from unittest.mock import patch

from headstart_service.commands.cli import main
from tests.support.processes import ROOT, clean_environment

_UP, _CLEAR = re.compile(r"\x1b\[(\d+)F"), "\x1b[J"
_COLOUR = re.compile(r"\x1b\[\d*m")
_SWITCH = re.compile(r"\x1b\[\?\d+[hl]")
_ALONE = threading.Lock()
"""Held while a command runs here: the environment and the output are the whole process's."""


class Done(NamedTuple):
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


def run(*arguments: str, **environment: str) -> Done:
    """Run a `headstart` command to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "headstart_service", *arguments],
        cwd=ROOT,
        env=clean_environment() | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def run_here(*arguments: str, **environment: str) -> tuple[int, str]:
    """Run a command in this process, a second of processor time cheaper; give its code and output.

    In a thread, since tests may have an event loop. Only for commands that need no signals, as
    `serve` with wrong settings and `check-config`.
    """
    said = io.StringIO()
    return _ended_here(arguments, environment, said, said), said.getvalue()


def done_here(*arguments: str, **environment: str) -> Done:
    """Do the same as `run`, as `run_here` does it: for commands of operators that ask a server."""
    out, err = io.StringIO(), io.StringIO()
    code = _ended_here(arguments, environment, out, err)
    return Done(code, out.getvalue(), err.getvalue())


def _ended_here(
    arguments: Sequence[str], environment: Mapping[str, str], out: io.StringIO, err: io.StringIO
) -> int:
    with (
        _ALONE,
        patch.dict(os.environ, {**clean_environment(), **environment}, clear=True),
        redirect_stdout(out),
        redirect_stderr(err),
        ThreadPoolExecutor(1) as thread,
    ):
        return thread.submit(_code_of, arguments).result()


def _code_of(arguments: Sequence[str]) -> int:
    try:
        return main(arguments)
    except SystemExit as ended:  # argparse's way
        return int(ended.code or 0)


class OnTerminal:
    """A `headstart` command on a terminal of this size."""

    def __init__(self, *arguments: str, columns: int, rows: int = 24, **environment: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "headstart_service", *arguments],
            cwd=ROOT,
            env=clean_environment() | {"TERM": "xterm", "LC_ALL": "C.UTF-8"} | environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self._bytes = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.ended()
        os.close(self._master)

    def enter(self, text: str) -> None:
        """Type something."""
        os.write(self._master, text.encode())

    def ended(self) -> int:
        """Its exit code; all that it printed has been read then."""
        code = self.process.wait(60)
        self._reader.join(60)
        return code

    @property
    def printed(self) -> str:
        """Every byte so far."""
        return self._bytes.decode(errors="replace").replace("\r\n", "\n")

    @property
    def screen(self) -> list[str]:
        """What a person sees now: earlier pictures are overwritten by later ones."""
        lines = [""]
        text = _SWITCH.sub("", _COLOUR.sub("", self.printed))
        for part in re.split(r"(\x1b\[\d+F|\x1b\[J|\n)", text):
            if part == "\n":
                lines.append("")
            elif up := _UP.fullmatch(part):
                # What is moved over is cleared by what follows.
                del lines[len(lines) - int(up[1]) :]
                lines[-1] = ""
            elif part != _CLEAR:
                lines[-1] += part
        return lines

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # Linux's way to say that nobody has the other end open
                return
            if not data:
                return
            self._bytes += data
