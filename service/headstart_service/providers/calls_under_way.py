"""Which runs of this worker have calls of a provider under way."""

from __future__ import annotations


class CallsUnderWay:
    """Counts the calls of each run; it forgets a run without one."""

    def __init__(self) -> None:
        self._calls: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def runs(self) -> set[str]:
        """The runs that have a call under way."""
        return set(self._calls)

    def began(self, run: str) -> None:
        """Count a call."""
        self._calls[run] = self._calls.get(run, 0) + 1

    def ended(self, run: str) -> None:
        """Count the end of a call."""
        left = self._calls.get(run, 0) - 1
        if left > 0:
            self._calls[run] = left
        else:
            self._calls.pop(run, None)
