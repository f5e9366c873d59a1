"""Write the ScaledObject of the workers: `make keda`, for another store with PARTITIONS=6 and more.

KEDA's autoscaler takes the maximum over triggers, so a trigger for each partition would see a part
of the load each. One formula adds up what all partitions hold, queued and running. The numbers are
the sizes of sets that runs leave in the transition that ends them, so a run that was cancelled or
replaced counts no more. A job in the stream, which is a ticket, would.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from headstart_service.config.partitions import CLUSTER_PARTITIONS
from headstart_service.config.settings import Settings
from headstart_service.domain import Status, pool_violation
from headstart_service.store.keys import DEFAULT_PREFIX, Installation, PartitionKeys

from .pins import ROOT

COMPONENTS = ROOT / "deploy" / "kubernetes" / "components"
KINDS: Final = {"single": "redis", "sentinel": "redis-sentinel", "cluster": "redis-cluster"}
"""KEDA's scaler for each deployment of Redis."""
_HEADER = """\
# Made by `make keda`, whose arguments fit it to another store: see docs/kubernetes.md.
"""
_DAY: Final = {"timezone": "Etc/UTC", "start": "0 6 * * *", "end": "0 22 * * *"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """What scales one Deployment of workers: a pool, or all of them."""

    name: str = "headstart-worker"
    """The Deployment's name, and the ScaledObject's."""
    queued: str = f"status:{Status.PENDING}"
    """The set of each partition that holds the queued runs."""
    running: str = f"status:{Status.IN_PROGRESS}"
    """The set of each partition that holds the runs that have a worker."""
    runs_per_worker: int = Settings.model_fields["worker_concurrency"].default
    """How many runs, queued or running, are a worker's share."""
    partitions: int = 1
    kind: str = "single"
    prefix: str = DEFAULT_PREFIX
    database: int = 0
    master: str = "mymaster"
    """The sentinels' name of it."""
    nights: bool = False
    """Whether no worker waits by night."""
    others: tuple[str, ...] = ()
    """Pools with workers of their own, whose runs stand in these sets too."""

    def formula(self) -> str:
        """Return the sum of all runs that need a worker, over all partitions."""
        names = [trigger["name"] for trigger in self._sets(self._own())]
        others = [trigger["name"] for trigger in self._sets(self._of_others())]
        # By day the cron trigger's value is 2, by night 1: a cron trigger is never 0.
        day = " + day - 1" if self.nights else ""
        return " + ".join(names) + "".join(f" - {name}" for name in others) + day

    def triggers(self) -> list[dict[str, Any]]:
        """Return a trigger for each term of the formula."""
        day = {"type": "cron", "name": "day", "metadata": _DAY | {"desiredReplicas": "2"}}
        sets = self._sets([*self._own(), *self._of_others()])
        return [*sets, *([day] if self.nights else [])]

    def _own(self) -> list[tuple[str, str]]:
        return [("queued", self.queued), ("running", self.running)]

    def _of_others(self) -> list[tuple[str, str]]:
        terms = []
        for number, pool in enumerate(self.others):
            terms.append((f"other{number}_queued", queued_in(pool)))
            terms.append((f"other{number}_running", running_in(pool)))
        return terms

    def _sets(self, terms: Sequence[tuple[str, str]]) -> Iterator[dict[str, Any]]:
        installation = Installation(self.prefix, self.database)
        # Equally long: KEDA renames a trigger whose name begins with another's.
        width = len(str(self.partitions - 1))
        for term, name in terms:
            for partition in range(self.partitions):
                metadata = {"listName": PartitionKeys(partition, installation).named(name)}
                if self.kind == "sentinel":
                    metadata["sentinelMaster"] = self.master
                if self.kind != "cluster":
                    metadata["databaseIndex"] = str(self.database)
                yield {
                    "type": KINDS[self.kind],
                    "name": f"{term}_{partition:0{width}}",
                    "metadata": metadata,
                    "authenticationRef": {"name": "headstart-redis"},
                }

    def resource(self) -> dict[str, Any]:
        """Return the ScaledObject."""
        labels = {"app.kubernetes.io/name": "headstart", "app.kubernetes.io/component": "worker"}
        return {
            "apiVersion": "keda.sh/v1alpha1",
            "kind": "ScaledObject",
            "metadata": {"name": self.name, "labels": labels},
            "spec": {
                "scaleTargetRef": {"name": self.name},
                # 0 gives the last worker back, too, after cooldownPeriod without work.
                "minReplicaCount": 0 if self.nights else 1,
                "maxReplicaCount": 20,
                "pollingInterval": 5,
                "cooldownPeriod": 300,
                # While Redis is away the workers stay: they are needed when it is back.
                "fallback": {
                    "failureThreshold": 3,
                    "replicas": 1,
                    "behavior": "currentReplicasIfHigher",
                },
                "advanced": {
                    "scalingModifiers": {
                        "formula": self.formula(),
                        "target": str(self.runs_per_worker),
                        "metricType": "AverageValue",
                    },
                    "horizontalPodAutoscalerConfig": {
                        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 120}}
                    },
                },
                "triggers": self.triggers(),
            },
        }

    def text(self) -> str:
        """Return the ScaledObject as YAML."""
        return _HEADER + yaml.safe_dump(self.resource(), sort_keys=False, width=110)


