"""Where secrets must not be: logs, answers, arguments, settings that are shown, records, disks."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from redis import Redis

from headstart.v1 import precompute_pb2 as pb
from tests.support.commands import run_here
from tests.support.messages_api import MessagesApi, Reply
from tests.support.pipelines import REFERENCES
from tests.support.processes import run_headstart, serving, stub
from tests.support.provider_pipelines import ASKING
from tests.support.requests import noop, results
from tests.support.tokens import tokens_of
from tests.support.valkey import Valkey

LIGHT = {"HEADSTART_BRIDGING": "false", "HEADSTART_PIPELINES": REFERENCES}
PASSWORD, API_KEY = "hunter2hunter2", "sk-ant-s3cret-s3cret"


def processes_of(pid: int) -> Iterator[int]:
    """A process and all that it has started."""
    yield pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield from processes_of(int(child))


def arguments_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ")


@pytest.fixture
def messages() -> Iterator[MessagesApi]:
    """A language model that refuses the key, so that the SDK says all that it has to say."""
    with MessagesApi() as api:
        api.script(*[Reply.status(401)] * 10)
        yield api


@pytest.mark.promise("Secrets are in no log, answer, argument, record", "hidden settings")
async def test_secrets_are_in_no_log_answer_argument_or_record(
    valkey: Valkey, messages: MessagesApi, tmp_path: Path
):
    tokens = tokens_of(shop=("*", "read,write"))
    shop = tokens.metadata("shop")
    secrets = (PASSWORD, API_KEY, tokens.by_name["shop"])
    async with valkey.client() as client:
        await client.config_set("requirepass", PASSWORD)
    settings = {
        "HEADSTART_REDIS_URL": f"redis://:{PASSWORD}@127.0.0.1:{valkey.port}",
        "ANTHROPIC_API_KEY": API_KEY,
        "ANTHROPIC_BASE_URL": messages.url,
        "HEADSTART_TOKENS": str(tokens.written(tmp_path / "tokens")),
        "HEADSTART_LOG_LEVEL": "debug",
        "HEADSTART_DRAIN": "0.5",
        "HEADSTART_BRIDGING": "false",
        "HEADSTART_PIPELINES": ASKING,
    }
    seen: list[str] = []
    async with serving(**settings) as (server, address), stub(address) as service:
        pids = list(processes_of(server.pid))
        assert len(pids) == 2, "the server and its worker"
        seen += [arguments_of(pid) for pid in pids]
        assert any("headstart_service worker" in command for command in seen)
        asking = pb.StartPrecomputeRequest(key="k", custom=pb.CustomSpec(pipeline="patient"))
        await service.StartPrecompute(asking, metadata=shop)
        answer = await service.GetResults(results("k", 60, "patient"), metadata=shop)
        assert answer.steps["patient"].state == pb.STEP_STATE_FAILED
        seen.append(str(answer.steps))
        with Redis(port=valkey.port, password=PASSWORD, protocol=2) as redis:
            for key in redis.scan_iter():
                seen += [str(key), str(redis.dump(key))]
            assert any("run:default:k" in text for text in seen)
        for metadata in ((), (("authorization", f"Basic {PASSWORD}"),)):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await service.GetStats(pb.GetStatsRequest(), metadata=metadata)
            seen.append(repr(refused.value))
        await valkey.kill()
        with pytest.raises(grpc.aio.AioRpcError) as away:
            await service.GetStatus(pb.GetStatusRequest(key="k"), metadata=shop)
        assert away.value.code() is grpc.StatusCode.UNAVAILABLE
        seen.append(repr(away.value))
        await server.says("not serving: Redis does not answer")
        seen.append(server.output)
        assert "API key refused" in server.output, "the worker has told of its failure"
    code, printed = run_here("check-config", **settings)
    assert code == 0
    seen.append(printed)
    assert re.search(r"HEADSTART_REDIS_URL +\*\*\*", printed)
    for text in seen:
        for secret in secrets:
            assert secret not in text


@pytest.mark.promise("Passwords are refused as arguments", "`--redis-url` rejects them")
def test_a_password_in_arguments_is_refused_without_being_told():
    for command in ("serve", "worker", "check-config"):
        code, said = run_here(command, "--redis-url", f"redis://me:{PASSWORD}@127.0.0.1")
        assert code == 2
        assert "set HEADSTART_REDIS_URL instead" in said
        assert PASSWORD not in said


@pytest.mark.promise("The embedded Valkey is its owner's", "socket, directory mode 0700")
@pytest.mark.parametrize("found", ["missing", "empty", "used before"])
async def test_only_its_owner_can_reach_the_embedded_valkey(tmp_path: Path, found: str):
    directory = tmp_path / "data"
    if found != "missing":
        directory.mkdir()
        directory.chmod(0o755)
    if found == "used before":
        (directory / "lock").write_text("1\n")
    async with serving(HEADSTART_DATA_DIR=str(directory), **LIGHT) as (server, address):
        sockets = [path for path in directory.rglob("*") if stat.S_ISSOCK(path.stat().st_mode)]
        (place,) = sockets
        assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        with Redis(unix_socket_path=str(place), protocol=2) as redis:
            assert redis.config_get("port") == {"port": "0"}
            assert redis.config_get("tls-port") == {"tls-port": "0"}
        (valkey,) = (p for p in processes_of(server.pid) if "valkey" in arguments_of(p).split()[0])
        assert not _listens_on_tcp(valkey)
        async with stub(address) as service:
            await service.StartPrecompute(noop("k"))


def _listens_on_tcp(pid: int) -> bool:
    """Whether one of its open files is a TCP socket that listens."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                inodes.add(f"socket:[{fields[9]}]")
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it has just been closed
            if str(file.readlink()) in inodes:
                return True
    return False


@pytest.mark.promise("The embedded Valkey is never in a shared directory", "refused")
async def test_a_data_directory_that_others_can_enter_and_use_is_refused(tmp_path: Path):
    directory = tmp_path / "shared"
    directory.mkdir()
    directory.chmod(0o755)
    (directory / "somebody's file").touch()
    process = run_headstart("serve", HEADSTART_DATA_DIR=str(directory), **LIGHT)
    try:
        assert await process.ended() == 2
        assert f"HEADSTART_DATA_DIR: others can enter {directory}" in process.output
        assert "Traceback" not in process.output
    finally:
        process.stop()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o755, "it is left as it was"
