"""What a step may return by its annotation, how it comes back, and what is refused."""

from __future__ import annotations

import math
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict
from typing_extensions import TypedDict

from headstart._messages.tensors import DTYPES
from headstart.v1 import precompute_pb2 as pb
from headstart_service.domain.errors import StepFailed
from headstart_service.pipeline.signatures import output_type
from headstart_service.pipeline.step import Step, step
from headstart_service.values import limits as limits_module
from headstart_service.values.limits import Limits, encoded, weight
from headstart_service.worker.run import run
from tests.support.ledger import Ledger, claim_of, pipeline_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Score(BaseModel):
    model_config = ConfigDict(strict=True)

    word: str
    value: float
    day: date


class Pair(TypedDict):
    left: int
    right: float


SCORE = Score(word="a", value=1.0, day=date(2026, 11, 23))


def typed(annotation: Any) -> Step:
    """A step that returns this annotation."""

    async def made() -> None: ...

    made.__annotations__["return"] = annotation
    return step()(made)


def round_trip(annotation: Any, value: Any) -> Any:
    codec = pipeline_of(typed(annotation)).codec
    return codec.decode("made", codec.encode("made", value))


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        ("list[str]", ["a", "ż"]),
        ("list[float]", [1.0, 2.5]),
        ("dict[str, int]", {"a": 1, "b": 2**60}),
        ("dict[int, str]", {1: "x"}),
        ("tuple[int, float]", (1, 1.0)),
        ("int", 3),
        ("float", 3.0),
        ("bool", True),
        ("str", ""),
        ("bytes", b"\x00\xff"),
        ("None", None),
        ("str | None", None),
        ("Literal['a', 'b']", "b"),
        ("Pair", {"left": 1, "right": 2.0}),
        ("Score", SCORE),
        ("list[Score]", [SCORE, SCORE]),
        ("dict[str, Score]", {"x": SCORE}),
        ("Any", {"a": [1, 1.0, None]}),
        (list[str], ["not", "text"]),
    ],
)
def test_a_value_comes_back_as_its_annotation_says(annotation: Any, value: Any) -> None:
    decoded = round_trip(annotation, value)
    assert decoded == value
    assert repr(decoded) == repr(value)


@pytest.mark.parametrize(
    "dtype",
    sorted(DTYPES),
)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 0), (2, 3)])
def test_arrays_of_every_type_and_shape_come_back_exactly(dtype: str, shape: Any) -> None:
    bits = np.random.default_rng(3).bytes(np.dtype(dtype).itemsize * math.prod(shape))
    array = np.frombuffer(bits, dtype=dtype).reshape(shape)
    if array.dtype.kind in "fc":  # among any bits are NaNs of many kinds, which are one when kept
        array = np.asarray(np.nan_to_num(array))
    elif dtype == "bool":
        array = np.asarray(np.arange(math.prod(shape)).reshape(shape) % 2 == 0)
    decoded = round_trip("NDArray[np.generic]", array)
    assert decoded.dtype == array.dtype
    assert decoded.shape == array.shape
    assert decoded.tobytes() == array.tobytes()


def test_a_tensor_has_the_arrays_own_bytes_little_endian_and_row_by_row() -> None:
    codec = pipeline_of(typed("NDArray[np.generic]")).codec
    rows = np.array([[1, -2], [3, 4]], dtype=np.int16)
    for array in (rows, np.asfortranarray(rows), rows.astype(">i2"), rows[::-1][::-1]):
        message = pb.GetResultsResponse.FromString(codec.encode("made", array))
        assert message.custom.artifacts["made"].tensor == pb.Tensor(
            dtype="int16", shape=[2, 2], data=b"\1\0\xfe\xff\3\0\4\0"
        )
    image = codec.encode("made", np.zeros((100, 100, 3), np.uint8))
    assert len(image) < 30_100, "a byte a value"


def test_a_step_may_change_an_array_that_it_gets() -> None:
    array = round_trip("NDArray[np.float32]", np.ones(2, np.float32))
    array *= 2
    assert array.tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("annotation", "value", "reason"),
    [
        ("list[str]", {}, r"returned dict, not list\[str\]"),
        ("list[str]", ["a", 3], r"returned list, not list\[str\]: at 1: "),
        ("int", True, "returned bool, not int"),
        ("int", 1.0, "returned float, not int"),
        ("int", np.int64(1), "returned int64, not int"),
        ("bytes", "x", "returned str, not bytes"),
        ("bytes", bytearray(b"x"), "returned bytearray, not bytes"),
        ("Score", None, "returned NoneType, not Score"),
        ("list[Score]", [{"word": "secret"}], r"not list\[Score\]: at 0.value: Field required"),
        ("NDArray[np.float32]", [1.0], r"returned list, not ndarray\[float32\]"),
        ("NDArray[np.float32]", np.zeros(2), r"ndarray\[float64\], not ndarray\[float32\]"),
        ("np.ndarray", np.array(["x"]), r"returned ndarray\[str\d*\], whose values are no numbers"),
        ("float", float("nan"), "returned float that holds nan"),
        ("Any", SCORE, "returned Score: annotate the step with that model"),
    ],
)
def test_what_does_not_fit_the_annotation_is_refused_and_told(
    annotation: str, value: Any, reason: str
) -> None:
    codec = pipeline_of(typed(annotation)).codec
    with pytest.raises(StepFailed, match=reason) as refused:
        codec.encode("made", value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        ("list[str]", "list[str]"),
        ("dict[str, list[int]] | None", "dict[str, list[int]] | None"),
        ("NDArray[np.float32]", "ndarray[float32]"),
        ("np.ndarray", "ndarray"),
        ("npt.NDArray[np.int64]", "ndarray[int64]"),
        ("list[Score]", "list[Score]"),
        ("Literal['a']", "Literal['a']"),
        (np.ndarray, "ndarray"),
        (np.ndarray[Any, np.dtype[np.uint8]], "ndarray[uint8]"),
    ],
)
def test_a_steps_output_type_is_reported_as_python_writes_it(annotation: Any, text: str) -> None:
    pipeline = pipeline_of(typed(annotation))
    assert output_type(pipeline.codec, pipeline.steps[0]) == text


