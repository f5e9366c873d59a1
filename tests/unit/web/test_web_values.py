"""Values of any size become small."""

from __future__ import annotations

import json
import math

from headstart.v1 import precompute_pb2 as pb
from headstart_service.engine.json_values import write_json
from headstart_service.web.values import values_of


def custom(**artifacts: pb.Artifact) -> list[dict[str, object]]:
    return values_of(pb.GetResultsResponse(custom=pb.CustomResults(artifacts=artifacts)))


def test_a_game_is_told_as_lines_words_and_a_histogram() -> None:
    unit = [1 / math.sqrt(384)] * 384
    results = pb.GetResultsResponse(
        bridging=pb.BridgingResults(
            anchor_embedding=unit,
            lexical_bridge=["mist", "rain"],
            lexical_embeddings=[pb.Embedding(values=unit), pb.Embedding(values=unit)],
            null_samples=[0.1, 0.2, 0.2, 0.4],
        )
    )
    told = values_of(results)
    assert [(v["kind"], v["name"]) for v in told] == [
        ("vector", "anchor_embedding"),
        ("words", "lexical_bridge"),
        ("vector", "mist"),
        ("vector", "rain"),
        ("histogram", "null_samples"),
    ]
    assert (told[0]["length"], told[0]["norm"], len(told[0]["points"])) == (384, 1.0, 64)
    assert sum(told[-1]["bins"]) == 4
    assert (told[-1]["low"], told[-1]["high"]) == (0.1, 0.4)


def test_large_and_strange_values_are_clipped() -> None:
    text, tensor, data = pb.Artifact(), pb.Artifact(), pb.Artifact(data=b"\x00\xff" * 500)
    text.json.string_value = "é" * 5000
    tensor.tensor.shape.extend([2, 3])
    tensor.tensor.values.extend([math.nan, math.inf, 1, 2, 3, 4])
    huge = pb.Artifact()
    huge.json.string_value = "x" * 300_000
    told = {v["name"]: v for v in custom(text=text, tensor=tensor, data=data, huge=huge)}
    assert told["text"]["clipped"]
    assert len(told["text"]["text"]) == 2000
    assert told["tensor"]["shape"] == "2 x 3"
    assert told["data"]["length"] == 1000
    assert told["huge"]["kind"] == "large"
    json.dumps(told, allow_nan=False)
    assert custom() == []


def test_whole_numbers_are_shown_exactly() -> None:
    artifact = pb.Artifact()
    write_json([2**53 + 1, 2.0, 3, 10**30], artifact)
    [told] = custom(numbers=artifact)
    assert json.loads(str(told["text"])) == [2**53 + 1, 2.0, 3, 10**30]
    assert "2.0" not in str(told["text"]), "people write 2"


def test_equal_samples_are_one_bin() -> None:
    told = values_of(pb.GetResultsResponse(bridging=pb.BridgingResults(null_samples=[0.5, 0.5])))
    assert told[0]["bins"][0] == 2
