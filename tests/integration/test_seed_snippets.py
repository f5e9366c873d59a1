"""The usage snippets of the document that Headstart was asked for with: only the import changed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from headstart import EagerPrecompute, PrecomputeStatus
from tests.integration.conftest import GameServer
from tests.support.processes import ROOT, clean_environment

# From the seed, to the letter but for the import and its indentation.
USAGE = """
from headstart import EagerPrecompute, PrecomputeStatus

precompute = EagerPrecompute.get_instance()

# Start precomputation when game is created
await precompute.start_bridging_precompute(
    game_id="abc123",
    anchor="ocean",
    target="forest",
    recipient_type="haiku",  # or "human"
    supabase=supabase
)

# Later, when clues are submitted (instant if ready)
results = await precompute.get_precomputed_results(
    game_id="abc123",
    timeout_seconds=2.0  # Wait up to 2s if still computing
)

if results and results.status == PrecomputeStatus.COMPLETED:
    # Use precomputed values
    anchor_emb = results.anchor_embedding
    target_emb = results.target_embedding
    haiku_clues = results.haiku_clues  # If haiku game
    null_samples = results.null_samples  # For percentile
    lexical_bridge = results.lexical_bridge
"""

FALLBACK = """
results = await precompute.get_precomputed_results(game_id)

if results and results.anchor_embedding:
    # Use precomputed
    anchor_emb = results.anchor_embedding
else:
    # Fallback to live computation
    anchor_emb = await cache.get_embedding(anchor)
"""

MONITORING = """
precompute = EagerPrecompute.get_instance()

stats = precompute.get_stats()
# {
#     "total_cached": 50,
#     "active_tasks": 3,
#     "status_counts": {"completed": 45, "in_progress": 3, "failed": 2}
# }

# Check specific game
status = precompute.get_status(game_id)
# PrecomputeStatus.COMPLETED
"""


async def run_snippet(text: str, names: dict[str, object]) -> None:
    """Run a snippet that awaits, inside this event loop, with its names in `names`."""
    body = "".join(f"    {line}\n" for line in text.splitlines())
    known = ", ".join(names)
    source = f"async def snippet({known}):\n{body}\n    return locals()\n"
    defined: dict[str, object] = {"EagerPrecompute": EagerPrecompute}
    exec(source, defined)
    names.update(await defined["snippet"](**names))  # type: ignore[operator]


class LiveCache:
    """What the seed's caller falls back to."""

    async def get_embedding(self, word: str) -> list[float]:
        return [float(len(word))]


@pytest.fixture
def at_server(game_server: GameServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HEADSTART_ADDRESS", game_server.address)
    EagerPrecompute.reset_instance()
    yield
    EagerPrecompute.reset_instance()


@pytest.mark.usefixtures("at_server")
async def test_the_three_snippets_run_and_another_process_reads_the_same_values(
    game_server: GameServer,
):
    usage: dict[str, object] = {"supabase": object()}
    await run_snippet(USAGE, usage)
    # The local language model takes five seconds, so the first two-second wait is partial.
    assert usage["results"].status is PrecomputeStatus.IN_PROGRESS
    assert len(usage["results"].null_samples) == 100
    precompute = EagerPrecompute.get_instance()
    await precompute.get_precomputed_results("abc123", timeout_seconds=20)
    await run_snippet(USAGE, usage)
    assert len(usage["anchor_emb"]) == len(usage["target_emb"]) == 384
    assert len(usage["haiku_clues"]) == len(usage["lexical_bridge"]) == 5

    fallback: dict[str, object] = {
        "precompute": precompute, "game_id": "abc123", "anchor": "ocean", "cache": LiveCache(),
    }  # fmt: skip
    await run_snippet(FALLBACK, fallback)
    assert fallback["anchor_emb"] == usage["anchor_emb"]
    fallback |= {"game_id": "never-started"}
    await run_snippet(
        FALLBACK, {k: fallback[k] for k in ("precompute", "game_id", "anchor", "cache")}
    )

    monitoring: dict[str, object] = {"game_id": "abc123"}
    await run_snippet(MONITORING, monitoring)
    assert monitoring["status"] is PrecomputeStatus.COMPLETED
    assert set(monitoring["stats"]) == {"total_cached", "active_tasks", "status_counts"}
    assert monitoring["stats"]["status_counts"]["completed"] >= 1

    theirs = await _read_in_another_process(game_server.address)
    assert theirs["anchor_embedding"] == usage["anchor_emb"]
    assert theirs["null_samples"] == usage["null_samples"]
    assert theirs["haiku_clues"] == usage["haiku_clues"]
    assert theirs["lexical_bridge"] == usage["lexical_bridge"]


async def _read_in_another_process(address: str) -> dict[str, list[float]]:
    script = """
import asyncio, json
from headstart import EagerPrecompute
results = asyncio.run(EagerPrecompute.get_instance().get_precomputed_results("abc123"))
names = ("anchor_embedding", "null_samples", "haiku_clues", "lexical_bridge")
print(json.dumps({name: getattr(results, name) for name in names}))
"""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=clean_environment() | {"HEADSTART_ADDRESS": address},
        check=True,
        capture_output=True,
        text=True,
    )
    values: dict[str, list[float]] = json.loads(done.stdout)
    return values
