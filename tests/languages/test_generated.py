"""What protoc makes of the contract for Go and Java fits: compiled and, in Go, called."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.languages.tools import GO_SOURCES, missing
from tests.support.processes import ROOT
from tests.support.replicas import Replicas

pytestmark = [pytest.mark.languages, pytest.mark.asyncio(loop_scope="module")]

PROTO = "headstart/v1/precompute.proto"
HERE = Path(__file__).parent
JARS = Path("/usr/share/java")
GO = ("go", "protoc", "protoc-gen-go", "protoc-gen-go-grpc")
JAVA = ("javac", "protoc", "grpc_java_plugin")


def needs(*programs: str, files: Path) -> None:
    lacking = [name for name in programs if shutil.which(name) is None]
    lacking += [] if files.exists() else [str(files)]
    if lacking:
        missing(", ".join(lacking), "Debian has it; .ci/run names the packages")


async def run(*command: str | Path, **environment: str) -> str:
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def test_go_calls_a_server(replicas: Replicas, tmp_path: Path):
    needs(*GO, files=GO_SOURCES / "src" / "google.golang.org" / "grpc")
    sources = tmp_path / "src"
    sources.mkdir()
    await run(
        "protoc", f"-I{ROOT / 'protos'}", f"--go_out={sources}", f"--go-grpc_out={sources}", PROTO
    )
    program = tmp_path / "main"
    await run(
        *("go", "build", "-o", program, HERE / "go" / "main.go"),
        GO111MODULE="off",
        GOPATH=f"{tmp_path}:{GO_SOURCES}",
        GOFLAGS="",
        GOCACHE=os.environ.get("GOCACHE", str(tmp_path / "cache")),
    )
    one, _ = await replicas.two()
    config = ROOT / "examples" / "service-config.json"
    said = json.loads(await run(program, one.address, str(config)))
    assert said.pop("watched") > 1
    assert said == {
        "outcome": "START_OUTCOME_STARTED",
        "status": "PRECOMPUTE_STATUS_COMPLETED",
        "values": {"one": 2, "two": 4, "three": 7},
        "exact": {"one": 2**53 + 2, "two": 2**54 + 4, "three": 2**54 + 7},
        "large": ["START_OUTCOME_STARTED", "START_OUTCOME_REPLACED"],
        "code": "InvalidArgument",
        "fields": ["custom.inputs.value"],
    }


async def test_java_compiles(tmp_path: Path):
    needs(*JAVA, files=JARS / "grpc-stub.jar")
    plugin = shutil.which("grpc_java_plugin")
    sources, classes = tmp_path / "src", tmp_path / "classes"
    sources.mkdir()
    classes.mkdir()
    await run(
        *("protoc", f"-I{ROOT / 'protos'}", f"--plugin=protoc-gen-grpc-java={plugin}"),
        *(f"--java_out={sources}", f"--grpc-java_out={sources}", PROTO),
    )
    made = sorted(sources.rglob("*.java"))
    assert sources / "headstart" / "v1" / "GetResultsResponse.java" in made
    jars = ("grpc-api", "grpc-stub", "grpc-protobuf", "protobuf", "guava")
    jars += ("geronimo-annotation-1.3-spec",)
    path = ":".join(str(JARS / f"{name}.jar") for name in jars)
    await run(
        *("javac", "-nowarn", "-cp", path, "-d", classes), *made, HERE / "java" / "Calls.java"
    )
    assert (classes / "Calls.class").exists()
