"""How many pods the manifests ask for, by arithmetic: no cluster is needed."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

import pytest
import yaml

from deploy.keda import COMPONENTS, FILES, Scaling, main, of_pool
from deploy.manifests import render
from deploy.pool import BASE, deployment, files
from headstart_service.api.call_limits import CallKind, CallLimits
from headstart_service.api.results.near_cache import NearCache
from headstart_service.config.settings import Settings
from headstart_service.processes.monitoring import ApiMonitoring
from tests.support.autoscaler import POLL, Keda, ResourceAutoscaler, computed

TAKES = Settings.model_fields["worker_concurrency"].default
PARTITIONS = pytest.mark.parametrize("partitions", [1, 3, 6])
EMPTY = (0, 0)


class Runs:
    """Queued and running runs of each partition, as the triggers read them."""

    def __init__(self, partitions: int) -> None:
        self.queued = [0] * partitions
        self.running = [0] * partitions
        self.day = True
        self.away = False

    def spread(self, queued: int, running: int) -> None:
        """Spread them unevenly, the last partition first."""
        for sizes, total in ((self.queued, queued), (self.running, running)):
            for place in range(len(sizes)):
                sizes[place] = total // (2 * len(sizes))
            sizes[-1] += total - sum(sizes)

    def read(self, trigger: Mapping[str, Any]) -> float:
        if trigger["type"] == "cron":
            return float(trigger["metadata"]["desiredReplicas"]) if self.day else 1.0
        if self.away:
            raise ConnectionError
        key = trigger["metadata"]["listName"]
        partition = int(key.partition("{")[2].partition("}")[0])
        sizes = {"status:pending": self.queued, "status:in_progress": self.running}
        return sizes[key.partition("}:")[2]][partition]


def scaled(runs: Runs, replicas: int, **more: Any) -> Keda:
    return Keda(Scaling(partitions=len(runs.queued), **more).resource(), runs.read, replicas)


def after(scaler: Keda, seconds: float, begin: float = 0.0) -> int:
    for _ in scaler.run(begin, begin + seconds):
        pass
    return scaler.replicas


@PARTITIONS
@pytest.mark.parametrize(
    ("queued", "running", "workers"),
    [
        (0, 9 * TAKES, 9),  # full, and nothing waits
        (9 * TAKES, 9 * TAKES, 18),
        (6, 9 * TAKES, 9),  # within the tolerance
        (64, 9 * TAKES, 10),
        (1, 0, 1),
        (10_000, 9 * TAKES, 20),
        *((number, 0, max(1, ceil(number / TAKES))) for number in (63, 64, 71, 300)),
    ],
)
def test_workers_are_as_many_as_all_runs_of_all_partitions_need(
    partitions: int, queued: int, running: int, workers: int
):
    runs = Runs(partitions)
    runs.spread(queued, running)
    assert after(scaled(runs, 9 if running else 1), 300) == workers


@PARTITIONS
def test_a_load_for_nine_workers_gets_nine_and_keeps_them(partitions: int):
    runs, seen, waiting, working = Runs(partitions), [], 0.0, 0.0
    scaler, ready = scaled(runs, 1), [(0.0, 1)]
    arrivals, service = 9 * TAKES / 10, 10.0
    for now in scaler.run(0, 3600):
        ready.append((now + 20, scaler.replicas))  # a pod's start
        while len(ready) > 1 and ready[1][0] <= now:
            ready.pop(0)
        workers = min(ready[0][1], scaler.replicas)
        waiting, working = waiting + arrivals, working - working / service
        taken = max(0.0, min(waiting, workers * TAKES - working))
        waiting, working = waiting - taken, working + taken
        runs.spread(round(waiting), round(working))
        seen.append((scaler.replicas, waiting))
    assert {replicas for replicas, _ in seen[-1200:]} <= {9, 10}
    assert seen[-1][1] < 9 * TAKES


@PARTITIONS
def test_from_zero_one_run_brings_a_worker_within_a_poll_and_many_bring_many(partitions: int):
    runs = Runs(partitions)
    runs.day = False
    scaler = scaled(runs, 0, nights=True)
    assert after(scaler, 600) == 0
    runs.spread(1, 0)
    assert after(scaler, 6, 600) == 1
    runs.spread(10 * TAKES, 0)
    assert after(scaler, 61, 606) == 10


@PARTITIONS
def test_the_last_worker_goes_when_nothing_runs_for_five_minutes_and_not_by_day(partitions: int):
    runs = Runs(partitions)
    runs.day = False
    runs.spread(0, 1)
    scaler = scaled(runs, 8, nights=True)
    assert after(scaler, 1200) == 1, "it has something to end"
    runs.spread(*EMPTY)
    assert after(scaler, 290, 1200) == 1
    assert after(scaler, 30, 1490) == 0
    runs.day = True
    assert after(scaler, 1200, 1520) == 1


def test_a_lull_of_two_minutes_ends_no_worker():
    runs = Runs(3)
    runs.spread(0, 9 * TAKES)
    scaler = scaled(runs, 9)
    after(scaler, 60)
    runs.spread(*EMPTY)
    assert after(scaler, 105, 60) == 9
    assert after(scaler, 60, 165) == 1


@pytest.mark.parametrize("replicas", [0, 1, 9])
def test_while_redis_is_away_workers_stay(replicas: int):
    runs = Runs(3)
    runs.spread(0, replicas * TAKES)
    runs.day = bool(replicas)
    scaler = scaled(runs, replicas, nights=True)
    after(scaler, 60)
    runs.away = True
    assert after(scaler, 3600, 60) == max(1, replicas)
    runs.away = False
    assert after(scaler, 600, 3660) == replicas


def test_a_trigger_for_each_partition_wanted_three_workers_where_nine_are_full():
    """Why there is a formula: the autoscaler takes the maximum over triggers."""
    runs = Runs(3)
    runs.queued, runs.running = [0] * 3, [3 * TAKES] * 3
    wanted = [ceil(count / TAKES) for count in (*runs.queued, *runs.running)]
    assert max(wanted) == 3
    assert after(scaled(runs, 9), 600) == 9


@pytest.mark.parametrize(
    ("name", "scaling"),
    [
        ("base-keda", Scaling()),
        ("prod-nights", Scaling(nights=True)),
        ("prod-sentinel", Scaling(kind="sentinel")),
        ("prod-cluster", Scaling(kind="cluster", partitions=12)),
    ],
)
def test_components_ask_for_what_is_tested_here(name: str, scaling: Scaling):
    found = [each for each in yaml.safe_load_all(render(name)) if each["kind"] == "ScaledObject"]
    assert [each["spec"] for each in found] == [scaling.resource()["spec"]]


def test_the_written_files_are_current():
    for path, scaling in FILES.items():
        assert path.read_text() == scaling.text(), "run `make keda`"


@pytest.mark.parametrize("partitions", [1, 3])
def test_each_pool_is_scaled_by_its_own_runs(partitions: int):
    """All runs stand in the sets of statuses: those of a pool with workers of its own are less."""
    rest = Scaling(others=("gpu",), partitions=partitions)
    gpu = of_pool("gpu", partitions=partitions)
    runs = {"status:pending": 70, "status:in_progress": 30}
    runs |= {"pool:gpu:pending": 50, "pool:gpu:in_progress": 10}

    def asked(scaling: Scaling) -> float:
        values = {
            each["name"]: float(runs[each["metadata"]["listName"].partition("}:")[2]])
            for each in scaling.triggers()
        }
        return computed(scaling.formula(), values) / partitions

    assert asked(gpu) == 60
    assert asked(rest) == 40


def test_the_components_of_a_pool_are_current():
    for path, text in files("gpu").items():
        assert path.read_text() == text, "run `make pool`"


def test_workers_of_a_pool_are_those_of_the_base_but_for_name_and_pool():
    base, gpu = yaml.safe_load(BASE.read_text()), deployment("gpu")
    [container] = gpu["spec"]["template"]["spec"]["containers"]
    assert container["env"].pop() == {"name": "HEADSTART_POOLS", "value": "gpu"}
    assert yaml.safe_dump(gpu).replace("worker-gpu", "worker") == yaml.safe_dump(base)


@pytest.mark.parametrize("partitions", [1, 2, 10, 11, 101])
def test_no_triggers_name_begins_with_another_because_keda_would_rename_it(partitions: int):
    scaling = Scaling(partitions=partitions, nights=True)
    names = [trigger["name"] for trigger in scaling.triggers()]
    for name in names:
        assert [each for each in names if each.startswith(name)] == [name]
    assert computed(scaling.formula(), dict.fromkeys(names, 1.0)) == 2 * partitions


def test_another_store_and_another_pool_have_a_formula_of_their_own(
    capsys: pytest.CaptureFixture[str],
):
    main(["--partitions", "6", "--prefix", "shop", "--database", "2", "--runs-per-worker", "200"])
    spec = yaml.safe_load(capsys.readouterr().out)["spec"]
    assert spec["advanced"]["scalingModifiers"]["target"] == "200"
    assert [each["metadata"]["listName"] for each in spec["triggers"][:6]] == [
        f"shop:{{{partition}}}:status:pending" for partition in range(6)
    ]
    assert {each["metadata"]["databaseIndex"] for each in spec["triggers"]} == {"2"}
    pool = Scaling(name="headstart-worker-gpu", queued="queued:gpu", running="running:gpu")
    assert pool.resource()["spec"]["scaleTargetRef"] == {"name": "headstart-worker-gpu"}
    assert pool.triggers()[1]["metadata"]["listName"] == "headstart:{0}:running:gpu"


@pytest.mark.parametrize(
    ("flag", "value", "least"),
    [("--partitions", "0", 1), ("--database", "-1", 0), ("--runs-per-worker", "0", 1)],
)
def test_a_number_out_of_range_is_told_by_its_flag_and_range(
    flag: str, value: str, least: int, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit):
        main([flag, value])
    assert f"{flag}: must be {least} or more, is {value}" in capsys.readouterr().err


# The API


def api(name: str, replicas: int) -> ResourceAutoscaler:
    [found] = [
        each
        for each in yaml.safe_load_all(render(name))
        if each["kind"] == "HorizontalPodAutoscaler"
    ]
    return ResourceAutoscaler(found, replicas)


def looked(scaler: ResourceAutoscaler, totals: Mapping[str, float]) -> int:
    for number in range(80):
        scaler.look(number * POLL, totals)
    return scaler.replicas


@pytest.mark.parametrize(
    ("waiters", "cpu", "pods"),
    [(0, 10, 3), (30_000, 10, 3), (60_000, 10, 6), (60_000, 560, 8), (10**6, 10, 10)],
)
def test_api_pods_are_as_many_as_waiters_or_processor_time_need(waiters: int, cpu: int, pods: int):
    scaler = api("prod-waiters", 3)
    assert looked(scaler, {"cpu": cpu, "headstart_waiting_calls": waiters}) == pods


def test_without_the_adapter_the_api_grows_with_processor_time_alone():
    scaler = api("prod-waiters", 3)
    assert looked(scaler, {"cpu": 560}) == 8
    assert looked(api("overlay-prod", 8), {"cpu": 70}) == 3


def test_a_pod_has_room_for_twice_the_waiters_that_it_is_scaled_for():
    [found] = [
        each
        for each in yaml.safe_load_all(render("prod-waiters"))
        if each["kind"] == "HorizontalPodAutoscaler"
    ]
    [metric] = [each["pods"] for each in found["spec"]["metrics"] if each["type"] == "Pods"]
    most = Settings.model_fields["max_waiters"].default
    assert int(metric["target"]["averageValue"]) == most // 2
    [rule] = yaml.safe_load((COMPONENTS / "hpa-waiters" / "prometheus-adapter.yaml").read_text())[
        "rules"
    ]
    assert rule["name"]["as"] == metric["metric"]["name"]
    series = rule["seriesQuery"].partition("{")[0]
    monitoring = ApiMonitoring()
    monitoring.watch_calls(CallLimits(), NearCache(0), lambda: True)
    assert series in {each.name for each in monitoring.described()}
    for query in (rule["seriesQuery"], rule["metricsQuery"]):
        assert f'kind="{CallKind.WAIT}"' in query
