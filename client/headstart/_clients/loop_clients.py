"""Keeps one client for each event loop, for callers that run several loops."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from headstart._clients.client import PrecomputeClient
from headstart._transport.forks import ForkLock, keep


class LoopClient(PrecomputeClient):
    """One event loop's client."""

    def abandon(self) -> None:
        """Give up the client, unclosed if its loop has ended."""
        self._connection.abandon()


class LoopClients:
    """The clients of all event loops of this process. Any thread may call its methods."""

    def __init__(self, new_client: Callable[[], LoopClient]) -> None:
        """Keep the constructor; no client is made yet."""
        self._new_client = new_client
        self._lock = ForkLock()
        # Weak keys would free nothing: a client's channel refers to its loop.
        self._clients: dict[asyncio.AbstractEventLoop, LoopClient] = {}
        self._pid = os.getpid()

    def of_this_loop(self) -> LoopClient:
        """Return the running loop's client, and forget the clients of loops that have ended."""
        loop = asyncio.get_running_loop()
        with self._lock:
            clients = self._own()
            for stale in [each for each in clients if each.is_closed()]:
                clients.pop(stale).abandon()
            if loop not in clients:
                clients[loop] = self._new_client()
            return clients[loop]

    def close(self) -> None:
        """Close all clients whose loops run, and give up the others."""
        with self._lock:
            clients = self._own()
            self._clients = {}
        for loop, client in clients.items():
            # A channel is closed in its own loop, of this thread or another. That of a
            # loop that no longer runs is closed by its finalizer, now that nothing refers to it.
            client.abandon()
            if loop.is_running():
                closing = client.close()
                try:
                    asyncio.run_coroutine_threadsafe(closing, loop)
                except RuntimeError:  # the loop was closed meanwhile
                    closing.close()

    def _own(self) -> dict[asyncio.AbstractEventLoop, LoopClient]:
        if self._pid != os.getpid():
            keep(self._clients)  # a forked child never uses or frees the parent's loops
            self._clients, self._pid = {}, os.getpid()
        return self._clients
