"""What an author's steps print and log is on the standard error of `serve`, wherever they run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headstart import PrecomputeClient
from tests.support.processes import serving

PIPELINE = """\
import logging
from pydantic import BaseModel
from headstart_service.sdk import Pipeline, step
class Nothing(BaseModel): ...
def say(where):
    print(f"printed {where}")
    logging.getLogger("author").info("logged %s", where)
@step()
async def on_loop() -> int:
    say("on the loop")
    return 1
@step(runs_on="thread")
def in_thread() -> int:
    say("in a thread")
    return 2
@step(runs_on="process")
def in_process() -> int:
    say("in a process")
    return 3
LOUD = Pipeline("loud", "1", "", Nothing, (on_loop, in_thread, in_process))
"""


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_what_steps_print_and_log_is_in_the_output_of_serve(
    tmp_path: Path, log_format: str
) -> None:
    (tmp_path / "loud_steps.py").write_text(PIPELINE)
    settings = {
        "PYTHONPATH": str(tmp_path),
        "HEADSTART_DATA_DIR": str(tmp_path / "data"),
        "HEADSTART_BRIDGING": "false",
        "HEADSTART_PIPELINES": "loud_steps:LOUD",
        "HEADSTART_LOG_FORMAT": log_format,
        "HEADSTART_TRACING": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",  # nobody listens
    }
    line = "INFO    author: logged {}" if log_format == "text" else '"message":"logged {}"'
    async with serving(**settings) as (server, address), PrecomputeClient(address) as client:
        await client.start("a", "loud", {})
        assert (await client.get_results("a", wait=30)).status == "completed"
        for where in ("on the loop", "in a thread", "in a process"):
            await server.says(f"printed {where}")
            await server.says(line.format(where))
            if log_format == "json":
                written = next(x for x in server.output.splitlines() if line.format(where) in x)
                fields = json.loads(written)
                step = where.replace("the ", "").replace("a ", "").replace(" ", "_")
                assert (fields["key"], fields["pipeline"], fields["step"]) == ("a", "loud", step)
                assert len(fields["trace_id"]) == 32
        assert "headstart worker ready" not in server.output
