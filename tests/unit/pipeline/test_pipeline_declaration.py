from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel, Field

from headstart_service.domain.errors import InvalidRequest, StartupError
from headstart_service.pipeline.mistakes import DeclarationError
from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.registry import Registry, load_pipelines
from headstart_service.pipeline.step import Step, step
from headstart_service.values.artifacts import ArtifactCodec
from tests.support.ledger import pipeline_of


class Inputs(BaseModel):
    size: int = Field(ge=1)
    colour: str = "red"
    bonus: bool = False


@step(required=True, timeout=2.0)
async def base(size: int) -> int:
    return size


@step()
async def painted(base: int, colour: str, brush: Any) -> str:
    return f"{base} {colour}"


@step(when=lambda inputs: inputs.bonus)
async def extra(size: int, step_digest: str) -> str:
    return step_digest


@step()
async def after_extra(extra: str, palette: Any) -> str:
    return extra


PIPELINE = pipeline_of(after_extra, painted, extra, base, inputs=Inputs)


def make(*steps: Step, name: str = "test", version: str = "1") -> Pipeline:
    return Pipeline(name, version, "", Inputs, steps, ArtifactCodec())


def digests(pipeline: Pipeline = PIPELINE, **raw: Any) -> dict[str, str]:
    return dict(pipeline.plan({"size": 1, "bonus": True} | raw, "inputs").steps)


def test_a_step_more_or_less_is_another_digest_of_the_runs_that_have_it() -> None:
    """A finished run without it is not what workers of today would make."""
    one, two = make(base), make(base, extra)
    for bonus, same in ((True, False), (False, True)):
        raw = {"size": 1, "bonus": bonus}
        assert (one.plan(raw, "").digest == two.plan(raw, "").digest) is same


def violations(**raw: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        PIPELINE.plan(raw, "custom.inputs")
    return {v.field: v.description for v in caught.value.violations}


def test_a_step_takes_its_name_and_needs_from_its_function() -> None:
    assert painted.name == "painted"
    assert painted.parameters == ("base", "colour", "brush")
    assert PIPELINE.needs(painted) == ("base",)
    assert PIPELINE.needs(base) == ()


def test_steps_are_ordered_after_what_they_need() -> None:
    assert sorted(PIPELINE.order) == ["after_extra", "base", "extra", "painted"]
    assert PIPELINE.order.index("base") < PIPELINE.order.index("painted")
    assert PIPELINE.order.index("extra") < PIPELINE.order.index("after_extra")


def test_providers_are_what_is_neither_input_nor_step_nor_digest() -> None:
    assert PIPELINE.providers() == {"brush", "palette"}
    assert make(base, extra).providers() == set()


def test_steps_in_a_circle_are_refused_with_the_circle() -> None:
    @step()
    async def one(two: int) -> int:
        return two

    @step()
    async def two(one: int) -> int:
        return one

    with pytest.raises(ValueError, match=r"circle: (one -> two -> one|two -> one -> two)"):
        make(one, two)


def test_a_step_that_needs_itself_is_refused() -> None:
    @step()
    async def selfish(selfish: int) -> int:
        return selfish

    with pytest.raises(ValueError, match="circle: selfish -> selfish"):
        make(selfish)


def test_two_steps_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two steps are named base"):
        make(base, base)


def test_a_step_named_like_an_input_is_refused() -> None:
    @step()
    async def colour(size: int) -> str:
        return str(size)

    with pytest.raises(ValueError, match="colour is both an input and a step"):
        make(colour)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"timeout": 0}, "timeout must be more than 0"),
        ({"max_attempts": 0}, "max_attempts must be 1 or more"),
        ({"backoff": -0.1}, "backoff must be 0"),
        ({"settle": -1}, "settle must be 0 to 60 seconds, is -1"),
        ({"settle": 61}, "settle must be 0 to 60 seconds, is 61"),
        ({"settle": float("nan")}, "settle must be 0 to 60 seconds, is nan"),
        ({"settle": "0.6"}, "settle must be 0 to 60 seconds, is '0.6'"),
        ({"retry_on": TimeoutError}, "retry_on must be a tuple of exceptions"),
        ({"retry_on": (TimeoutError, "OSError")}, "'OSError' is no exception"),
        ({"retry_on": (BaseException,)}, "is no exception"),
        ({"ttl": 60}, "ttl needs memo=True"),
        ({"memo": True, "ttl": 0}, "ttl must be 0.001 to 2592000 seconds, is 0"),
        ({"memo": True, "memo_failures": 86401}, "memo_failures must be 0.001 to 86400 seconds"),
        ({"max_bytes": 0}, "max_bytes must be 1 to 62,914,560, is 0"),
        ({"max_bytes": 1.5}, "max_bytes must be 1 to 62,914,560, is 1.5"),
    ],
)
def test_a_steps_rules_must_be_in_range(rules: dict[str, Any], message: str) -> None:
    async def ruled() -> None: ...

    where = r"test_pipeline_declaration\.py:\d+: step ruled: "
    with pytest.raises((ValueError, TypeError), match=f"{where}.*{re.escape(message)}"):
        step(**rules)(ruled)