def test_the_next_step_gets_the_annotated_type_whoever_computed_it() -> None:
    codec = pipeline_of(typed("list[float]")).codec
    assert repr(codec.checked("made", [1, 2])) == "[1.0, 2.0]"
    assert repr(round_trip("list[float]", [1, 2])) == "[1.0, 2.0]"


@step()
async def scores() -> list[Score]:
    return [SCORE]


@step()
async def vector() -> NDArray[np.int32]:
    return np.array([1, 2], dtype=np.int32)


@step()
async def told(scores: list[Score], vector: NDArray[np.int32]) -> str:
    return f"{scores[0]!r} {vector.dtype} {vector.sum()}"


async def test_another_worker_goes_on_with_values_of_the_same_types() -> None:
    pipeline, first = pipeline_of(scores, vector, told), Ledger()
    await run(claim_of(pipeline), pipeline, {}, first)
    kept = {name: first.records[name] for name in ("scores", "vector")}
    second = Ledger()
    await run(claim_of(pipeline, ended=kept), pipeline, {}, second)
    assert second.value("told") == first.value("told") == f"{SCORE!r} int32 3"


@step()
async def small() -> bytes:
    return bytes(600)


@step()
async def bulky() -> list[int]:
    return list(range(1500))


@step()
async def hundred_thousand() -> list[str]:
    return ["x" * 100] * 100_000


async def told_of(*steps: Step, limits: Limits) -> dict[str, str]:
    pipeline, ledger = pipeline_of(*steps), Ledger()
    await run(claim_of(pipeline), pipeline, {}, ledger, limits=limits)
    return {each.name: ledger.report(each.name).error for each in steps}


async def test_a_step_that_returns_too_much_fails_alone_with_size_and_limit() -> None:
    told = await told_of(small, bulky, hundred_thousand, limits=Limits(5000, 100_000))
    assert told["small"] == ""
    assert told["bulky"].startswith("returned ")
    assert told["bulky"].endswith(" bytes; HEADSTART_MAX_ARTIFACT_BYTES is 5,000")
    assert told["hundred_thousand"].startswith("returned at least ")


async def test_the_step_that_makes_a_run_too_large_fails_alone() -> None:
    @step()
    async def more(small: bytes) -> bytes:
        return small

    told = await told_of(small, more, limits=Limits(1000, 1000))
    assert told["small"] == ""
    assert "HEADSTART_MAX_RUN_BYTES is 1,000" in told["more"]
    assert "with which the run would have 1,2" in told["more"]


async def test_what_was_kept_before_counts_to_a_runs_limit() -> None:
    @step()
    async def more(small: bytes) -> bytes:
        return small

    pipeline, first = pipeline_of(small, more), Ledger()
    await run(claim_of(pipeline), pipeline, {}, first)
    second = Ledger()
    kept = {"small": first.records["small"]}
    claim = claim_of(pipeline, ended=kept)
    await run(claim, pipeline, {}, second, limits=Limits(1000, 1000))
    assert "HEADSTART_MAX_RUN_BYTES" in second.report("more").error


@pytest.mark.parametrize(
    "value",
    [
        "x" * 300,
        ["ż", "b"],
        {"a": [1, 2.5, None, True]},
        list(range(10)),
        [0.5] * 10,
        [None, False, {}, {"": 0}],
        b"x" * 70,
        np.zeros((7, 9)),
        np.zeros(50, dtype=np.bool_),
        SCORE,
        [[[]]],
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_weight_is_never_more_than_what_is_kept(value: Any) -> None:
    annotation = "Score" if value is SCORE else "Any"
    codec = pipeline_of(typed(annotation)).codec
    assert 0 < weight(value, 10**9) <= len(codec.encode("made", value))


def test_weighing_stops_at_enough_also_in_what_holds_itself() -> None:
    loop: dict[str, Any] = {}
    loop[""] = loop
    assert 1000 < weight(loop, 1000) < 1100


async def test_a_large_value_is_encoded_off_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = pipeline_of(typed("list[str]")).codec
    off = []
    in_own_thread = limits_module.in_own_thread
    monkeypatch.setattr(
        limits_module,
        "in_own_thread",
        lambda *all_, **more: off.append(1) or in_own_thread(*all_, **more),
    )
    await encoded(codec, "made", ["x"], Limits())
    assert not off
    value, fragment = await encoded(codec, "made", ["x" * 100] * 1000, Limits())
    assert off
    assert codec.decode("made", fragment) == value


assert Literal  # named in annotations above
