"""Sentinels and clusters of real servers that can be killed, started again and told to move slots."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from tests.support.deployments import SENTINEL_SERVICE, eventually, executable
from tests.support.valkey import free_port

SLOTS = 16384
_DOWN_AFTER = 2000
"""Milliseconds of silence after which a sentinel takes a master for dead.

It must be well above 1000. A sentinel counts them from the moment it switches to a new master, and
sends that its first PING after a second, or after as long as this if it is shorter: with 500 it takes
every new master for dead before it has asked, and promotes the one that was just replaced.
"""


class Node:
    """One server. It keeps its port and its directory when it is killed and started again."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        directory.mkdir(parents=True)
        self.directory = directory
        self.arguments = arguments
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self, *more: str) -> None:
        own = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory))
        # No preexec_fn: gRPC's threads are in this process, and Python between fork and exec crashes.
        self._process = subprocess.Popen(
            [executable(self.directory), *self.arguments, *own, *more],
            stdout=subprocess.DEVNULL,
        )
        eventually(lambda: self.asks("PING"))

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def asks(self, *command: Any) -> Any:
        """The reply; None when there is none."""
        with Redis.from_url(self.url, protocol=2) as client, suppress(RedisError, OSError):
            return client.execute_command(*command)
        return None

    @property
    def role(self) -> str:
        """`master`, or `slave` with a live link to its master; else nothing."""
        info = self.asks("INFO", "replication") or {}
        if info.get("role") == "slave" and info.get("master_link_status") != "up":
            return ""
        return str(info.get("role", ""))


class SentinelPair:
    """Two servers that replicate, and a sentinel; whichever is the master can be killed."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        at_once = ("--save", "", "--repl-diskless-sync-delay", "0")
        self.nodes = [Node(directory / name, *at_once) for name in ("a", "b")]
        first, second = self.nodes
        self.sentinel = Node(directory / "sentinel", str(directory / "sentinel.conf"), "--sentinel")
        for node in (*self.nodes, self.sentinel):
            stack.callback(node.kill)
        rules = [f"monitor {SENTINEL_SERVICE} 127.0.0.1 {first.port} 1"]
        rules += [f"down-after-milliseconds {SENTINEL_SERVICE} {_DOWN_AFTER}"]
        rules += [f"failover-timeout {SENTINEL_SERVICE} 1000"]
        (directory / "sentinel.conf").write_text("".join(f"sentinel {r}\n" for r in rules))
        first.start()
        second.start("--replicaof", "127.0.0.1", str(first.port))
        self.sentinel.start()
        eventually(lambda: second.role == "slave")
        eventually(self._sees_a_replica)

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.sentinel.port}/{SENTINEL_SERVICE}"

    @property
    def master(self) -> Node:
        reply = self.sentinel.asks("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SENTINEL_SERVICE)
        [found] = [node for node in self.nodes if str(node.port) in str(reply)]
        return found

    def fail_over(self) -> None:
        """Kill the master, wait for the other's promotion, and bring the old one back behind it."""
        old = self.master
        [heir] = [node for node in self.nodes if node is not old]
        old.kill()
        eventually(lambda: heir.role == "master" and self.master is heir, 60)
        old.start("--replicaof", "127.0.0.1", str(heir.port))
        eventually(lambda: old.role == "slave", 60)
        eventually(self._sees_a_replica, 60)

    def _sees_a_replica(self) -> bool:
        """Whether the sentinel knows a replica that it would promote."""
        replies = self.sentinel.asks("SENTINEL", "REPLICAS", SENTINEL_SERVICE) or ()
        found = [dict(zip(each[::2], each[1::2], strict=True)) for each in replies]
        healthy = (b"slave", b"ok")
        return any((each[b"flags"], each[b"master-link-status"]) == healthy for each in found)


class SixNodes:
    """A cluster of three masters, each with a replica."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.nodes = []
        for number in range(6):
            options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
            options += ("--cluster-node-timeout", "1000", "--cluster-replica-validity-factor", "0")
            options += ("--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0")
            node = Node(directory / f"node{number}", *options)
            stack.callback(node.kill)
            node.start()
            self.nodes.append(node)
        masters, replicas = self.nodes[:3], self.nodes[3:]
        for number, node in enumerate(masters):
            first, end = SLOTS * number // 3, SLOTS * (number + 1) // 3
            node.asks("CLUSTER ADDSLOTSRANGE", first, end - 1)
            node.asks("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            bus = node.arguments[3]
            self.nodes[0].asks("CLUSTER MEET", "127.0.0.1", node.port, bus)
        eventually(lambda: all(self._knows(node) == "6" for node in self.nodes), 60)
        for master, replica in zip(masters, replicas, strict=True):
            own = str((master.asks("CLUSTER MYID") or b"").decode())
            eventually(lambda r=replica, o=own: r.asks("CLUSTER REPLICATE", o), 60)
        eventually(lambda: self.healthy, 60)

    @staticmethod
    def _knows(node: Node) -> str:
        return str((node.asks("CLUSTER INFO") or {}).get("cluster_known_nodes"))

    @property
    def healthy(self) -> bool:
        """Whether every node serves, and half of them replicate the others."""
        states = [(node.asks("CLUSTER INFO") or {}).get("cluster_state") for node in self.nodes]
        roles = [node.role for node in self.nodes]
        return set(states) == {"ok"} and sorted(roles) == ["master"] * 3 + ["slave"] * 3

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"redis+cluster://{hosts}"

    @property
    def masters(self) -> list[Node]:
        return [node for node in self.nodes if node.role == "master"]

    def fail_over(self, victim: Node) -> None:
        """Kill a master, wait for its replica's promotion, and bring it back as a replica."""
        others = {node for node in self.masters if node is not victim}
        victim.kill()
        eventually(lambda: len(others | set(self.masters)) == 3, 60)
        victim.start()
        eventually(lambda: self.healthy, 60)

    def owner(self, slot: int) -> Node:
        """The master of a slot."""
        for first, last, master, *_ in self.nodes[0].asks("CLUSTER SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == master[1])
        raise AssertionError(f"nobody has slot {slot}")

    def migrate(self, slot: int, target: Node) -> None:
        """Move a slot with all its keys to another master, as `valkey-cli --cluster` does."""
        source = self.owner(slot)
        ids = [node.asks("CLUSTER MYID").decode() for node in (source, target)]
        target.asks("CLUSTER SETSLOT", slot, "IMPORTING", ids[0])
        source.asks("CLUSTER SETSLOT", slot, "MIGRATING", ids[1])
        while keys := source.asks("CLUSTER GETKEYSINSLOT", slot, 100):
            source.asks("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        for node in (target, source, *(n for n in self.masters if n not in (source, target))):
            node.asks("CLUSTER SETSLOT", slot, "NODE", ids[1])
        eventually(lambda: all(self._owner_by(n, slot) == target.port for n in self.masters), 30)

    @staticmethod
    def _owner_by(node: Node, slot: int) -> int | None:
        for first, last, master, *_ in node.asks("CLUSTER SLOTS") or ():
            if first <= slot <= last:
                return int(master[1])
        return None


@contextmanager
def sentinel_pair(directory: Path) -> Iterator[SentinelPair]:
    """A pair with its sentinel, while the context is open."""
    with ExitStack() as stack:
        yield SentinelPair(directory, stack)


@contextmanager
def six_nodes(directory: Path) -> Iterator[SixNodes]:
    """A cluster, while the context is open."""
    with ExitStack() as stack:
        yield SixNodes(directory, stack)
