from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from headstart import (
    BridgingResults,
    Ledger,
    LedgerWork,
    PrecomputeStatus,
    Results,
    StepOrigin,
    StepReport,
    StepState,
    Tensor,
)
from headstart_service.base.output import (
    ago,
    clipped,
    coloured,
    plain,
    shortened,
    spoken,
    table,
)
from headstart_service.commands.check_config import rows, value_text
from headstart_service.commands.operator.accounting_view import accounting_text
from headstart_service.commands.operator.describing import described, step_cells, vector
from headstart_service.config.loading import describe, load_settings


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make standard output a terminal of 40 columns. Not a fixture: pytest takes it back then."""
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 ms"),
        (0.0004, "0.4 ms"),
        (0.035, "35 ms"),
        (0.9999, "1.0 s"),
        (1.25, "1.2 s"),
        (59.6, "60 s"),
        (119, "119 s"),
        (120, "2 min"),
        (1799.9, "30 min"),
        (7200, "2 h"),
        (172_800, "2 d"),
    ],
)
def test_a_time_is_said_as_people_say_it(seconds: float, said: str) -> None:
    assert spoken(seconds) == said


def test_a_moment_is_reported_from_now() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert ago(None, now) == ""
    assert ago(now - timedelta(seconds=3), now) == "3.0 s ago"
    assert ago(now + timedelta(minutes=30), now) == "in 30 min"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (400.0, "400"),
        (-0.5, "-0.5"),
        (1e300, "1e+300"),
        (True, "True"),
        ({"net": 400.0, "of": [1.0, 1.5, "x"]}, "{'net': 400, 'of': [1, 1.5, 'x']}"),
    ],
)
def test_a_whole_number_has_no_decimals(value: object, shown: str) -> None:
    assert str(shortened(value)) == shown


def test_whole_numbers_are_short_in_results_and_in_settings() -> None:
    text = described(results(custom={"price": {"net": 400.0}, "sizes": [1.0, 2.0, 3.0, 4.5]}))
    assert 'price: {"net": 400}' in text
    assert "sizes: [1, 2, 3, …] (4 numbers)" in text
    defaults = {name: default for name, default, _ in describe()}
    assert (defaults["result_ttl"], defaults["word_cache"]) == ("1800", "10000")
    shown = {row.variable: value_text(row.value) for row in rows(load_settings({}), {})}
    assert shown["HEADSTART_RESULT_TTL"] == "1800"


def ledger(unsettled: int = 0, **computed: float) -> Ledger:
    nothing = timedelta()
    return Ledger(
        since=datetime(2026, 1, 1, tzinfo=UTC),
        starts=unsettled + len(computed),
        joined=0,
        reused=0,
        unsettled=unsettled,
        hidden=timedelta(seconds=computed.get("used_ready", 0)),
        waited=nothing,
        fates={
            fate: LedgerWork(
                runs=1, steps=1, compute=timedelta(seconds=seconds), cpu=nothing, llm_tokens=0
            )
            for fate, seconds in computed.items()
        },
        pipelines={},
    )


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (ledger(), "nothing was started"),
        (ledger(2), "no result was read yet; 2 of 2 runs may still be"),
        (ledger(1, replaced=3.0), "no result was read yet; 1 of 2 runs may still be"),
        (ledger(0, replaced=3.0), "saved 0 s of user waiting; 100 % of the work was never read"),
        (
            ledger(1, used_ready=6.0, expired=2.0),
            "saved 6.0 s of user waiting; 25 % of the work was never read",
        ),
    ],
)
def test_what_was_saved_is_said_once_something_is_known(found: Ledger, sentence: str) -> None:
    assert accounting_text(found).splitlines()[0] == f"{sentence} (since 2026-01-01 00:00 UTC)"


def test_a_table_is_cut_where_it_is_widest_and_only_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    rows = [("KEY", "ERROR"), ("k" * 10, "e" * 100)]
    cut = table(rows).splitlines()
    assert cut[1] == f"{'k' * 10}  {'e' * 27}…"
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert table(rows).splitlines()[1] == f"{'k' * 10}  {'e' * 100}"


def test_colours_are_for_terminals_that_want_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_terminal(monkeypatch)
    assert coloured("completed", "green") == "\x1b[32mcompleted\x1b[0m"
    assert "\x1b[31mfailed\x1b[0m" in table([("STATUS",), ("failed",)])
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        with monkeypatch.context() as context:
            context.setenv(name, value)
            assert coloured("completed", "green") == "completed"
    assert coloured("completed", "green", io.StringIO()) == "completed"


def test_what_a_server_sends_cannot_move_the_cursor() -> None:
    assert "\x1b" not in table([("KEY",), ("\x1b[2J",)])
    report = StepReport(state=StepState.FAILED, error="\x1b[2J\n", elapsed=None, attempts=1)
    text = described(results(steps={"a\r": report}, error="\x1b]0;x\x07"))
    assert not any(sign in text for sign in ("\x1b", "\r", "\x07"))
    assert text.count("\n") == 2


def test_text_is_clipped_with_a_sign_that_it_was() -> None:
    assert [clipped("abcd", width) for width in (4, 3, 1)] == ["abcd", "ab…", "…"]


def results(**changes: object) -> Results:
    nothing = dict.fromkeys(("created_at", "started_at", "completed_at", "expires_at", "error"))
    fields: dict[str, object] = {
        **nothing,
        "namespace": "default",
        "key": "k",
        "pipeline": "p",
        "revision": 1,
        "status": PrecomputeStatus.COMPLETED,
        "steps": {},
        "bridging": None,
        "custom": None,
    }
    return Results(**(fields | changes))  # type: ignore[arg-type]


def test_embeddings_are_summarised_and_words_are_whole() -> None:
    embedding = tuple(i / 1000 for i in range(384))
    bridging = BridgingResults(
        anchor_embedding=embedding,
        target_embedding=None,
        haiku_clues=("moss",),
        haiku_embeddings=None,
        lexical_bridge=("river", "rain"),
        lexical_embeddings=(embedding, embedding),
        null_samples=(0.1, 0.2, 0.4),
        embedding_model="m",
    )
    assert described(results(bridging=bridging)).splitlines()[2:] == [
        "anchor embedding: [0.000, 0.001, 0.002, …] (384 numbers)",
        "lexical bridge: river, rain",
        "lexical bridge, embeddings: 2 of 384 numbers",
        "haiku's bridge: moss",
        "null samples: 3 from 0.100 to 0.400, median 0.200",
        "embedding model: m",
    ]


def test_values_of_other_pipelines_are_short() -> None:
    custom = {
        "text": "x" * 500,
        "vector": [0.5] * 100,
        "tensor": Tensor.of((1.0, 2.0, 3.0, 4.0), shape=(2, 2)),
        "data": b"abc",
        "number": 5,
        "ids": [2**53 + 1, 1, 2, 3],
        "int64": Tensor.of((2**53 + 1, 1), "int64"),
        "flags": [True, False, True, False],
    }
    lines = described(results(custom=custom)).splitlines()[2:]
    assert max(map(len, lines)) < 120
    assert lines[1:] == [
        "vector: [0.500, 0.500, 0.500, …] (100 numbers)",
        "tensor: tensor 2 by 2: [1, 2, 3, …] (4 numbers)",
        "data: 3 bytes",
        "number: 5",
        "ids: [9007199254740993, 1, 2, 3]",
        "int64: tensor 2: [9007199254740993, 1] (2 numbers)",
        "flags: [true, false, true, false]",
    ]
    assert vector([1.0]) == "[1] (1 numbers)"


def test_scripts_get_a_tensors_numbers() -> None:
    tensor = Tensor.of((0.5, 2.0), "float64", shape=(2, 1))
    assert plain(tensor) == {"dtype": "float64", "shape": [2, 1], "values": [0.5, 2.0]}


@pytest.mark.parametrize("origin", ["kept", "memoised", "reported"])
def test_a_step_that_was_not_computed_shows_where_its_result_comes_from(origin: str) -> None:
    report = StepReport(
        state=StepState.COMPLETED,
        error=None,
        elapsed=timedelta(seconds=1),
        attempts=1,
        origin=StepOrigin(origin),
    )
    assert step_cells(report) == (origin, "1", "")
    assert step_cells(replace(report, origin=StepOrigin.COMPUTED)) == ("1.0 s", "1", "")
    running = replace(report, state=StepState.RUNNING, elapsed=None)
    assert step_cells(running) == ("", "1", "")
    failed = replace(report, state=StepState.FAILED, error="no")
    assert step_cells(failed) == ("1.0 s", "1", "no")
