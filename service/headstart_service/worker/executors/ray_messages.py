"""What a worker and its process that is connected to Ray send each other."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from .child_socket import message
from .remote_call import Call

_LOST: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call of a step, or with `probe` a comparison of its code on every node."""

    number: int
    label: str = ""
    """What Ray's own tools show it as."""
    call: Call | None = None
    """None to cancel the request of this number."""
    options: Mapping[str, Any] = field(default_factory=dict)
    actors: int = 1
    probe: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of a request. Number 0 is the connection: `refused` is why there is none."""

    number: int
    done: bytes = b""
    """A pickled Performed."""
    lost: str = ""
    """Why Ray has lost it, if it has."""
    refused: str = ""
    """Why no node takes it: each that could has other code, or none."""
    missing: bool = False
    """Whether those nodes cannot import it at all."""


class WorkerLink:
    """This process's end of the socket to its worker."""

    def __init__(
        self, writer: asyncio.StreamWriter, leave: Callable[[int], NoReturn] = os._exit
    ) -> None:
        """Write to `writer`; `leave` ends the process with an exit code."""
        self._writer = writer
        self._leave = leave

    def send(self, answer: Answer) -> None:
        """Send an answer without waiting."""
        self._writer.write(message(answer))

    def give_up(self, reason: str) -> NoReturn:
        """End at once: a process whose Ray has gone cannot connect to the next one."""
        answer = message(Answer(number=0, refused=reason[:300]))
        with suppress(OSError):
            os.write(self._writer.get_extra_info("socket").fileno(), answer)
        self._leave(_LOST)
