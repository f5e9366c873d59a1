"""`headstart start --file`: a list of starts, the lines that fail, and what is sent how."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from headstart.testing import FakeServer, fake_server
from headstart.v1 import precompute_pb2 as pb
from headstart_service.base import exit_codes
from headstart_service.commands.cli import main
from tests.support.commands import OnTerminal
from tests.support.scripted_service import Fault, ScriptedService


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with fake_server({"words": ["a"]}) as started:
        yield started


@pytest.fixture
def start(server: FakeServer, tmp_path: Path, capsys: Any):
    def command(lines: str | bytes, *arguments: str, address: str = server.address) -> Any:
        path = tmp_path / "list.jsonl"
        path.write_bytes(lines if isinstance(lines, bytes) else lines.encode())
        code = main(["start", "--file", str(path), "--address", address, *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err.replace(f"{tmp_path}/", "")

    return command


def starts(server: FakeServer) -> list[Any]:
    return [
        start for each in server.seen("BatchStartPrecomputes") for start in each.message.requests
    ]


def test_each_line_has_a_start_of_its_own(start, server: FakeServer):
    lines = [
        {"key": "a", "pipeline": "article", "inputs": {"text": "x"}},
        {"key": "b", "pipeline": "other", "expected_need_in": "5m", "ttl": 60},
        {"key": "a", "pipeline": "article", "inputs": {"text": "x"}},
    ]
    code, out, err = start("\n".join(json.dumps(line) for line in lines) + "\n\n")
    assert (code, out, err) == (exit_codes.DONE, "reused 1, started 2\n", "")
    first, second, _ = starts(server)
    assert (first.key, first.custom.pipeline) == ("a", "article")
    assert first.custom.inputs_json == '{"text":"x"}'
    assert second.expected_need_in.ToTimedelta().total_seconds() == 300
    assert second.ttl.ToTimedelta().total_seconds() == 60


def test_bare_keys_share_what_the_options_give(start, server: FakeServer):
    options = ("--pipeline", "article", "--inputs", '{"text": "x"}', "--needed-in", "1h")
    code, out, _ = start("page-1\n  page 2  \r\n" + '{"key": "page-3", "inputs": {}}', *options)
    assert (code, out) == (exit_codes.DONE, "started 3\n")
    assert [(each.key, each.custom.inputs_json) for each in starts(server)] == [
        ("page-1", '{"text":"x"}'),
        ("page 2", '{"text":"x"}'),
        ("page-3", "{}"),
    ]
    assert starts(server)[2].expected_need_in.ToTimedelta().total_seconds() == 3600


def test_a_line_that_fails_is_told_and_stops_no_other(start, server: FakeServer):
    lines = [
        b'{"key": "a", "pipeline": "p"}',
        b'{"key": "b", "pipeline": "p", "inputs": [1]}',
        b'{"key": "c", "pipelin": "p"}',
        b"d",
        b'{"key": "e", "pipeline": "p", "ttl": "soon"}',
        b'{"key": "f", "pipeline": "p"',
        b"\xff",
        b"",
        b'{"key": "' + b"k" * 300 + b'", "pipeline": "p"}',
        b'{"key": "h", "pipeline": "p", "restart": 1}',
        b'{"key": "i", "pipeline": "p"}' + b" " * (3 << 20),
        b'{"key": "z", "pipeline": "p"}',
    ]
    code, out, err = start(b"\n".join(lines))
    assert (code, out) == (exit_codes.FAILED, "started 2, failed 9\n")
    assert [each.key for each in starts(server)] == ["a", "k" * 300, "z"]
    told = [line.removeprefix("headstart: list.jsonl:") for line in err.splitlines()]
    by_line = {int(line.split(":")[0]): line for line in told}
    assert set(by_line) == {2, 3, 4, 5, 6, 7, 9, 10, 11}
    assert by_line[2] == "2: inputs must be an object, is [1]"
    assert "pipelin" in by_line[3]
    assert "did you mean 'pipeline'" in by_line[3]
    assert by_line[4] == "4: pipeline must be a text, is missing, or give --pipeline"
    assert by_line[5] == '5: ttl must be seconds, or a text such as 5m, is "soon"'
    assert by_line[6].startswith("6: must be JSON")
    assert by_line[7].startswith("7: is not UTF-8")
    assert by_line[9].startswith("9: kkk")
    assert "key: " in by_line[9]
    assert by_line[10] == "10: restart must be true or false, is 1"
    assert by_line[11] == "11: is longer than 2097152 bytes"


def test_json_is_a_line_for_each(start):
    code, out, err = start('{"key": "a", "pipeline": "p"}\nb\n', "--json")
    assert (code, err) == (exit_codes.FAILED, "")
    by_line = {each["line"]: each for each in map(json.loads, out.splitlines())}
    started, failed = by_line[1], by_line[2]
    assert failed == {
        "line": 2,
        "key": None,
        "error": "pipeline must be a text, is missing, or give --pipeline",
    }
    assert (started["line"], started["key"], started["outcome"]) == (1, "a", "started")


def test_a_long_list_is_sent_in_batches_of_bounded_size(start, server: FakeServer):
    code, out, _ = start("".join(f"k{n}\n" for n in range(450)), "--pipeline", "p")
    assert (code, out) == (exit_codes.DONE, "started 450\n")
    sizes = [len(each.message.requests) for each in server.seen("BatchStartPrecomputes")]
    assert sizes == [200, 200, 50]
    text = "x" * 100_000
    large = [
        json.dumps({"key": f"l{n}", "pipeline": "p", "inputs": {"t": text}}) for n in range(25)
    ]
    assert start("\n".join(large))[0] == exit_codes.DONE
    sizes = [len(each.message.requests) for each in server.seen("BatchStartPrecomputes")[3:]]
    assert sizes == [10, 10, 5]


def test_it_reads_standard_input(server: FakeServer, monkeypatch, capsys):
    stdin = SimpleNamespace(buffer=io.BytesIO(b"a\nb\n"))
    monkeypatch.setattr("sys.stdin", stdin)
    code = main(["start", "--file", "-", "--pipeline", "p", "--address", server.address])
    assert (code, capsys.readouterr().out) == (exit_codes.DONE, "started 2\n")


def answered(*codes: int) -> Any:
    """Build the answer of a batch: an error for each code but 0, a start for each 0."""
    answer = pb.BatchStartPrecomputesResponse()
    for code in codes:
        result = answer.results.add()
        if code:
            result.error.code = code
            result.error.message = "no room"
            info = error_details_pb2.RetryInfo()
            info.retry_delay.FromMilliseconds(10)
            result.error.details.add().Pack(info)
        else:
            result.response.outcome = pb.START_OUTCOME_STARTED
            result.response.status = pb.PRECOMPUTE_STATUS_PENDING
    return answer


def test_what_the_server_has_no_room_for_is_sent_again(start):
    service = ScriptedService()
    full = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    service.on("BatchStartPrecomputes", answered(0, full), answered(full), answered(0))
    service.start()
    try:
        code, out, err = start("a\nb\n", "--pipeline", "p", address=service.address)
    finally:
        service.shut_down()
    assert (code, out, err) == (exit_codes.DONE, "started 2\n", "")
    sent = [
        [s.key for s in call.request.requests] for call in service.seen("BatchStartPrecomputes")
    ]
    assert sent == [["a", "b"], ["b"], ["b"]]


def test_a_call_that_fails_ends_the_list(start):
    service = ScriptedService()
    service.on("BatchStartPrecomputes", Fault(grpc.StatusCode.PERMISSION_DENIED, "not yours"))
    service.start()
    try:
        code, _, err = start("a\nb\n", "--pipeline", "p", address=service.address)
    finally:
        service.shut_down()
    assert code == exit_codes.REFUSED
    assert "not yours" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("key", "--file", "list"), "give a key, or --file with a key a line, not both"),
        (("--file", "gone.jsonl", "--pipeline", "p"), "--file gone.jsonl: No such file"),
        (("--file", "-", "--pipeline", "p", "--inputs", "-"), "cannot both read standard input"),
        (("--file", "list", "--clues", "3"), "for a bridging game alone"),
        ((), "give a key, or --file"),
    ],
)
def test_what_has_no_meaning_starts_nothing(server: FakeServer, capsys, arguments, told):
    code = main(["start", *arguments, "--address", server.address])
    assert code == exit_codes.WRONG_ARGUMENTS
    assert told in capsys.readouterr().err
    assert not starts(server)


def test_a_terminal_shows_a_bar_and_at_the_end_the_counts(server: FakeServer, tmp_path: Path):
    path = tmp_path / "list"
    path.write_text("".join(f"k{n}\n" for n in range(300)))
    arguments = ("start", "--file", str(path), "--pipeline", "p", "--address", server.address)
    with OnTerminal(*arguments, columns=80) as command:
        assert command.ended() == exit_codes.DONE
    assert "[###############.........] started 200" in command.printed
    assert command.printed.endswith("started 300\n")