def test_only_async_functions_with_plain_parameters_are_steps() -> None:
    def plain() -> None: ...

    async def starred(*sizes: int) -> None: ...

    async def keywords(**sizes: int) -> None: ...

    async def positional(size: int, /) -> None: ...

    for function in (plain, starred, keywords, positional):
        with pytest.raises(TypeError, match=function.__name__):
            step()(function)  # type: ignore[arg-type]


def test_a_plan_reports_every_violation_with_its_path() -> None:
    found = violations(size=0, colour=["red"])
    assert set(found) == {"custom.inputs.size", "custom.inputs.colour"}
    assert "greater than or equal to 1" in found["custom.inputs.size"]


def test_a_missing_input_is_reported_by_its_path() -> None:
    assert set(violations()) == {"custom.inputs.size"}


def test_a_validators_own_words_reach_the_caller_without_pydantics_prefix() -> None:
    class Even(BaseModel):
        size: int

        def model_post_init(self, _: Any) -> None:
            if self.size % 2:
                raise ValueError("size must be even")

    @step()
    async def only(size: int) -> int:
        return size

    with pytest.raises(InvalidRequest) as caught:
        pipeline_of(only, inputs=Even).plan({"size": 3}, "in")
    assert [(v.field, v.description) for v in caught.value.violations] == [
        ("in", "size must be even")
    ]


def test_equal_inputs_however_written_give_equal_plans() -> None:
    assert PIPELINE.plan({"size": 2}, "") == PIPELINE.plan({"colour": "red", "size": 2.0}, "")


def test_each_steps_digest_changes_exactly_with_what_it_depends_on() -> None:
    before = digests()
    assert set(before) == {"base", "painted", "extra", "after_extra"}
    assert all(re.fullmatch("[0-9A-Za-z_-]{22}", value) for value in before.values())
    assert len(set(before.values())) == len(before)

    coloured = digests(colour="blue")
    assert {name for name in before if before[name] != coloured[name]} == {"painted"}
    resized = digests(size=2)
    assert {name for name in before if before[name] != resized[name]} == set(before)


def test_the_runs_digest_changes_with_every_input_and_the_version() -> None:
    plans = [
        PIPELINE.plan({"size": 1}, ""),
        PIPELINE.plan({"size": 2}, ""),
        PIPELINE.plan({"size": 1, "colour": "blue"}, ""),
        make(after_extra, painted, extra, base, version="2").plan({"size": 1}, ""),
        make(after_extra, painted, extra, base, name="other").plan({"size": 1}, ""),
    ]
    assert len({plan.digest for plan in plans}) == len(plans)


def test_another_version_or_name_changes_every_steps_digest() -> None:
    before = digests()
    for other in (
        make(after_extra, painted, extra, base, version="2"),
        make(after_extra, painted, extra, base, name="other"),
    ):
        after = digests(other)
        assert all(before[name] != after[name] for name in before)


def test_a_step_that_is_not_wanted_is_left_out_with_its_dependents() -> None:
    assert set(digests(bonus=False)) == {"base", "painted"}


def test_a_plan_of_no_steps_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        make(extra, after_extra).plan({"size": 1}, "custom.inputs")
    assert caught.value.violations[0].field == "custom.inputs"


def test_the_registry_finds_pipelines_by_name_and_names_all_when_asked_for_another() -> None:
    first, second = make(base), make(base, name="second")
    registry = Registry([first, second])
    assert list(registry) == [first, second]
    assert registry.find("second") is second
    assert registry.find("third") is None
    with pytest.raises(InvalidRequest) as caught:
        registry.require("third", "custom.pipeline")
    assert caught.value.violations[0].field == "custom.pipeline"
    assert caught.value.violations[0].description == "must be one of: second, test; is 'third'"


def test_two_pipelines_of_one_name_stop_the_process() -> None:
    with pytest.raises(StartupError, match="two pipelines are named test"):
        Registry([make(base), make(base)])


