"""Whether what a store keeps fits together: no half-written run, no job without its record."""

from __future__ import annotations

import re
from collections.abc import Iterable

from redis import Redis

ENDED = ("completed", "failed", "cancelled")
LIVE = ("pending", "in_progress")


def inconsistencies(urls: Iterable[str], partitions: int = 1) -> list[str]:
    """What does not fit, on servers that are idle; an empty list is what a test wants."""
    found: list[str] = []
    for partition in range(partitions):
        for url in urls:
            with Redis.from_url(url, protocol=2, decode_responses=True) as client:
                if client.info("cluster")["cluster_enabled"] and not _serves(client, partition):
                    continue
                found += _of_partition(client, f"headstart:{{{partition}}}:")
    return found


def _serves(client: Redis, partition: int) -> bool:
    slot = client.execute_command("CLUSTER KEYSLOT", f"{{{partition}}}")
    return bool(client.execute_command("CLUSTER COUNTKEYSINSLOT", slot))


def _of_partition(client: Redis, prefix: str) -> list[str]:
    records = {key.removeprefix(f"{prefix}run:") for key in client.scan_iter(f"{prefix}run:*")}
    statuses = {s: set(client.zrange(f"{prefix}status:{s}", 0, -1)) for s in (*LIVE, *ENDED)}
    indexed = set().union(*statuses.values())
    ended = set().union(*(statuses[s] for s in ENDED))
    evictable = {m for name in ("read", "unread") for m in client.zrange(prefix + name, 0, -1)}
    expiring = set(client.zrange(f"{prefix}expiry", 0, -1))
    lines = set(client.hkeys(f"{prefix}unsettled"))
    jobs = {fields["member"] for _, fields in client.xrange(f"{prefix}jobs")}
    differences = {
        "records without a status, or the reverse": records ^ indexed,
        "records that never expire, or the reverse": records ^ expiring,
        "ended runs that cannot be evicted, or the reverse": ended ^ evictable,
        "live runs without a job": (indexed - ended) - jobs,
        "runs of two statuses": {
            m for m in indexed if sum(m in members for members in statuses.values()) > 1
        },
        "live runs that the ledger does not follow": (indexed - ended) - lines,
        "runs that the ledger follows though they are gone": lines - expiring,
        "starts that the ledger does not account for": _unaccounted(client, prefix, len(lines)),
        "immortal records": {m for m in records if client.ttl(f"{prefix}run:{m}") == -1},
    }
    return [f"{prefix} {what}: {sorted(who)[:5]}" for what, who in differences.items() if who]


def _unaccounted(client: Redis, prefix: str, unsettled: int) -> set[str]:
    """The difference, if the starts are not the runs of all fates and those that are open."""
    sums = {name: int(n) for name, n in client.hgetall(f"{prefix}ledger").items() if n.isdigit()}
    starts = sums.get("* starts", 0)
    fates = sum(number for name, number in sums.items() if re.fullmatch(r"\* \w+\.runs", name))
    told = f"{starts} starts, {fates} settled, {unsettled} open"
    return set() if starts == fates + unsettled else {told}
