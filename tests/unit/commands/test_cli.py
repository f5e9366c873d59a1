"""The command line: exit codes, help, what it prints, and what it does not import."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

import headstart
from headstart.v1 import precompute_pb2 as pb
from headstart_service.commands.cli import SERVER_COMMANDS, main
from headstart_service.config.settings import Settings, variable
from tests.support.scripted_service import Fault, ScriptedService

OPERATOR_COMMANDS = (
    "start",
    "get",
    "watch",
    "list",
    "cancel",
    "delete",
    "touch",
    "stats",
    "pipelines",
    "doctor",
)
COMMANDS = (*SERVER_COMMANDS, *OPERATOR_COMMANDS, "dev", "token", "completion")
SERVICE = "headstart.v1.PrecomputeService"
SECRET = "hunter2"
CODES = {
    "known": None,
    "wrong": grpc.StatusCode.INVALID_ARGUMENT,
    "late": grpc.StatusCode.DEADLINE_EXCEEDED,
    "nobody": grpc.StatusCode.UNAUTHENTICATED,
    "forbidden": grpc.StatusCode.PERMISSION_DENIED,
    "full": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "broken": grpc.StatusCode.INTERNAL,
}
"""What the service answers about these keys; of others it knows nothing."""


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("HEADSTART_", "ANTHROPIC_")):
            monkeypatch.delenv(name)
    # A worker sets these in its own process, which is this one here.
    for pool in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.setenv(pool, os.environ.get(pool, "1"))


class Games(ScriptedService):
    """Knows one run, called `known`."""

    def __init__(self) -> None:
        super().__init__()
        self.unfinished = False
        self.status: Any = pb.PRECOMPUTE_STATUS_COMPLETED
        summary = pb.PrecomputeSummary(
            namespace="default", key="known", status=pb.PRECOMPUTE_STATUS_COMPLETED, revision=1
        )
        pipeline = pb.PipelineDescription(name="bridging", version="1")
        pipeline.steps.add(name="embed_endpoints", required=True).timeout.FromSeconds(60)
        self.on("StartPrecompute", self._started)
        self.on("GetResults", self._results)
        self.on("CancelPrecompute", self._cancelled)
        self.on("DeletePrecompute", pb.DeletePrecomputeResponse(key="known", deleted=True))
        kept = pb.TouchPrecomputeResponse(key="known", status=pb.PRECOMPUTE_STATUS_COMPLETED)
        kept.expires_at.FromSeconds(2_000_000_000)
        self.on("TouchPrecompute", kept)
        self.on("ListPrecomputes", pb.ListPrecomputesResponse(precomputes=[summary, summary]))
        self.on(
            "GetStats",
            pb.GetStatsResponse(total_cached=1, max_cached=5, status_counts={"completed": 1}),
        )
        self.on("ListPipelines", pb.ListPipelinesResponse(pipelines=[pipeline]))

    @property
    def requests(self) -> list[Any]:
        return [call.request for call in self.calls]

    async def _find(self, request: Any, context: Any) -> None:
        code = CODES.get(request.key, grpc.StatusCode.NOT_FOUND)
        if code is not None:
            await Fault(code, f"about {request.key}").raise_in(context)

    async def _started(self, request: Any, context: Any) -> Any:
        await self._find(request, context)
        return pb.StartPrecomputeResponse(
            key=request.key,
            outcome=pb.START_OUTCOME_STARTED,
            status=pb.PRECOMPUTE_STATUS_PENDING,
            revision=1,
        )

    async def _results(self, request: Any, context: Any) -> Any:
        await self._find(request, context)
        results = pb.GetResultsResponse(
            key=request.key, pipeline="bridging", revision=1, status=self.status
        )
        if self.unfinished:
            results.steps["null_samples"].state = pb.STEP_STATE_RUNNING
        results.steps["lexical_bridge"].state = pb.STEP_STATE_COMPLETED
        results.bridging.lexical_bridge.extend(["river", "rain"])
        return results

    async def WatchResults(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        self.record("WatchResults", request, context)
        yield pb.WatchResultsResponse(results=await self._results(request, context))

    async def _cancelled(self, request: Any, context: Any) -> Any:
        await self._find(request, context)
        return pb.CancelPrecomputeResponse(
            key=request.key, cancelled=True, status=pb.PRECOMPUTE_STATUS_CANCELLED, revision=1
        )


@pytest.fixture
def games() -> Iterator[Games]:
    made = Games()
    made.start()
    yield made
    made.shut_down()


@pytest.fixture
def run(games: Games, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run an operator's command on the fake service: its exit code, output and complaints."""

    def command(*arguments: str) -> tuple[int, str, str]:
        code = main([*arguments, "--address", games.address])
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def wrong_arguments(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [[], *([c] for c in COMMANDS), ["vocabulary", "build"], ["pipelines", "run"]]
)
def test_help_of_every_command_works(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: {' '.join(['headstart', *command])}")


def test_help_names_each_setting_with_its_from_environmentand_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--grpc-port VALUE gRPC port; 0 picks a free one. [HEADSTART_GRPC_PORT]" in text
    assert "(default: 50051)" in text
    assert "--no-worker" in text
    for key in ("--anthropic-api-key ", "--openai-api-key "):
        assert key not in text, "process arguments are no place for a secret"


def test_wrong_arguments_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert "COMMAND" in wrong_arguments(capsys)
    assert "nope" in wrong_arguments(capsys, "nope")
    assert "key" in wrong_arguments(capsys, "get")
    assert "--nope" in wrong_arguments(capsys, "stats", "--nope")
    assert "--nope" in wrong_arguments(capsys, "serve", "--nope")
    for misplaced in (["--address", "localhost:1", "stats"], ["--address=localhost:1", "stats"]):
        message = wrong_arguments(capsys, *misplaced)
        assert "--address stands before COMMAND: options stand after it" in message


def test_the_version_is_the_clients(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"headstart {headstart.__version__}\n"


def test_a_game_is_started_with_what_was_given(run: Any, games: Games) -> None:
    code, out, _ = run(
        *("start", "known", "ocean", "forest", "--recipient", "haiku", "--clues", "7"),
        *("--ttl", "60", "--needed-in", "45"),
    )
    assert code == 0
    assert "started: revision 1, pending" in out
    (request,) = games.requests
    assert request.bridging.clue_count == 7
    assert request.bridging.recipient_type == pb.RECIPIENT_TYPE_HAIKU
    assert request.ttl.seconds == 60
    assert request.expected_need_in.seconds == 45


def test_another_pipeline_is_started_with_its_inputs(run: Any, games: Games) -> None:
    assert run("start", "known", "--pipeline", "p", "--inputs", '{"a": [1]}', "--restart")[0] == 0
    assert not games.requests[0].HasField("expected_need_in")
    (request,) = games.requests
    assert request.custom.pipeline == "p"
    assert request.custom.inputs_json == '{"a":[1]}'
    assert request.restart


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["known"], "give an anchor and a target"),
        (["known", "ocean"], "give an anchor and a target"),
        (["known", "ocean", "forest", "--pipeline", "p"], "anchor: for a bridging game alone"),
        (["known", "--pipeline", "p", "--clues", "3"], "--clues: for a bridging game alone"),
        (["known", "ocean", "forest", "--inputs", "{}"], "--inputs needs --pipeline"),
        (["known", "--pipeline", "p", "--inputs", "[1]"], "--inputs must be a JSON object"),
        (["known", "--pipeline", "p", "--inputs", "{"], "double quotes"),
        (["known", "--pipeline", "p", "--inputs", '{"a": 1, "a": 2}'], "has 'a' twice"),
        (
            ["known", "--pipeline", "p", "--inputs", '{"a": 1e999}'],
            "--inputs numbers must be within",
        ),
        (["wrong", "a", "b"], "about wrong"),
    ],
)
def test_a_start_that_cannot_be_exits_with_2(
    run: Any, arguments: list[str], complaint: str
) -> None:
    code, out, err = run("start", *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("headstart: ")
    assert complaint in err


@pytest.mark.parametrize("command", ["get", "watch", "cancel"])
def test_an_unknown_key_exits_with_3(run: Any, command: str) -> None:
    code, out, err = run(command, "unknown")
    assert (code, out) == (3, "")
    assert "about unknown" in err


def test_several_keys_are_cancelled_and_an_unknown_one_stops_none(run: Any) -> None:
    code, out, err = run("cancel", "known", "unknown", "known")
    assert (code, out) == (3, "known: cancelled: cancelled\n" * 2)
    assert err.startswith("headstart: ")
    assert "about unknown" in err
    code, out, _ = run("cancel", "known", "known", "--json")
    assert (code, [json.loads(line)["key"] for line in out.splitlines()]) == (0, ["known"] * 2)


def test_a_revision_is_of_one_key(run: Any) -> None:
    code, out, err = run("cancel", "known", "late", "--revision", "1")
    assert (code, out) == (2, "")
    assert "--revision" in err


@pytest.mark.parametrize("command", OPERATOR_COMMANDS[:-1])
def test_every_operators_command_prints_text_and_json(run: Any, command: str) -> None:
    arguments = {
        "start": ["known", "a", "b"],
        "get": ["known"],
        "watch": ["known"],
        "cancel": ["known"],
        "delete": ["known"],
        "touch": ["known", "--ttl", "1h"],
    }.get(command, [])
    code, text, err = run(command, *arguments)
    assert (code, err) == (0, "")
    assert text.strip()
    code, out, err = run(command, *arguments, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)


def test_results_are_shown_as_a_table_of_steps(run: Any) -> None:
    _, out, _ = run("get", "known")
    assert "known revision 1: completed" in out
    assert "lexical bridge: river, rain" in out


@pytest.mark.parametrize(
    ("key", "expected"), [("late", 4), ("nobody", 5), ("forbidden", 5), ("full", 6), ("broken", 1)]
)
def test_each_kind_of_error_has_its_exit_code(run: Any, key: str, expected: int) -> None:
    code, out, err = run("get", key)
    assert (code, out) == (expected, "")
    assert f"about {key}" in err
    assert err.startswith("headstart: ")
    assert err.count("\n") == 1


def test_an_answer_that_takes_longer_than_the_timeout_exits_with_4(run: Any, games: Games) -> None:
    gone = threading.Event()
    allowed = []

    async def wait(_: Any, context: Any) -> None:
        allowed.append(context.time_remaining())
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()

    games.on("GetStats", wait)
    for timeout in (0.1, 1, 10):  # until one is long enough for a busy machine
        assert run("stats", "--timeout", f"{timeout}s")[0] == 4
        if allowed:
            break
    assert gone.wait(20), "the server received the deadline"
    assert max(allowed) < timeout + 1, "gRPC may round it up"


def test_complete_reports_a_partial_answer_by_its_exit_code(run: Any, games: Games) -> None:
    assert run("get", "known", "--complete")[0] == 0
    games.unfinished = True
    assert run("get", "known")[0] == 0
    code, out, err = run("get", "known", "--complete")
    assert code == 7
    assert "river" in out
    assert err == "headstart: no result of null_samples\n"
    assert run("get", "known", "--complete", "--step", "lexical_bridge")[0] == 0
    assert games.requests[-1].required_steps == ["lexical_bridge"]
    assert run("watch", "known", "--complete")[0] == 7


def test_a_watch_exits_with_1_when_the_run_has_failed(run: Any, games: Games) -> None:
    assert run("watch", "known")[0] == 0
    games.status = pb.PRECOMPUTE_STATUS_FAILED
    assert run("watch", "known")[0] == 1
    assert run("get", "known")[0] == 0, "it was asked what there is, and answered"


def test_a_list_is_asked_for_by_status_and_cut_at_its_limit(run: Any, games: Games) -> None:
    code, out, err = run("list", "--status", "failed", "--status", "completed", "--limit", "1")
    assert (code, out.count("known")) == (0, 1)
    assert "the first 1" in err
    (request,) = games.requests
    wanted = [pb.PRECOMPUTE_STATUS_FAILED, pb.PRECOMPUTE_STATUS_COMPLETED]
    assert (list(request.statuses), request.page_size) == (wanted, 2)
    assert run("list", "--limit", "0")[1].count("known") == 2
    assert run("list", "--namespace", "n", "--pipeline", "other", "--prefix", "a:")[0] == 0
    last = games.requests[-1]
    assert (last.namespace, last.pipeline, last.key_prefix) == ("n", "other", "a:")


@pytest.mark.parametrize(
    ("text", "seconds"), [("2", 2), ("500ms", 0.5), ("1.5s", 1.5), ("2m", 120), ("1h", 3600)]
)
def test_a_time_is_a_number_with_or_without_a_unit(
    run: Any, games: Games, text: str, seconds: float
) -> None:
    assert run("start", "known", "a", "b", "--ttl", text)[0] == 0
    assert games.requests[-1].ttl.ToTimedelta().total_seconds() == seconds


@pytest.mark.parametrize("text", ["-1", "soon", "1 y", "nan", "inf", ""])
def test_what_is_no_time_exits_with_2(capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert "--wait" in wrong_arguments(capsys, "get", "k", f"--wait={text}")
    assert "--timeout" in wrong_arguments(capsys, "get", "k", "--timeout", "0")


def test_inputs_are_read_from_standard_input(
    run: Any, games: Games, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"a": 1}'))
    assert run("start", "known", "--pipeline", "p", "--inputs", "-")[0] == 0
    assert games.requests[-1].custom.inputs_json == '{"a":1}'


def test_a_server_that_is_away_exits_with_4(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound and not listening: refused
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        assert main(["get", "known", "--address", address]) == 4
    message = capsys.readouterr().err
    assert message.startswith(f"headstart: cannot reach {address}: ")
    assert "`headstart doctor`" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("variable", "content", "problem"),
    [
        ("HEADSTART_CA", None, "cannot use the TLS files"),
        ("HEADSTART_CA", "no certificate", "cannot use the TLS files"),
        ("HEADSTART_TOKEN_FILE", None, "cannot read"),
    ],
)
def test_a_file_of_the_client_that_is_wrong_is_one_line_and_exits_with_2(
    variable: str,
    content: str | None,
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv(variable, str(path))
    assert main(["stats", "--address", "127.0.0.1:1"]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"headstart: {problem} {path}: ")
    assert message.count("\n") == 1


def test_a_health_check_reports_serving_by_its_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    servicer = health.HealthServicer()
    server = grpc.server(ThreadPoolExecutor(4))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    check = ["healthcheck", "--grpc-port", str(port)]
    try:
        assert main(check) == 1, "the service is unknown"
        servicer.set(SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)
        assert main(check) == 1
        servicer.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        assert main(check) == 0
        out = capsys.readouterr().out.splitlines()
        assert out == [f"127.0.0.1:{port}: NOT_SERVING", f"127.0.0.1:{port}: SERVING"]
    finally:
        server.stop(None).wait()
    assert main([*check, "--timeout", "0.5"]) == 1


@pytest.mark.parametrize("name", ["address", "HEADSTART_ADDRESS"])
def test_an_address_that_is_none_is_one_line_with_the_right_spelling(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--address", "http://games:8080"]
    if name == "HEADSTART_ADDRESS":
        monkeypatch.setenv(name, given.pop())
        given = []
    assert main(["stats", *given]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    url = f"{name} 'http://games:8080' is a URL, not a gRPC target: write games:8080"
    assert said.err.startswith(f"headstart: {url}, with the port of gRPC")
    assert main(["doctor", *given]) == 1
    assert url.removeprefix("address") in capsys.readouterr().out


def test_check_config_prints_every_setting_its_source_and_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)
    monkeypatch.setenv("HEADSTART_REDIS_URL", f"redis://:{SECRET}@db")
    pipelines = "tests.support.pipelines:NOOP,tests.support.pipelines:PROBE"
    command = ["check-config", "--lease", "3", "--pipelines", pipelines]
    assert main(command) == 0
    said = capsys.readouterr()
    lines = [line.split() for line in said.out.splitlines()]
    assert len(lines) == len(Settings.model_fields) + 1
    assert ["HEADSTART_LEASE", "3", "--lease"] in lines
    assert ["HEADSTART_PIPELINES", pipelines, "--pipelines"] in lines
    assert ["ANTHROPIC_API_KEY", "***", "environment"] in lines
    assert ["HEADSTART_DRAIN", "5", "default"] in lines
    assert (SECRET in said.out, said.err) == (False, "")

    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    found = {each["variable"]: each for each in told["settings"]}
    assert list(found) == [variable(name) for name in Settings.model_fields]
    assert found["HEADSTART_LEASE"] | {"meaning": ""} == {
        "variable": "HEADSTART_LEASE",
        "flag": "--lease",
        "value": 3.0,
        "source": "--lease",
        "default": 10.0,
        "allowed": "a number from 0.5 to 600",
        "meaning": "",
    }
    assert found["HEADSTART_REDIS_URL"]["value"] == "***"
    assert SECRET not in json.dumps(told)


def test_a_from_environmentthat_nobody_reads_is_warned_of_with_the_nearest_that_somebody_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADSTART_REDIS_URI", SECRET)
    monkeypatch.setenv("HEADSTART_QQQ", "1")
    monkeypatch.setenv("HEADSTART_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("HEADSTART_API_PORT_50051_TCP_ADDR", "10.0.0.1")
    monkeypatch.setenv("HEADSTART_TOKEN", SECRET)
    assert main(["check-config"]) == 0
    warned = [
        line.removeprefix("headstart: warning: ") for line in capsys.readouterr().err.splitlines()
    ]
    assert warned == [
        "HEADSTART_QQQ is no setting of Headstart",
        "HEADSTART_REDIS_URI is no setting of Headstart: did you mean HEADSTART_REDIS_URL?",
    ]


@pytest.mark.parametrize("command", ["check-config", "serve", "worker", "healthcheck"])
def test_wrong_settings_exit_with_2_and_are_all_named(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADSTART_DRAIN", "long")
    assert main([command, "--lease", "0"]) == 2
    err = capsys.readouterr().err
    assert "HEADSTART_DRAIN = 'long'" in err
    assert "--lease = '0'" in err


def test_a_worker_without_a_store_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["worker", "--http-port", "0"]) == 2
    assert "HEADSTART_REDIS_URL" in capsys.readouterr().err


def test_a_url_that_is_none_exits_with_2_and_hides_it(capsys: pytest.CaptureFixture[str]) -> None:
    ports = ["--grpc-port", "0", "--http-port", "0", "--no-worker"]
    assert main(["serve", "--redis-url", f"ftp://:{SECRET}@db", *ports]) == 2
    err = capsys.readouterr().err
    assert "HEADSTART_REDIS_URL" in err
    assert SECRET not in err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_completes_commands_options_and_choices(
    shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"no {shell} here")
    for typed, wanted in (
        ("headstart comp", "completion"),
        ("headstart list --sta", "--status"),
        ("headstart list --status canc", "cancelled"),
        ("headstart serve --namespace-m", "--namespace-max-results"),
    ):
        asked = {
            "bash": f"source {script}; COMP_WORDS=({typed}); COMP_CWORD={len(typed.split()) - 1}; "
            '_shtab_headstart headstart "${COMP_WORDS[-1]}"; echo "${COMPREPLY[@]}"',
            "fish": f"source {script}; complete -C '{typed}' | string replace -r '\t.*' ''",
            # zsh completes in its line editor alone: here, that it can read the script.
            "zsh": f"zsh -n {script} && echo {wanted}",
        }[shell]
        done = subprocess.run(
            [found, "-c", asked], capture_output=True, text=True, timeout=30, check=True
        )
        assert done.stdout.split() == [wanted], done.stderr


@pytest.mark.parametrize(
    "commands",
    [
        ["--help", "get k", "list", "start k a b", "stats", "watch k"],
        ["doctor"],
    ],
    ids=["operators", "doctor"],
)
def test_an_operators_command_loads_nothing_that_only_servers_have(commands: list[str]) -> None:
    code = textwrap.dedent(f"""
        import sys
        from headstart_service.commands.cli import main
        for command in {commands!r}:
            here = [] if command == "--help" else ["--address", "127.0.0.1:1", "--timeout", "0.1"]
            try:
                main([*command.split(), *here])
            except SystemExit:
                pass
        heavy = {{
            *("pydantic", "pydantic_settings", "numpy", "redis", "torch", "starlette", "anthropic"),
            *("uvicorn", "uvloop", "shtab", "h11", "platformdirs", "yaml", "importlib.metadata"),
            "headstart_service.config.settings", "headstart_service.commands.doctor.local",
        }}
        if {commands[0]!r} != "doctor":
            heavy |= {{"headstart_service.commands.doctor.report", "http.client", "email"}}
        print(sorted(heavy & set(sys.modules)))
    """)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
