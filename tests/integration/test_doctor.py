"""`headstart doctor` beside real servers, stores and certificates, healthy ones and others."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from headstart_service.providers.building import build
from headstart_service.providers.vocabulary import Manifest
from tests.integration.conftest import grpc_address
from tests.support.certificates import Certificate, authority, signed
from tests.support.commands import done_here, run
from tests.support.pipelines import REFERENCES
from tests.support.processes import Process, run_headstart
from tests.support.tiny_model import keep_unexported
from tests.support.tokens import Tokens, tokens_of
from tests.support.valkey import Valkey, free_port

LIGHT = {"HEADSTART_BRIDGING": "false", "HEADSTART_PIPELINES": REFERENCES}
PASSWORD = "hunter2"


def doctor(*arguments: str, **environment: str) -> tuple[int, dict[str, list[tuple[str, str]]]]:
    """The exit code, and by check the verdicts and what was found; each that is not OK advises."""
    # A pipeline on a path of its own is imported only where Python starts with that path.
    ask = run if "PYTHONPATH" in environment else done_here
    done = ask("doctor", "--json", *arguments, **environment)
    assert done.err == ""
    assert PASSWORD not in done.out
    told = json.loads(done.out)
    found: dict[str, list[tuple[str, str]]] = {}
    for check in told["checks"]:
        found.setdefault(check["check"], []).append((check["verdict"], check["found"]))
        assert check["advice"] or check["verdict"] in ("OK", "SKIP"), check
    verdicts = {verdict for each in found.values() for verdict, _ in each}
    bad = {"FAIL", "WARN"} if "--strict" in arguments else {"FAIL"}
    assert told["ok"] == verdicts.isdisjoint(bad) == (done.code == 0)
    return done.code, found


@dataclass(frozen=True)
class Served:
    process: Process
    port: str
    settings: dict[str, str]


def serve(**settings: str) -> Served:
    process = run_headstart("serve", HEADSTART_GRPC_PORT="0", HEADSTART_HTTP_PORT="0", **settings)
    try:
        return Served(process, grpc_address(process).rpartition(":")[2], settings)
    except AssertionError:
        process.stop()
        raise


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = serve(HEADSTART_DATA_DIR=str(tmp_path_factory.mktemp("data")), **LIGHT)
    yield served
    served.process.stop()


@dataclass(frozen=True)
class Secured:
    """A server with mTLS and tokens, and the files of a client that it lets in."""

    address: str
    tokens: Tokens
    client: dict[str, str]
    foreign: Certificate


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    directory = tmp_path_factory.mktemp("secured")
    ours = authority(directory, "ours")
    server, client = signed(ours, directory, "server"), signed(ours, directory, "client")
    tokens = tokens_of(shop=("shop", "read"), boss=("*", "admin"))
    served = serve(
        HEADSTART_DATA_DIR=str(directory / "data"),
        HEADSTART_WORKER="false",
        HEADSTART_TLS_CERT=str(server.cert),
        HEADSTART_TLS_KEY=str(server.key),
        HEADSTART_TLS_CLIENT_CA=str(ours.cert),
        HEADSTART_TOKENS=str(tokens.written(directory / "tokens")),
        **LIGHT,
    )
    yield Secured(
        f"localhost:{served.port}",
        tokens,
        {
            "HEADSTART_CA": str(ours.cert),
            "HEADSTART_CLIENT_CERT": str(client.cert),
            "HEADSTART_CLIENT_KEY": str(client.key),
        },
        authority(directory, "foreign"),
    )
    served.process.stop()


def test_the_call_that_a_server_without_bridging_proposes_is_answered(plain: Served):
    command = plain.process.output.split("Try:\n\n")[1].splitlines()[0]
    assert " start try-1 --pipeline " in command
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("started: revision 1")


def test_a_healthy_server_and_its_machine_are_found_so(plain: Served):
    http = plain.process.output.split("HTTP on ")[1].split()[0]
    code, found = doctor(
        *("--address", f"127.0.0.1:{plain.port}", "--http", http, "--local"),
        **(plain.settings | {"HEADSTART_GRPC_PORT": plain.port, "HEADSTART_HTTP_PORT": "0"}),
    )
    assert code == 0
    verdicts = {name: [verdict for verdict, _ in each] for name, each in found.items()}
    latency = verdicts.pop("latency")
    assert latency[0] in ("OK", "WARN"), "a busy machine is slow"
    verdicts["store"] = ["OK"]  # as above
    fine = (
        *("address", "TLS", "health", "token", "verbs", "pipelines", "work", "readiness", "clock"),
        "settings",
        *("data", "store", "memory", "durability", "store clock", "workers"),
        "partitions",
    )
    assert verdicts == {
        **{name: ["OK"] for name in fine},
        "model": ["SKIP"],
        "ports": ["OK", "OK"],
    }
    assert "probe" in found["pipelines"][0][1]
    assert "1 worker ask" in found["workers"][0][1]
    assert "a Headstart server listens" in found["ports"][0][1]


def test_people_are_told_what_to_do_in_a_line_below():
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound and not listening: refused
        done = done_here("doctor", "--address", f"127.0.0.1:{reserved.getsockname()[1]}")
    assert (done.code, done.err) == (1, "")
    lines = done.out.splitlines()
    assert lines[0].startswith("FAIL  address")
    assert lines[0].endswith("Connection refused")
    assert lines[1].lstrip().startswith("→ is the server running")
    assert lines[2:] == ["1 wrong"]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("no-such-host.invalid:1", "does not resolve"),
        ("localhost:port", "is not host:port"),
        ("dns:///localhost:0", "is not host:port"),
        ("unix:/no/such/socket", "No such file"),
    ],
)
def test_an_address_that_leads_nowhere_fails(address: str, said: str):
    code, found = doctor("--address", address)
    assert code == 1
    assert list(found) == ["address"]
    assert said in found["address"][0][1]


def test_what_answers_and_is_no_headstart_fails():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        code, found = doctor("--address", address, "--timeout", "300ms")
    assert code == 1
    assert found["address"][0][0] == "OK"
    assert found["health"][0][0] == "FAIL"


def test_an_http_port_is_recognised(plain: Served):
    http = plain.process.output.split("HTTP on ")[1].split()[0]
    done = done_here("doctor", "--address", http)
    assert done.code == 1
    assert "→ is this an HTTP port? Give the port of gRPC" in done.out


def test_the_way_through_tls_and_tokens_is_followed_step_by_step(secured: Secured):
    def check(**environment: str) -> dict[str, list[tuple[str, str]]]:
        found = doctor("--address", secured.address, **environment)[1]
        assert not any(token in str(found) for token in secured.tokens.by_name.values())
        return found

    assert check()["TLS"] == [("FAIL", "the server speaks TLS and this client does not")]
    ((verdict, said),) = check(HEADSTART_CA=str(secured.foreign.cert))["TLS"]
    assert (verdict, "certificate is refused" in said) == ("FAIL", True)
    bare = {"HEADSTART_CA": secured.client["HEADSTART_CA"]}
    found = check(**bare)
    assert found["TLS"][-1][0] == "FAIL"
    assert "refuses this client" in found["TLS"][-1][1]
    assert "health" not in found
    stranger = {
        "HEADSTART_CLIENT_CERT": str(secured.foreign.cert),
        "HEADSTART_CLIENT_KEY": str(secured.foreign.key),
    }
    assert "refuses this client" in check(**bare, **stranger)["TLS"][-1][1]
    found = check(**bare, HEADSTART_SERVER_NAME="elsewhere.example")
    assert "elsewhere.example" in found["TLS"][0][1]
    assert check(HEADSTART_CA="/no/such/file")["TLS"][0][0] == "FAIL"

    found = check(**secured.client)
    ((verdict, said),) = found["TLS"]
    assert (verdict, "for 2 more days" in said) == ("WARN", True)
    assert found["health"][0][0] == "OK"
    assert found["token"] == [("FAIL", "the server wants one, and there is none")]
    assert "verbs" not in found

    found = check(**secured.client, HEADSTART_TOKEN="hst_wrong")
    assert found["token"] == [("FAIL", "it is not accepted")]
    shop = secured.client | {"HEADSTART_TOKEN": secured.tokens.by_name["shop"]}
    assert check(**shop)["verbs"][0][0] == "WARN"
    found = doctor("--address", secured.address, "--namespace", "shop", **shop)[1]
    assert found["token"] == [("OK", "accepted")]
    assert found["verbs"] == [("OK", "may read in namespace shop")]
    boss = secured.client | {"HEADSTART_TOKEN": secured.tokens.by_name["boss"]}
    assert check(**boss)["verbs"] == [("OK", "may read, write, admin in namespace default")]


async def test_a_store_that_forgets_or_that_nobody_works_on_is_warned_of(valkey: Valkey):
    async with valkey.client() as redis:
        await redis.config_set("maxmemory-policy", "allkeys-lru")
        await redis.config_set("appendonly", "no")
        await redis.config_set("requirepass", PASSWORD)
    url = valkey.url.replace("//", f"//:{PASSWORD}@")
    code, found = doctor("--local-only", HEADSTART_REDIS_URL=url, HEADSTART_GRPC_PORT="0", **LIGHT)
    assert code == 0
    strict, _ = doctor(
        *("--local-only", "--strict"), HEADSTART_REDIS_URL=url, HEADSTART_GRPC_PORT="0", **LIGHT
    )
    assert strict == 1, "a warning is an error when asked"
    assert "address" not in found
    assert found["memory"][0][0] == "WARN"
    assert "allkeys-lru" in found["memory"][0][1]
    assert found["durability"][0][0] == "WARN"
    assert found["workers"][0][0] == "WARN"
    assert found["store clock"][0][0] == "OK"
    await valkey.kill()
    code, found = doctor("--local-only", HEADSTART_REDIS_URL=url, **LIGHT)
    assert code == 1
    assert found["store"][0][0] == "FAIL"
    assert "does not answer" in found["store"][0][1]


def test_what_a_machine_lacks_is_named(tmp_path: Path):
    data, vocabulary = tmp_path / "data", tmp_path / "vocabulary"
    data.mkdir(mode=0o755)
    vocabulary.mkdir()
    (vocabulary / "manifest.json").write_text("{")
    with socket.create_server(("127.0.0.1", free_port())) as other:
        code, found = doctor(
            "--local-only",
            HEADSTART_DATA_DIR=str(data),
            HEADSTART_VOCABULARY=str(vocabulary),
            HEADSTART_GRPC_PORT=str(other.getsockname()[1]),
            HEADSTART_HTTP_PORT="0",
            HEADSTART_LEASE="soon",
            HEADSTART_LEESE="1",
            HEADSTART_MODEL="/no/such/model",
        )
    assert code == 1
    assert found["settings"] == [
        ("FAIL", "HEADSTART_LEASE = 'soon': must be a number from 0.5 to 600"),
        ("WARN", "HEADSTART_LEESE is no setting of Headstart: did you mean HEADSTART_LEASE?"),
    ]
    assert found["data"][0][0] == "WARN"
    assert found["store"][0][0] == "SKIP"
    assert found["model"][0][0] == "FAIL"
    assert "/no/such/model is not prepared: there is no" in found["model"][0][1]
    assert found["vocabulary"][0][0] == "FAIL"
    assert "is not JSON" in found["vocabulary"][0][1]
    assert found["Anthropic"][0][0] == "WARN"
    assert found["ports"][0][0] == "FAIL"
    assert "in use" in found["ports"][0][1]


EMBEDDING = """\
from pydantic import BaseModel
from headstart_service.sdk import Embedder, Pipeline, step
class Text(BaseModel):
    text: str