def test_pipelines_are_loaded_by_reference() -> None:
    reference = "headstart_service.pipelines.bridging:BRIDGING"
    assert [pipeline.name for pipeline in load_pipelines([reference])] == ["bridging"]


@pytest.mark.parametrize(
    "reference", ["no_such_module:X", "headstart_service.domain:NOTHING", "json", "json:dumps", ""]
)
def test_a_reference_to_no_pipeline_is_named(reference: str) -> None:
    with pytest.raises(StartupError, match=f"HEADSTART_PIPELINES: .*{reference}"):
        load_pipelines([reference])


def test_a_module_that_breaks_while_it_declares_a_pipeline_is_named(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_games.py").write_text("raise TypeError('step x must be async')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(StartupError, match="broken_games:X: step x must be async"):
        load_pipelines(["broken_games:X"])


def versioned(**versions: str) -> Pipeline:
    """The pipeline with versions of its steps."""
    steps = [replace(s, version=versions.get(s.name, "")) for s in PIPELINE.steps]
    return replace(PIPELINE, steps=steps)


def test_a_steps_version_changes_its_digest_and_those_of_what_needs_it_and_no_other() -> None:
    before, after = digests(), digests(versioned(base="2"))
    needing = {"base"}
    for name in PIPELINE.order:
        if needing & set(PIPELINE.needs(PIPELINE.by_name[name])):
            needing.add(name)
    assert {name for name in before if before[name] != after[name]} == needing
    assert needing < set(before)


def test_the_runs_digest_changes_with_the_version_of_any_step_that_it_has() -> None:
    plans = [
        pipeline.plan({"size": 1}, "").digest
        for pipeline in (PIPELINE, versioned(base="2"), versioned(base="3"), versioned(painted="2"))
    ]
    assert len(set(plans)) == len(plans)


def test_the_version_of_a_step_that_a_run_leaves_out_changes_nothing() -> None:
    one, other = (made.plan({"size": 1}, "") for made in (PIPELINE, versioned(extra="2")))
    assert (one.digest, one.steps) == (other.digest, other.steps)


def in_pool(pool: str, name: str = "test") -> Pipeline:
    return Pipeline(name, "1", "", Inputs, (base,), ArtifactCodec(), pool=pool)


def test_a_pool_is_in_the_definition_and_changes_no_result() -> None:
    plain, gpu = make(base), in_pool("gpu")
    assert gpu.definition == f"{plain.definition}/gpu"
    assert in_pool("default").definition == plain.definition
    raw = {"size": 1}
    assert gpu.plan(raw, "").digest == plain.plan(raw, "").digest


@pytest.mark.parametrize("pool", ["", "GPU", "a_b", "-a", "a-", "x" * 33, "a/b", "a b"])
def test_a_malformed_pool_is_refused_with_what_it_may_be(pool: str) -> None:
    with pytest.raises(DeclarationError, match=r"pool = .* must be 1 to 32 of a-z, 0-9 and '-'"):
        in_pool(pool)


def test_a_worker_has_the_pipelines_of_its_pools_and_names_those_that_no_pipeline_has() -> None:
    registry = Registry([make(base, name="plain"), in_pool("gpu", "big"), in_pool("io", "slow")])
    assert {p.name for p in registry.of_pools(())} == {"plain", "big", "slow"}
    assert {p.name for p in registry.of_pools(("gpu", "default"))} == {"plain", "big"}
    with pytest.raises(StartupError, match=r"no pipeline here names fpga; they name: default, gpu"):
        registry.of_pools(("gpu", "fpga"))


def test_a_step_of_another_pool_changes_the_definition_and_no_result() -> None:
    @step(pool="gpu")
    async def base(size: int) -> int:
        return size

    moved, raw = make(base), {"size": 1}
    plain = make(step()(base.function))
    assert moved.definition != plain.definition
    assert moved.definition_in("gpu") == f"{moved.definition}/gpu"
    assert moved.plan(raw, "").digest == plain.plan(raw, "").digest
    assert moved.plan(raw, "").pools == {"base": "gpu"}
    registry = Registry([moved, make(step()(base.function), name="plain")])
    assert registry.pools == {"default", "gpu"}
    assert [p.name for p in registry.of_pools(("gpu",))] == [moved.name]
    with pytest.raises(ValueError, match=r"pool = 'GPU' must be 1 to 32 of a-z, 0-9 and '-'"):
        step(pool="GPU")(base.function)
