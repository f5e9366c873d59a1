"""What the store writes as text and reads back: works, ledgers, offers, workers, announcements."""

from __future__ import annotations

import json

import pytest

from headstart_service.domain import (
    Announcement,
    Fate,
    Hidden,
    Ledger,
    Offer,
    RunKey,
    Spread,
    StepRecord,
    StepState,
    StepWork,
    Work,
    WorkerState,
)
from headstart_service.store.accounting import book_from, ledger_from, work_text
from headstart_service.store.events import parse_announcement
from headstart_service.store.offers import pipeline_of, text_of
from headstart_service.store.worker_registry import about_of, worker_from


def test_the_work_of_ended_steps_is_written_in_whole_microseconds_and_never_below_none() -> None:
    steps = [
        StepRecord("a", StepState.COMPLETED, b"", StepWork(1.5, 0.25, 30)),
        StepRecord("b", StepState.FAILED, b"", StepWork(-1.0, -0.1, -5)),
        StepRecord("c", StepState.COMPLETED, b"", None),
        StepRecord("d", StepState.COMPLETED, b"", StepWork(0.0000016, 0.0, 0)),
    ]
    assert work_text(steps) == "a C 1500000 250000 30,b F 0 0 0,d C 2 0 0"
    assert work_text([]) == ""


def sums(**told: int) -> list[bytes]:
    return [text.encode() for name, n in told.items() for text in (name.replace("__", "/"), str(n))]


def test_the_sums_of_partitions_are_one_ledger() -> None:
    first = sums(since=2000, starts=5, joined=1, reused=2, hidden_us=1_500_000, waited_us=250_000)
    first += [b"used_ready.runs", b"3", b"used_ready.steps", b"6", b"used_ready.compute_us"]
    first += [b"2500000", b"used_ready.cpu_us", b"500000", b"used_ready.llm_tokens", b"70"]
    first += sums(hidden_runs__probe=2, hidden_us__probe=1_000_000)
    second = sums(since=1000, starts=4, joined=3, hidden_us=500_000)
    second += [b"expired.runs", b"1", *sums(hidden_runs__noop=1, hidden_us__noop=250_000)]
    second += sums(hidden_runs__probe=1, hidden_us__probe=2_000_000)
    found = ledger_from([book_from(first, 2), book_from(second, 3), book_from([], 7)])
    fates = dict.fromkeys(Fate, Work()) | {
        Fate.USED_READY: Work(3, 6, 2.5, 0.5, 70),
        Fate.EXPIRED: Work(1),
    }
    assert found == Ledger(
        since_us=1000,
        starts=9,
        joined=4,
        reused=2,
        open=5,
        hidden=2.0,
        waited=0.25,
        fates=fates,
        pipelines={"noop": Hidden(1, 0.25), "probe": Hidden(3, 3.0)},
    )
    assert list(found.pipelines) == ["noop", "probe"]
    alone = ledger_from([book_from(first, None)])
    assert alone is not None
    assert alone.open == 2, "of a namespace what has no fate is open"
    assert ledger_from([book_from([], 7)]) is None


def test_offers_are_a_line_for_each_class() -> None:
    offers = [Offer("probe", "v1", {}), Offer("noop", "v2", {"a": "m1", "b": "m2"})]
    assert text_of(offers) == "probe@v1 -\nnoop@v2 a=m1,b=m2"
    assert text_of([]) == ""
    assert pipeline_of("probe@v1") == "probe"


STATE = WorkerState(
    name="w1",
    host="höst",
    version="1",
    pipelines=("b", "a"),
    slots=4,
    busy=3,
    started_us=12,
    durations={"probe": {"first": Spread(1, 2, 3), "": Spread(4, 5, 6)}},
)


def test_a_worker_is_what_it_wrote_of_itself() -> None:
    text = about_of(STATE)
    assert worker_from(text.encode()) == STATE
    assert "höst" in text
    assert ", " not in text
    told = json.loads(text)
    del told["durations"]
    found = worker_from(json.dumps(told).encode())
    assert found is not None
    assert found.durations == {}


@pytest.mark.parametrize("wrong", ["", "[]", "{}", '"x"', "1"])
def test_what_is_no_worker_is_logged_and_left_out(
    wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert worker_from(wrong.encode()) is None
    assert caplog.messages == [f"not a worker of ours: {wrong.encode()!r}"]


@pytest.mark.parametrize(
    ("data", "announcement"),
    [
        ("started r2 - games:k", Announcement("started", RunKey("games", "k"), "r2")),
        (
            "started r2 r1 games:a b:c",
            Announcement("started", RunKey("games", "a b:c"), "r2", replaced="r1"),
        ),
        ("step r1 a,b games:k", Announcement("step", RunKey("games", "k"), "r1", ("a", "b"))),
        ("dropped - - games:k", Announcement("dropped", RunKey("games", "k"), "")),
        (
            "unserved r1 probe@v1 games:k",
            Announcement("unserved", RunKey("games", "k"), "r1", ("probe@v1",)),
        ),
    ],
)
def test_an_announcement_is_what_its_text_says(data: str, announcement: Announcement) -> None:
    assert parse_announcement(data.encode()) == announcement


@pytest.mark.parametrize("wrong", [b"", b"step", b"step r1 a", b"\xff - - games:k"])
def test_any_other_text_is_no_announcement(wrong: bytes) -> None:
    with pytest.raises(ValueError, match=r"unpack|decode"):
        parse_announcement(wrong)
