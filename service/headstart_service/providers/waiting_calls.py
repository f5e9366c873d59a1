"""The calls of one provider that wait in this worker, in the order in which they ask for permits.

Namespaces take turns by start-time fair queueing, as they do where runs are claimed. Each permit
adds 1 / weight to its namespace's virtual time, and the namespace of the least is next. So the many
calls of one namespace do not keep the few of another from theirs. Within a namespace the call whose
run is needed first is first.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from typing import Final

from .call_waiter import Waiter

_REMEMBERED: Final = 1000
"""Namespaces without a waiting call whose virtual times are kept, at most."""


class WaitingCalls:
    """A fair queue. The costs of `first` depend on the namespaces, not on the calls."""

    def __init__(self, weight: Callable[[str], float] = lambda _: 1.0) -> None:
        """Share permits by the weights of namespaces, which may change."""
        self._weight = weight
        self._of: dict[str, list[Waiter]] = {}
        self._number = 0
        self._time = 0.0
        """The virtual time of the permit that was granted last."""
        self._times: dict[str, float] = {}

    def __len__(self) -> int:
        return self._number

    def __iter__(self) -> Iterator[Waiter]:
        for waiters in list(self._of.values()):
            yield from list(waiters)

    def of(self, namespace: str) -> Sequence[Waiter]:
        """Return the calls of a namespace."""
        return list(self._of.get(namespace, ()))

    def add(self, waiter: Waiter) -> None:
        """Let a call wait."""
        insort(self._of.setdefault(waiter.ask.namespace, []), waiter)
        self._number += 1

    def remove(self, waiter: Waiter) -> None:
        """Let a call wait no longer. Does nothing if it does not wait."""
        namespace = waiter.ask.namespace
        waiters = self._of.get(namespace, [])
        place = bisect_left(waiters, waiter)
        if place == len(waiters) or waiters[place] is not waiter:
            return
        del waiters[place]
        self._number -= 1
        if not waiters:
            del self._of[namespace]
        if not self._of or len(self._times) > len(self._of) + _REMEMBERED:
            # A namespace that the others have caught up with has nothing to pay.
            self._times = {
                name: time
                for name, time in self._times.items()
                if self._of and (name in self._of or time > self._time)
            }

    def first(self, number: int) -> Sequence[Waiter]:
        """Return so many calls, at most, that are next and have no answer yet."""
        heap = []
        for namespace, waiters in self._of.items():
            calls = (each for each in waiters if not each.granted.done())
            if (call := next(calls, None)) is not None:
                heap.append((self._start(namespace), call.order, namespace, call, calls))
        heapify(heap)
        found: list[Waiter] = []
        while heap and len(found) < number:
            time, _, namespace, call, calls = heappop(heap)
            found.append(call)
            if (after := next(calls, None)) is not None:
                later = time + 1 / self._weight(namespace)
                heappush(heap, (later, after.order, namespace, after, calls))
        return found

    def charge(self, waiter: Waiter) -> None:
        """Note that a call got its permit: its namespace has had a turn."""
        namespace = waiter.ask.namespace
        self._time = start = self._start(namespace)
        self._times[namespace] = start + 1 / self._weight(namespace)

    def _start(self, namespace: str) -> float:
        """Return the virtual time at which a namespace has its next turn."""
        return max(self._times.get(namespace, 0.0), self._time)
