"""The k6 script against a real server, found by reflection."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.languages.tools import program
from tests.support.processes import ROOT, clean_environment
from tests.support.replicas import Replicas

pytestmark = [pytest.mark.languages, pytest.mark.asyncio(loop_scope="module")]

SCRIPT = ROOT / "examples" / "k6" / "load.js"
TOO_MUCH = 99


async def k6(tmp_path: Path, **environment: str) -> tuple[int, dict[str, Any], str]:
    """The exit code, the metrics by name, and all that it said."""
    summary = tmp_path / "summary.json"
    settings = [f"-e={name}={value}" for name, value in environment.items()]
    quietly = ("--quiet", "--no-usage-report", f"--summary-export={summary}")
    done = await asyncio.to_thread(
        subprocess.run,
        [program("k6"), "run", *quietly, *settings, str(SCRIPT)],
        env=clean_environment() | {"HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, json.loads(summary.read_text())["metrics"], done.stdout


SMALL = {"USERS": "8", "RAMP": "1s", "HOLD": "2s", "THINK": "0.1"}


async def test_users_start_and_read_runs_and_every_threshold_holds(
    replicas: Replicas, tmp_path: Path
):
    one, _ = await replicas.two()
    code, metrics, said = await k6(tmp_path, ADDRESS=one.address, PIPELINE="noop", **SMALL)
    assert code == 0, said
    assert metrics["checks"]["fails"] == 0
    assert metrics["checks"]["passes"] > 3 * 8
    assert metrics["iterations"]["count"] > 8
    assert metrics["call_errors"]["value"] == 0


async def test_refused_calls_cross_a_threshold(replicas: Replicas, tmp_path: Path):
    one, _ = await replicas.two()
    code, metrics, said = await k6(tmp_path, ADDRESS=one.address, PIPELINE="nothing-such", **SMALL)
    assert code == TOO_MUCH, said
    assert metrics["call_errors"]["value"] == 1
    assert "must be one of" in said or "custom.pipeline" in said
