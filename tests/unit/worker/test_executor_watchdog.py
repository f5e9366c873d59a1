"""Figures of the watchdog: what it interrupts, and when."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from headstart_service.worker.executors.watchdog import LoopBlocked, Piece, Watchdog


def frames(*names: str) -> Any:
    """A stack whose functions are of these modules, the innermost first."""
    frame: Any = None
    for name in reversed(names):
        frame = SimpleNamespace(f_globals={"__name__": name}, f_back=frame)
    return frame


DRIVER = "headstart_service.worker.executors.event_loop"
USER = "shop.steps"


@pytest.mark.parametrize(
    ("stack", "raises"),
    [
        ((USER, DRIVER), True),
        (("shop.prices", USER, DRIVER, "asyncio.events"), True),
        (("headstart_service.pipelines.bridging.clues", DRIVER), True),
        (("headstart_service.pipelines.bridging", USER, DRIVER), True),
        (("asyncio.locks", USER, DRIVER), False),
        (("headstart_service.worker.batching", USER, DRIVER), False),
        (("headstart_service.pipelines", USER, DRIVER), False),
        ((USER, "headstart_service.worker.cost_meter", USER, DRIVER), False),
        (("logging", USER, DRIVER), False),
        (("threading", USER, DRIVER), False),
        (("queue", USER, DRIVER), False),
        (("importlib._bootstrap", USER, DRIVER), False),
        ((USER, "importlib._bootstrap_external", USER, DRIVER), False),
        ((USER, "_frozen_importlib", USER, DRIVER), False),
        ((DRIVER, "asyncio.events"), False),
        ((), False),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else str(value),
)
def test_a_step_is_interrupted_in_its_own_code_alone(
    stack: tuple[str, ...],
    raises: bool,  # noqa: FBT001
) -> None:
    watchdog, piece = Watchdog(1.0), Piece()
    watchdog.current = watchdog.doomed = piece
    if raises:
        with pytest.raises(LoopBlocked):
            watchdog.interrupt(0, frames(*stack))
    else:
        watchdog.interrupt(0, frames(*stack))
    assert piece.interrupted is raises
    forgiven = any("importlib" in name for name in stack)
    assert (watchdog.forgiven is piece) is forgiven, "an import has as long again"
    assert watchdog.doomed is None


def test_a_signal_that_comes_late_interrupts_no_other_step() -> None:
    watchdog = Watchdog(1.0)
    watchdog.doomed, watchdog.current = Piece(), Piece()
    watchdog.interrupt(0, frames(USER, DRIVER))
    watchdog.interrupt(0, frames(USER, DRIVER))
    assert not watchdog.current.interrupted


class Looks:
    """Stands for the event that a watchdog waits for; each wait is one look."""

    watchdog: Watchdog

    def __init__(self, pieces: Sequence[Piece | None]) -> None:
        self._pieces = list(pieces)
        self.pauses: list[float] = []

    def wait(self, pause: float) -> bool:
        self.pauses.append(pause)
        if not self._pieces:
            return True
        self.watchdog.current = self._pieces.pop(0)
        return False


def watched(
    monkeypatch: pytest.MonkeyPatch,
    pieces: Sequence[Piece | None],
    forgive: Callable[[Watchdog, int], None] = lambda _, __: None,
) -> tuple[list[int], list[float]]:
    """The looks after which a signal was sent, and the pauses before each look."""
    looks = Looks(pieces)
    watchdog = Watchdog(1.0, ended=looks)  # type: ignore[arg-type]
    looks.watchdog = watchdog
    sent: list[int] = []

    def kill(thread: int | None, number: int) -> None:
        assert thread == threading.main_thread().ident
        assert watchdog.doomed is watchdog.current
        sent.append(len(looks.pauses))
        forgive(watchdog, len(sent))

    monkeypatch.setattr("headstart_service.worker.executors.watchdog.signal.pthread_kill", kill)
    watchdog.watch()
    return sent, looks.pauses


def test_a_piece_is_stopped_when_it_was_seen_once_and_then_five_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, other = Piece(), Piece()
    sent, pauses = watched(monkeypatch, [None, one, one, one, one, one, other, None, one])
    assert (sent, pauses) == ([], [0.2] * 10)
    sent, pauses = watched(monkeypatch, [one] * 8)
    assert sent == [6, 7, 8]
    # After a signal that came at a bad moment the next one is sent soon.
    assert pauses == [0.2] * 6 + [0.01] * 3


def test_an_import_under_way_has_as_long_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgive(watchdog: Watchdog, times: int) -> None:
        if times == 1:
            watchdog.forgiven = watchdog.current

    sent, _ = watched(monkeypatch, [Piece()] * 1 + [piece := Piece()] * 13, forgive)
    assert piece
    assert sent == [7, 13, 14]
