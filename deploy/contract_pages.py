"""Writes what the method table implies: the verbs of tokens, the clients' service config."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from headstart._transport.endpoint import service_config as config_of
from headstart_service.api.method_table import METHOD_TABLE, Scope
from headstart_service.auth.grants import Verb

from .markers import replaced, row
from .pins import ROOT

SECURITY = ROOT / "docs" / "security.md"
SERVICE_CONFIG = ROOT / "examples" / "service-config.json"
_ATTEMPTS: Final = 4
"""The attempts that `PrecomputeClient` makes by default."""


def security(text: str) -> str:
    """Return docs/security.md with the methods that each verb allows."""
    return replaced(text, _verbs())


def _verbs() -> Iterator[str]:
    def methods(*verbs: Verb, about_runs: bool = True) -> str:
        return ", ".join(
            method.name
            for method in METHOD_TABLE.values()
            if method.verb in verbs and (method.scope is not Scope.PROCESS) is about_runs
        )

    yield row("verb", "allows, in its namespaces")
    yield "|---|---|"
    yield row("any", f"{methods(*Verb, about_runs=False)}, reflection")
    yield row("`read`", methods(Verb.READ))
    yield row("`write`", methods(Verb.WRITE))
    yield row("`metrics`", "`GET /metrics` alone; namespaces `*`")
    yield row("`admin`", "everything; alone lists and counts all namespaces at once")


def service_config(_: str) -> str:
    """Return the service config that clients in other languages pass to gRPC."""
    return json.dumps(json.loads(config_of(_ATTEMPTS)), indent=2) + "\n"