@step()
async def length(text: str, embedder: Embedder) -> int:
    return len(await embedder.embed([text]))
LENGTH = Pipeline("length", "1", "", Text, (length,))
"""


def test_the_model_of_a_pipeline_is_checked_without_the_word_game(tmp_path: Path):
    (tmp_path / "embedding.py").write_text(EMBEDDING)
    _, found = doctor(
        *("--local-only",),
        PYTHONPATH=str(tmp_path),
        HEADSTART_DATA_DIR=str(tmp_path / "data"),
        HEADSTART_BRIDGING="false",
        HEADSTART_PIPELINES="embedding:LENGTH",
        HEADSTART_MODEL="/no/such/model",
    )
    assert found["settings"][0][0] == "OK"
    assert found["model"][0][0] == "FAIL"
    assert "vocabulary" not in found
    assert "Anthropic" not in found


def test_a_vocabulary_is_compared_with_the_files_of_the_model(tmp_path: Path):
    model, vocabulary = tmp_path / "model", tmp_path / "vocabulary"
    identity = keep_unexported(model, tmp_path / "models", b"weights")
    words = [f"word{number}" for number in range(12)]
    build(vocabulary, words, lambda texts: np.ones((len(texts), 4), np.float32), identity, "test")

    def seen() -> tuple[tuple[str, str], tuple[str, str]]:
        _, found = doctor(
            *("--local-only",),
            HEADSTART_DATA_DIR=str(tmp_path / "data"),
            HEADSTART_MODEL=str(model),
            HEADSTART_PREPARED_MODELS=str(tmp_path / "models"),
            HEADSTART_VOCABULARY=str(vocabulary),
        )
        return found["model"][0], found["vocabulary"][0]

    digest = f"sha256 {identity.sha256[:12]}"
    words_digest = f"sha256 {Manifest.read(vocabulary).words_sha256[:12]}"
    made = f"12 words, {words_digest}, by {model}, {digest}, as the manifest says"
    (verdict, said), vocabulary_seen = seen()
    assert vocabulary_seen == ("OK", made)
    assert verdict == "WARN", "it has no export"
    assert said.startswith(f"{model}, {digest}; --load tries it; it runs on sentence-transformers")
    (model / "model.safetensors").write_bytes(b"others")
    assert seen()[0] == (
        "FAIL",
        f"{model} is not prepared: its files have changed since it was prepared",
    )
    anew = keep_unexported(model, tmp_path / "models", b"others")
    (loaded, _), (verdict, why) = seen()
    assert (loaded, verdict) == ("WARN", "FAIL")
    assert f"of the model {model} with {digest}, not of {model} with {anew.sha256[:12]}" in why


def test_a_path_of_a_model_that_cannot_be_followed_is_reported(tmp_path: Path):
    _, found = doctor(
        "--local-only",
        HEADSTART_DATA_DIR=str(tmp_path / "data"),
        HEADSTART_MODEL="/" + "x" * 300,
        HEADSTART_VOCABULARY=str(tmp_path),
    )
    [(verdict, said)] = found["model"]
    assert verdict == "FAIL"
    assert said.startswith("HEADSTART_MODEL: cannot read '/xxx")
    assert said.endswith(": File name too long")
    assert found["vocabulary"][0][0] == "WARN"


def test_a_secret_is_shown_by_no_check(tmp_path: Path):
    code, found = doctor(
        "--local-only",
        ANTHROPIC_API_KEY=PASSWORD,
        HEADSTART_REDIS_URL=f"ftp://:{PASSWORD}@db",
        HEADSTART_TOKENS="hst_" + PASSWORD,
        HEADSTART_VOCABULARY=str(tmp_path),
        HEADSTART_MODEL=str(tmp_path),
    )
    assert code == 1
    said = "a key is set; it was not tried, and is not shown: claude-haiku-5-5"
    assert found["Anthropic"] == [("OK", said)]
    assert found["vocabulary"][0][0] == "WARN"
    assert {verdict for verdict, _ in found["settings"]} == {"FAIL"}