def queued_in(pool: str) -> str:
    """Name the set of each partition that holds the pool's queued runs."""
    return f"pool:{pool}:{Status.PENDING}"


def running_in(pool: str) -> str:
    """Name the set of each partition that holds the pool's runs that have a worker."""
    return f"pool:{pool}:{Status.IN_PROGRESS}"


def of_pool(pool: str, **more: Any) -> Scaling:
    """Return what scales the workers of a pool other than the default one."""
    name = f"headstart-worker-{pool}"
    return Scaling(name=name, queued=queued_in(pool), running=running_in(pool), **more)


FILES: Final = {
    COMPONENTS / "keda" / "scaledobject.yaml": Scaling(),
    COMPONENTS / "redis-cluster" / "scaledobject.yaml": Scaling(
        partitions=CLUSTER_PARTITIONS, kind="cluster"
    ),
}
"""The files that components have."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the components' files; with an argument, print one for another store instead."""
    parser = argparse.ArgumentParser(prog="python -m deploy.keda", description=__doc__)
    number = {"type": int, "metavar": "N"}
    parser.add_argument("--partitions", **number, help="HEADSTART_PARTITIONS")
    parser.add_argument("--kind", choices=KINDS, help="deployment of Redis")
    parser.add_argument("--prefix", help="HEADSTART_PREFIX")
    parser.add_argument("--database", **number, help="number of Redis' database")
    parser.add_argument("--runs-per-worker", **number, help="a worker's share of runs")
    parser.add_argument("--pool", help="a pool whose workers it scales, else those of the others")
    parser.add_argument("--without", dest="others", help="pools with workers of their own: a,b")
    parser.add_argument(
        "--nights", action="store_const", const=True, help="no idle worker from 22:00 to 6:00 UTC"
    )
    given = {name: it for name, it in vars(parser.parse_args(arguments)).items() if it is not None}
    for name, least in (("partitions", 1), ("database", 0), ("runs_per_worker", 1)):
        if name in given and given[name] < least:
            parser.error(f"--{name.replace('_', '-')}: must be {least} or more, is {given[name]}")
    pool = given.pop("pool", None)
    given |= {"others": tuple(given["others"].split(","))} if "others" in given else {}
    for name in (*([pool] if pool else []), *given.get("others", ())):
        if rule := pool_violation(name):
            parser.error(f"pool {name!r}: {rule}")
    if pool:
        print(of_pool(pool, **given).text(), end="")
        return
    if given:
        print(Scaling(**given).text(), end="")
        return
    for path, scaling in FILES.items():
        path.write_text(scaling.text())
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
