import numpy as np
import pytest

from headstart.v1 import precompute_pb2 as pb
from headstart_service.pipelines.bridging import BRIDGING
from headstart_service.pipelines.bridging.values import Bridge, Endpoints
from headstart_service.worker.copies import copied

_RANDOM = np.random.Generator(np.random.PCG64(1))
CODEC = BRIDGING.codec
A, B = _RANDOM.standard_normal((2, 384)).astype(np.float32)
ROWS = _RANDOM.standard_normal((5, 384)).astype(np.float32)
WORDS = ["river", "mist", "café", "rain", "driftwood"]
SAMPLES = np.sort(_RANDOM.standard_normal(100))


def embeddings(rows: np.ndarray) -> list[pb.Embedding]:
    return [pb.Embedding(values=row.tolist()) for row in rows]


CASES = {
    "embed_endpoints": (
        Endpoints(A, B, "all-MiniLM-L6-v2"),
        pb.BridgingResults(
            anchor_embedding=A.tolist(),
            target_embedding=B.tolist(),
            embedding_model="all-MiniLM-L6-v2",
        ),
    ),
    "lexical_bridge": (
        Bridge(WORDS, ROWS),
        pb.BridgingResults(lexical_bridge=WORDS, lexical_embeddings=embeddings(ROWS)),
    ),
    "null_samples": (SAMPLES, pb.BridgingResults(null_samples=SAMPLES.tolist())),
    "haiku_bridge": (WORDS, pb.BridgingResults(haiku_clues=WORDS)),
    "haiku_embeddings": (ROWS, pb.BridgingResults(haiku_embeddings=embeddings(ROWS))),
}


@pytest.mark.parametrize("step", CASES)
def test_fragments_are_what_protobuf_writes(step: str) -> None:
    value, expected = CASES[step]
    whole = pb.GetResultsResponse(bridging=expected)
    assert CODEC.encode(step, value) == whole.SerializeToString(deterministic=True)


def test_joined_fragments_are_the_whole_result() -> None:
    joined = b"".join(CODEC.encode(step, value) for step, (value, _) in CASES.items())
    whole = pb.BridgingResults()
    for _, part in CASES.values():
        whole.MergeFrom(part)
    assert pb.GetResultsResponse.FromString(joined).bridging == whole


def test_values_come_back_bit_for_bit() -> None:
    def back(step: str) -> object:
        report = pb.GetResultsResponse(steps={step: pb.StepReport(attempts=1)})
        return CODEC.decode(step, report.SerializeToString() + CODEC.encode(step, CASES[step][0]))

    ends = back("embed_endpoints")
    assert isinstance(ends, Endpoints)
    assert np.array_equal(ends.anchor, A)
    assert np.array_equal(ends.target, B)
    assert (ends.anchor.dtype, ends.model) == (np.float32, "all-MiniLM-L6-v2")
    bridge = back("lexical_bridge")
    assert isinstance(bridge, Bridge)
    assert bridge.words == WORDS
    assert np.array_equal(bridge.embeddings, ROWS)
    assert back("haiku_bridge") == WORDS
    samples, rows = back("null_samples"), back("haiku_embeddings")
    assert isinstance(samples, np.ndarray)
    assert isinstance(rows, np.ndarray)
    assert samples.dtype == np.float64
    assert np.array_equal(samples, SAMPLES)
    assert rows.dtype == np.float32
    assert np.array_equal(rows, ROWS)


def test_every_step_has_a_codec() -> None:
    assert set(CASES) == set(BRIDGING.by_name)
    with pytest.raises(KeyError):
        CODEC.encode("other", 1)


def test_arrays_of_another_layout_are_written_right() -> None:
    value = Endpoints(A.astype(np.float64)[::-1], A[::-1], "m")
    sent = pb.GetResultsResponse.FromString(CODEC.encode("embed_endpoints", value)).bridging
    assert sent.anchor_embedding == A[::-1].tolist()
    assert sent.target_embedding == A[::-1].tolist()


def test_no_step_can_change_the_ends_that_others_share() -> None:
    step = "embed_endpoints"
    ends = CODEC.decode(step, CODEC.encode(step, CASES[step][0]))
    assert copied(ends) is ends
    for vector in (ends.anchor, ends.target):
        with pytest.raises(ValueError, match="read-only"):
            vector[0] = 1
