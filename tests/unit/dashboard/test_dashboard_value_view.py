"""Values of any size become small."""

from __future__ import annotations

import json
import math

from headstart import Tensor
from headstart._messages.artifacts import artifact_to
from headstart.v1 import precompute_pb2 as pb
from headstart_service.dashboard.value_view import values_of


def custom(**artifacts: pb.Artifact) -> list[dict[str, object]]:
    return values_of(pb.GetResultsResponse(custom=pb.CustomResults(artifacts=artifacts)))


def test_a_game_is_reported_as_lines_words_and_a_histogram() -> None:
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
    text, huge = artifact_to("é" * 5000), artifact_to("x" * 300_000)
    tensor = artifact_to(Tensor.of([math.nan, math.inf, 1, 2, 3, 4], shape=(2, 3)))
    data = pb.Artifact(data=b"\x00\xff" * 500)
    told = {v["name"]: v for v in custom(text=text, tensor=tensor, data=data, huge=huge)}
    assert told["text"]["clipped"]
    assert len(told["text"]["text"]) == 2000
    assert told["tensor"]["shape"] == "2 x 3"
    assert told["data"]["length"] == 1000
    assert told["huge"]["kind"] == "large"
    json.dumps(told, allow_nan=False)
    assert custom() == []


def test_whole_numbers_are_shown_exactly() -> None:
    [told] = custom(numbers=artifact_to([2**53 + 1, 2.0, 3, 10**30]))
    assert json.loads(str(told["text"])) == [2**53 + 1, 2.0, 3, 10**30]
    assert "2.0" not in str(told["text"]), "people write 2"


def test_equal_samples_are_one_bin() -> None:
    told = values_of(pb.GetResultsResponse(bridging=pb.BridgingResults(null_samples=[0.5, 0.5])))
    assert told[0]["bins"][0] == 2


def test_every_value_of_a_game_names_its_step() -> None:
    row = [3.0, 4.0]
    results = pb.GetResultsResponse(
        bridging=pb.BridgingResults(
            target_embedding=row,
            haiku_clues=["a clue", "c" * 100, *["w"] * 60],
            haiku_embeddings=[pb.Embedding(values=row)] * 14,
            null_samples=[0.0, 1.0, 2.4],
        )
    )
    told = values_of(results)
    vector = {"kind": "vector", "length": 2, "norm": 5.0, "points": [3.0, 4.0]}
    target, words, *rows, samples = told
    assert target == {"step": "embed_endpoints", "name": "target_embedding"} | vector
    assert words == {
        "step": "haiku_bridge",
        "name": "haiku_clues",
        "kind": "words",
        "words": ["a clue", "c" * 80, *["w"] * 48],
        "count": 62,
    }
    assert len(rows) == 12
    assert rows[0] == {"step": "haiku_embeddings", "name": "a clue"} | vector
    assert rows[1]["name"] == "c" * 80
    assert samples == {
        "step": "null_samples",
        "kind": "histogram",
        "name": "null_samples",
        "length": 3,
        "low": 0.0,
        "high": 2.4,
        "median": 1.0,
        "bins": [1, *[0] * 9, 1, *[0] * 12, 1],
    }


def test_rows_without_words_are_numbered_and_a_stretch_of_a_vector_is_its_mean() -> None:
    values = [float(i) for i in range(128)]
    rows = [pb.Embedding(values=values), pb.Embedding(values=[2.0])]
    results = pb.GetResultsResponse(bridging=pb.BridgingResults(lexical_embeddings=rows))
    first, second = values_of(results)
    assert (first["step"], first["name"], second["name"]) == ("lexical_bridge", "1", "2")
    assert (first["length"], first["points"][:2], len(first["points"])) == (128, [0.5, 2.5], 64)
    assert second["points"] == [2.0]


def test_every_artifact_names_its_step_and_kind() -> None:
    text, data = artifact_to("a"), pb.Artifact(data=bytes(range(40)))
    tensor, empty = artifact_to(Tensor.of([3.0, 4.0])), artifact_to(Tensor.of([]))
    huge = artifact_to(Tensor.of([1.0] * 70_000))
    assert custom(text=text, tensor=tensor, data=data, huge=huge, empty=empty) == [
        {
            "step": "data",
            "name": "data",
            "kind": "bytes",
            "length": 40,
            "head": bytes(range(32)).hex(" "),
        },
        {"step": "empty", "name": "empty", "kind": "large", "length": empty.ByteSize()},
        {"step": "huge", "name": "huge", "kind": "large", "length": huge.ByteSize()},
        {
            "step": "tensor",
            "name": "tensor",
            "kind": "vector",
            "length": 2,
            "norm": 5.0,
            "points": [3.0, 4.0],
            "shape": "2",
        },
        {"step": "text", "name": "text", "kind": "json", "text": '"a"', "clipped": False},
    ]
    assert custom(text=artifact_to(["é"]))[0]["text"] == '[\n "é"\n]'
    many = custom(**{f"a{i:02}": data for i in range(60)})
    assert [value["name"] for value in many] == [f"a{i:02}" for i in range(50)]
