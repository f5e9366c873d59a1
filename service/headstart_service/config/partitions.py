"""How many partitions a store has, unless HEADSTART_PARTITIONS is set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

CLUSTER_PARTITIONS: Final = 12
"""Partitions of a store in a cluster, whatever its masters are.

Their number may change, and two processes may see another one at the same time. Partitions may not.
Partitions 0 to 11 use each of three or four masters, while 0 to 2 leave one of three without any.
"""
_CLUSTER: Final = "redis+cluster:"


def default_partitions(settings: Mapping[str, Any]) -> int:
    """Return the default beside these other settings."""
    url = settings.get("redis_url")
    cluster = url is not None and url.get_secret_value().strip().lower().startswith(_CLUSTER)
    return CLUSTER_PARTITIONS if cluster else 1
