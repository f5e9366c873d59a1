"""What callers may import, and what importing it costs them."""

import importlib.metadata
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import headstart
from headstart import testing
from headstart._clients import eager_precompute


def test_public_names_are_these_and_no_others() -> None:
    assert headstart.__all__ == [
        "Artifact",
        "BlockingClient",
        "BridgingResults",
        "Cancelled",
        "Computed",
        "DeadlineExceeded",
        "EagerPrecompute",
        "Embedding",
        "ExecutorKind",
        "FailureReason",
        "Fate",
        "HeadstartError",
        "Incomplete",
        "InvalidRequest",
        "ItemProgress",
        "ItemResult",
        "Json",
        "Ledger",
        "LedgerHidden",
        "LedgerWork",
        "NoResult",
        "NotFound",
        "Page",
        "PendingReason",
        "PermissionDenied",
        "PipelineDescription",
        "PrecomputeClient",
        "PrecomputeResult",
        "PrecomputeStatus",
        "RecipientType",
        "ResourceExhausted",
        "Results",
        "RunSummary",
        "RunToken",
        "ServiceError",
        "ServiceUnavailable",
        "Source",
        "Start",
        "StartOutcome",
        "Started",
        "Stats",
        "Status",
        "StepDescription",
        "StepEstimate",
        "StepOrigin",
        "StepProgress",
        "StepReport",
        "StepState",
        "StreamPiece",
        "Tensor",
        "Tls",
        "Touched",
        "Unauthenticated",
        "UnservedStep",
        "UnusableProcess",
        "Violation",
        "percentile",
        "relevance",
    ]


def test_every_public_name_exists() -> None:
    for name in headstart.__all__:
        assert getattr(headstart, name) is not None


def test_everything_that_is_defined_here_and_public_is_exported() -> None:
    defined = {
        name
        for name, value in vars(headstart).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert defined == set(headstart.__all__)


def test_the_package_is_marked_as_typed() -> None:
    assert (Path(headstart.__file__).parent / "py.typed").exists()


def test_importing_the_client_loads_nothing_but_grpc_and_protobuf() -> None:
    script = (
        "import sys; before = set(sys.modules); import headstart, headstart.testing; "
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}"
        " - set(sys.stdlib_module_names)))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout.split()

    # grpc itself looks for its sister packages, and uses typing_extensions.
    grpcs_own = {"grpc_health", "grpc_reflection", "grpc_status", "grpc_tools", "typing_extensions"}
    compiled = {name for name in loaded if "cython" in name}
    assert set(loaded) - grpcs_own - compiled == {"google", "grpc", "headstart"}


def test_importing_the_client_loads_no_googleapis_and_lives_beside_it() -> None:
    script = (
        "import sys, headstart; "
        "assert not [name for name in sys.modules if name.startswith('google.rpc')]; "
        "from google.rpc import error_details_pb2, status_pb2; "
        "print(error_details_pb2.RetryInfo.DESCRIPTOR.full_name)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )

    assert (result.stdout.strip(), result.stderr) == ("google.rpc.RetryInfo", "")


def test_the_facades_result_has_exactly_the_promised_fields() -> None:
    assert list(inspect.get_annotations(eager_precompute.PrecomputeResult).items()) == [
        ("game_id", "str"),
        ("status", "PrecomputeStatus"),
        ("started_at", "datetime | None"),
        ("completed_at", "datetime | None"),
        ("error", "str | None"),
        ("anchor_embedding", "list[float] | None"),
        ("target_embedding", "list[float] | None"),
        ("haiku_clues", "list[str] | None"),
        ("haiku_embeddings", "list[list[float]] | None"),
        ("lexical_bridge", "list[str] | None"),
        ("lexical_embeddings", "list[list[float]] | None"),
        ("null_samples", "list[float] | None"),
        ("embedding_model", "str | None"),
    ]
    # Callers' tests make one of an id alone, as of the original's.
    assert eager_precompute.PrecomputeResult("abc123").status is headstart.PrecomputeStatus.PENDING


def test_the_version_is_that_of_the_distribution() -> None:
    assert headstart.__version__ == importlib.metadata.version("headstart")


def test_builders_for_tests_show_whole_results_in_the_right_shapes() -> None:
    results = testing.completed_results("game-7", clue_count=3, null_sample_count=9, dimensions=4)

    assert (results.key, results.status, results.missing) == ("game-7", "completed", ())
    assert results.bridging is not None
    assert results.bridging.haiku_clues == ("clue0", "clue1", "clue2")
    assert results.bridging.lexical_embeddings is not None
    assert [len(each) for each in results.bridging.lexical_embeddings] == [4, 4, 4]
    assert results.bridging.null_samples is not None
    assert len(results.bridging.null_samples) == 9
    assert list(results.bridging.null_samples) == sorted(results.bridging.null_samples)


def test_builders_for_tests_show_the_gaps_that_callers_must_cope_with() -> None:
    result = testing.completed_precompute_result("game-7", missing=["null_samples"])
    human = testing.completed_precompute_result("game-7", recipient_type="human")

    assert (result.game_id, result.null_samples) == ("game-7", None)
    assert result.haiku_clues is not None
    assert (human.haiku_clues, human.haiku_embeddings) == (None, None)
    assert human.null_samples is not None


def test_builders_for_tests_refuse_a_step_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="no such step: haiku_bridge"):
        testing.completed_results(recipient_type="human", missing=["haiku_bridge"])
