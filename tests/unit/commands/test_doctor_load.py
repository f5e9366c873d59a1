"""What doctor asks a server about its runs, and which causes it names."""

from __future__ import annotations

from typing import Any

from headstart import HeadstartError, PermissionDenied
from headstart.v1 import precompute_pb2 as pb
from headstart_service.commands.doctor.load import check_load


class Server:
    """Answers with these counts by namespace, and with these pages of pending runs."""

    def __init__(self, stats: dict[str, pb.GetStatsResponse], *pages: list[str]) -> None:
        self.stats = stats
        self.pages = pages
        self.reason = pb.PENDING_REASON_UNSPECIFIED
        self.pauses: list[float] = []
        self.begins: list[str] = []

    def __call__(self, method: str, request: Any) -> Any:
        if method == "GetStats":
            found = self.stats.get(request.namespace)
            return found or HeadstartError("not allowed")
        assert method == "ListPrecomputes"
        assert request.statuses == [pb.PRECOMPUTE_STATUS_PENDING]
        number = int(request.page_token or 0)
        page = pb.ListPrecomputesResponse(
            next_page_token=str(number + 1) if number + 1 < len(self.pages) else ""
        )
        for name in self.pages[number] if self.pages else []:
            namespace, _, key = name.partition("/")
            page.precomputes.add(
                namespace=namespace, key=key, pipeline="probe", pending_reason=self.reason
            )
        if not number:
            self.begins.append(request.namespace)
        return page

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def found(self, namespace: str = "") -> dict[str, tuple[str, str]]:
        checks = check_load(self, namespace, self.pause)
        return {check.name: (check.verdict, check.found) for check in checks}


def counts(pending: int, running: int = 0, kept: int = 0) -> pb.GetStatsResponse:
    return pb.GetStatsResponse(
        queued_jobs=pending,
        active_tasks=running,
        total_cached=kept or pending + running,
        status_counts={"pending": pending, "in_progress": running},
        max_cached=10_000,
    )


def test_a_run_that_still_waits_a_moment_later_waits_for_a_slot() -> None:
    server = Server({"": counts(2, 64)}, ["shop/a", "shop/b"])
    assert server.found() == {"full": ("WARN", "all workers are full: 2 runs wait while 64 run")}
    assert server.pauses == [1.0]


def test_runs_that_were_taken_meanwhile_are_none() -> None:
    server = Server({"": counts(1, 64)}, ["shop/a"])

    def taken(_: float) -> None:
        server.pages = (["shop/b"],)

    checks = check_load(server, "", taken)
    assert [(check.name, check.verdict) for check in checks] == [("work", "OK")]


def test_an_empty_queue_is_not_listed_or_waited_for() -> None:
    server = Server({"": counts(0, 1)})
    assert server.found() == {"work": ("OK", "0 queued, 1 running, 1 of 10000 kept")}
    assert (server.begins, server.pauses) == ([], [])


def test_the_reason_of_pending_runs_is_read() -> None:
    server = Server({"": counts(1)}, ["shop/a"])
    server.reason = pb.PENDING_REASON_NO_WORKER
    assert server.found() == {"no worker": ("WARN", "no worker is running: 1 run waits")}
    server.reason = pb.PENDING_REASON_NO_WORKER_FOR_PIPELINE
    found = server.found()
    assert found["unserved"] == ("WARN", "no worker has the pipeline probe")
    assert "work" in found, "workers may take all others"
    assert server.pauses == [], "the reason is there at once"


def test_steps_of_other_pools_are_counted_apart_and_pools_show_how_long_runs_wait() -> None:
    stats = counts(3, 2)
    stats.pending_step_runs, stats.running_step_runs = 2, 1
    stats.pools["gpu"].CopyFrom(pb.Pool(queued=2, running=1, workers=1))
    stats.pools["gpu"].oldest_wait.FromMilliseconds(2500)
    stats.pools["idle"].workers = 2
    gpu = "gpu: 2 queued for up to 2.5 s, 1 running, 1 worker"
    work = "1 queued, 2 running and steps of other pools: 2 queued, 1 running; 5 of 10000 kept"
    assert Server({"": stats}).found() == {
        "pools": ("OK", f"{gpu}; idle: 0 queued, 0 running, 2 workers"),
        "work": ("OK", work),
    }
    stats.pools["gpu"].oldest_wait.FromSeconds(60)
    found = Server({"": stats}).found()["full"]
    assert found == (
        "WARN",
        "all workers of the pool gpu are full: 3 runs and steps of runs wait while 3 run",
    )


def test_a_namespace_is_counted_though_its_runs_fill_several_pages() -> None:
    flood = [f"robots/{number}" for number in range(300)]
    stats = {"": counts(310, 4, 400), "robots": counts(300), "shop": counts(10, 0, 90)}
    server = Server(stats, ["shop/a", "shop/b", *flood[:100]], flood[100:])
    assert server.found()["flood"] == (
        "WARN",
        "the namespace robots holds 97% of the queue: 300 of 310 pending runs",
    )
    assert "flood" not in Server(stats | {"": counts(310)}, flood).found("robots")


def test_a_token_without_the_right_learns_nothing() -> None:
    def refuses(_: str, __: Any) -> Any:
        return PermissionDenied("the token lacks admin")

    assert check_load(refuses, "") == []
