"""docs/migration.md does what it says: its code runs, and what it says of both sides is so."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import sys
from pathlib import Path

from headstart import EagerPrecompute
from tests.integration.test_readme import blocks, run
from tests.support.processes import ROOT, serving

PAGE = (ROOT / "docs" / "migration.md").read_text()


async def test_the_code_of_the_migration_page_runs_as_it_stands(tmp_path: Path):
    facade, pipeline, submit = blocks(PAGE, "python")
    (tmp_path / "clue_embeddings.py").write_text(pipeline)
    [command] = blocks(PAGE, "sh")
    assert re.fullmatch(r"PYTHONPATH=\. HEADSTART_PIPELINES=(\S+) headstart serve\n", command)
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    settings = {
        "PYTHONPATH": path,
        "HEADSTART_PIPELINES": command.split()[1].partition("=")[2],
        "HEADSTART_DATA_DIR": str(tmp_path / "data"),
    }
    async with serving(**settings) as (_, address):
        printed = await asyncio.gather(
            *(
                run(sys.executable, "-c", code, HEADSTART_ADDRESS=address)
                for code in (facade, submit)
            )
        )
    # Bridges of the best words, and words that a player finds, beat most random ones.
    assert re.search(r"better than \d+ % of random bridges", printed[0])
    assert 50 < float(printed[1]) <= 100


def test_the_default_timeout_of_the_page_is_the_facades():
    signature = inspect.signature(EagerPrecompute.get_precomputed_results)
    default = signature.parameters["timeout_seconds"].default
    assert f"- **`timeout_seconds`**: {default:g} s, " in PAGE
