"""The API over HTTP on the server of `make run`: plain curl, beside a client over gRPC."""

from __future__ import annotations

import json
import re
from pathlib import Path

from headstart import PrecomputeClient
from tests.integration.conftest import GameServer
from tests.support.curl import called, curl
from tests.support.processes import SERVICE


def counted(metrics: str, method: str, code: str) -> float:
    line = rf'^headstart_requests_total{{code="{code}",method="{method}"}} (\S+)$'
    found = re.search(line, metrics, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def test_curl_starts_reads_and_watches_a_run(game_server: GameServer, tmp_path: Path):
    process = game_server.process
    before = await curl(process, "metrics")
    missing = json.loads(await curl(process, f"{SERVICE}/GetResults", "-d", '{"key":"curl-1"}'))
    assert missing["code"] == "not_found"
    spec = {"pipeline": "text", "inputs": {"text": "the longest word wins"}}
    started = await called(process, "StartPrecompute", {"key": "curl-1", "custom": spec})
    assert started["outcome"] == "START_OUTCOME_STARTED"
    results = await called(process, "GetResults", {"key": "curl-1", "wait": "20s"})
    assert results["status"] == "PRECOMPUTE_STATUS_COMPLETED"
    async with PrecomputeClient(game_server.address) as client:
        seen = await client.get_results("curl-1")
    assert (results["pipeline"], int(results["revision"])) == (seen.pipeline, seen.revision)
    query = "?connect=v1&encoding=json&message=%7B%22key%22%3A%22curl-1%22%7D"
    assert json.loads(await curl(process, f"{SERVICE}/GetStatus{query}"))["key"] == "curl-1"
    body = tmp_path / "watch"
    body.write_bytes(b'\0\0\0\0\x10{"key":"curl-1"}')
    kind = ("-H", "content-type: application/connect+json")
    watched = await curl(process, f"{SERVICE}/WatchResults", *kind, "--data-binary", f"@{body}")
    assert watched.endswith("\x02\0\0\0\x02{}")
    bad = await called(process, "GetResults", {"keys": "curl-1"})
    assert bad["details"][0]["debug"]["fieldViolations"][0]["field"] == "keys"
    after = await curl(process, "metrics")
    for method, code in (("WatchResults", "OK"), ("GetResults", "NOT_FOUND")):
        assert counted(after, method, code) == counted(before, method, code) + 1
