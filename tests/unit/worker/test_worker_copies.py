"""Each try of a step has values of its own: what it changes reaches nobody else."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, RootModel

from headstart_service.domain import Status
from headstart_service.domain.errors import StepFailed
from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.step import Step, step
from headstart_service.values.limits import ON_LOOP
from headstart_service.worker.copies import copied
from headstart_service.worker.executors.executors import ExecutorRules, Executors
from headstart_service.worker.reuse import Reuse
from headstart_service.worker.run import run
from tests.support.ledger import Dictionary, Ledger, claim_for, claim_of, pipeline_of
from tests.support.waiting import wait_until


class Leaf(BaseModel):
    model_config = ConfigDict(extra="allow")

    numbers: list[int]
    _seen: list[int] = PrivateAttr(default_factory=list)

    @property
    def seen(self) -> list[int]:
        return self._seen


class Inputs(BaseModel):
    items: list[list[int]] = [[3], [1], [2]]
    table: dict[str, list[int]] = {"a": [1]}
    leaf: Leaf = Leaf(numbers=[1, 2])
    padding: str = ""
    count: int = 1


def spoil(value: Any) -> None:
    """Change a value in place, as deep down as it goes."""
    if isinstance(value, BaseModel):
        value = value.__dict__ | (value.model_extra or {})
    elif isinstance(value, tuple):
        for each in value:
            spoil(each)
    if isinstance(value, dict):
        for each in value.values():
            spoil(each)
        value.clear()
    elif isinstance(value, list):
        for each in value:
            spoil(each)
        value.clear()
    elif isinstance(value, np.ndarray):
        value[:] = -1


def plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else repr(value)


MADE: dict[Any, Any] = {
    list[list[int]]: [[3], [1], [2]],
    dict[str, list[int]]: {"a": [1], "b": [2]},
    tuple[list[int], ...]: ([1], [2]),
    Leaf: Leaf(numbers=[1, 2], more=[3]),
    list[Leaf]: [Leaf(numbers=[1]), Leaf(numbers=[2])],
    NDArray[np.float32]: np.arange(6, dtype=np.float32),
    Any: {"deep": [{"list": [1, 2]}]},
    list[str]: ["x" * 100] * (ON_LOOP // 50),
}


def pipeline_with(annotation: Any, returned: Any, runs_on: str) -> tuple[Pipeline, list[Any]]:
    """A step that gives `returned`, one that spoils it twice, and one that then sees it."""
    seen: list[Any] = []

    async def made() -> Any:
        return returned

    made.__annotations__["return"] = annotation

    def spoiler(made: Any, items: Any, table: Any, leaf: Any) -> int:
        seen.append(repr([plain(made), items, table, leaf]))
        for each in (made, items, table, leaf):
            spoil(each)
        if len(seen) == 1:
            raise StepFailed("once more")
        return 1

    async def on_loop(made: Any, items: Any, table: Any, leaf: Any) -> int:
        return spoiler(made, items, table, leaf)

    async def after(made: Any, items: Any, table: Any, leaf: Any, spoiler: int) -> int:
        seen.append(repr([plain(made), items, table, leaf]))
        return spoiler

    for each in (spoiler, on_loop, after):
        each.__annotations__ |= {"made": annotation, "items": list[list[int]], "leaf": Leaf}
        each.__annotations__ |= {"table": dict[str, list[int]]}
    on_loop.__name__ = "spoiler"
    spoiling = step(max_attempts=2, backoff=0, runs_on=runs_on)(
        on_loop if runs_on == "loop" else spoiler
    )
    return pipeline_of(step()(made), spoiling, step()(after), inputs=Inputs), seen


@pytest.mark.parametrize("runs_on", ["loop", "thread"])
@pytest.mark.parametrize("annotation", MADE, ids=str)
async def test_what_a_try_changes_reaches_neither_its_next_try_nor_its_neighbours(
    annotation: Any, runs_on: str
) -> None:
    returned = MADE[annotation]
    before = plain(returned)
    pipeline, seen = pipeline_with(annotation, returned, runs_on)
    ledger = Ledger()
    assert await run(claim_of(pipeline), pipeline, {}, ledger) is Status.COMPLETED
    assert ledger.report("spoiler").attempts == 2
    assert len(seen) == 3
    assert seen[0] == seen[1] == seen[2]
    assert plain(returned) == before, "the step that made it has it still"


async def test_heavy_inputs_are_copied_in_a_thread_and_as_well() -> None:
    seen: list[int] = []

    @step(max_attempts=2, backoff=0)
    async def spoils(items: list[list[int]], padding: str) -> int:
        seen.append(len(items))
        items.clear()
        if len(seen) == 1:
            raise StepFailed("once more")
        return len(padding)

    pipeline, ledger = pipeline_of(spoils, inputs=Inputs), Ledger()
    claim = claim_of(pipeline, {"padding": "x" * 2 * ON_LOOP})
    await run(claim, pipeline, {}, ledger)
    assert (seen, ledger.value("spoils")) == ([3, 3], 2 * ON_LOOP)


async def test_a_memo_is_made_of_what_its_key_holds_beside_a_step_that_changes_it() -> None:
    @step()
    async def words() -> list[str]:
        return ["b", "a"]

    @step()
    async def last(words: list[str]) -> str:
        return words.pop()

    @step(memo=True)
    async def number(words: list[str], last: str) -> int:
        return len(words) + len(last)

    pipeline, reuse = pipeline_of(words, last, number), Reuse(Dictionary())
    for key in ("one", "two"):
        ledger = Ledger()
        await run(claim_for(pipeline, key), pipeline, {}, ledger, reuse=reuse)
        assert ledger.value("number") == 3


async def test_what_a_step_goes_on_changing_after_its_return_changes_nothing_kept() -> None:
    going_on: list[asyncio.Task[None]] = []
    changed = asyncio.Event()

    @step()
    async def gives() -> list[int]:
        return _going_on()

    def _going_on() -> Any:
        value = [1, 2]

        async def go_on() -> None:
            value.append(3)
            changed.set()

        going_on.append(asyncio.create_task(go_on()))
        return value

    @step()
    async def takes(gives: Any) -> int:
        await changed.wait()
        return len(gives)

    # Any: no check of a type copies the list.
    gives = replace(gives, function=_annotated(gives, Any))
    pipeline, ledger = pipeline_of(gives, takes), Ledger()
    assert await run(claim_of(pipeline), pipeline, {}, ledger) is Status.COMPLETED
    assert (ledger.value("gives"), ledger.value("takes")) == ([1, 2], 2)


def _annotated(each: Step, annotation: Any) -> Any:
    each.function.__annotations__["return"] = annotation
    return each.function


async def test_runs_that_share_a_step_under_way_do_not_share_its_value() -> None:
    may_end, seen = asyncio.Event(), []

    @step(timeout=20)
    async def words() -> Any:
        await may_end.wait()
        return ["a", "b"]

    @step()
    async def last(words: Any, count: int) -> str:
        seen.append((count, list(words)))
        return str(words.pop())

    pipeline, reuse = pipeline_of(words, last, inputs=Inputs), Reuse()
    ledgers = [Ledger(), Ledger()]
    # Two revisions of one key, the older not yet stopped: `words` runs once, for both.
    running = [
        asyncio.create_task(
            run(claim_for(pipeline, "k", count=at), pipeline, {}, ledgers[at], reuse=reuse)
        )
        for at in range(2)
    ]
    await wait_until(lambda: max(reuse.shared_steps.waiting.values(), default=0) == 2)
    may_end.set()
    await asyncio.gather(*running)
    assert sorted(seen) == [(0, ["a", "b"]), (1, ["a", "b"])]


class Pair(NamedTuple):
    left: NDArray[np.float32]
    right: list[int]


@dataclass(frozen=True, slots=True, eq=False)
class Ends:
    anchor: NDArray[np.float32]
    pair: Pair


class Rows(RootModel[list[list[int]]]):
    pass


def test_a_copy_is_equal_and_shares_nothing_that_can_change() -> None:
    leaf = Leaf(numbers=[1], more=[2])
    leaf.seen.append(5)
    ends = Ends(np.ones(3, dtype=np.float32), Pair(np.zeros(2, dtype=np.float32), [1]))
    value = {
        "leaf": leaf,
        "ends": ends,
        "rows": Rows([[1], [2]]),
        "mixed": ([1], {2}, datetime.now(UTC), b"x", None, 1.5),
    }
    copy = copied(value)
    assert repr(copy) == repr(value)
    assert (copy["leaf"].seen, copy["leaf"].model_fields_set) == ([5], {"numbers", "more"})
    assert copy["leaf"].seen is not leaf.seen
    assert copy["leaf"].more is not leaf.more
    assert copy["ends"].pair.right is not ends.pair.right
    copy["ends"].anchor[:] = 7
    copy["rows"].root[0].append(9)
    copy["mixed"][1].add(3)
    spoil(copy)
    assert (leaf.numbers, leaf.more, value["rows"].root) == ([1], [2], [[1], [2]])
    assert value["mixed"][:2] == ([1], {2})
    assert ends.anchor.tolist() == [1, 1, 1]


class Node(BaseModel):
    name: str
    children: list[Node] = []
    _parent: Any = PrivateAttr(default=None)

    def model_post_init(self, _: Any, /) -> None:
        for child in self.children:
            child.adopt(self)

    @property
    def parent(self) -> Any:
        return self._parent

    def adopt(self, parent: Node) -> None:
        self._parent = parent


class Shelf(BaseModel):
    rows: list[list[int]]

    @cached_property
    def first(self) -> list[int]:
        return self.rows[0]


class Shares(BaseModel):
    rows: list[int]

    def __copy__(self) -> Shares:
        return self


def test_a_copy_of_models_that_hold_more_than_fields_stays_one_thing() -> None:
    tree = copied({"tree": Node(name="a", children=[Node(name="b")])})["tree"]
    assert tree.children[0].parent is tree
    shelf = Shelf(rows=[[1]])
    assert shelf.first
    copy = copied([shelf])[0]
    assert copy.first is copy.rows[0]
    assert copy.first is not shelf.first
    shares = Shares(rows=[1])
    assert copied(shares).rows is not shares.rows


class Wide(Leaf):
    more: int = 2


@pytest.mark.parametrize(
    ("annotation", "returned"),
    [
        (dict[str, int], {"z": 1, "a": 2}),
        (Any, ({"z": 1, "a": 2}, (3, 4))),
        (Leaf, Wide(numbers=[1])),
        (NDArray[np.float32], np.arange(3, dtype=">f4")),
    ],
    ids=str,
)
async def test_a_step_gets_the_same_value_here_and_after_a_takeover(
    annotation: Any, returned: Any
) -> None:
    """A dict's order, tuples, subclasses and the order of bytes are not in the fragment."""
    seen: list[Any] = []

    @step()
    async def made() -> Any:
        return returned

    @step()
    async def takes(made: Any) -> int:
        seen.append(made)
        return 1

    made.function.__annotations__["return"] = annotation
    takes.function.__annotations__["made"] = annotation
    pipeline, ledger = pipeline_of(made, takes), Ledger()
    assert await run(claim_of(pipeline), pipeline, {}, ledger) is Status.COMPLETED
    again = pipeline.codec.decode("made", pipeline.codec.encode("made", returned))
    assert (type(seen[0]), repr(seen[0])) == (type(again), repr(again))
    assert getattr(seen[0], "dtype", None) == getattr(again, "dtype", None)


class Tree(BaseModel):
    tree: Node


async def test_inputs_whose_models_refer_to_each_other_are_started_and_copied() -> None:
    @step()
    async def links(tree: Node) -> bool:
        return tree.children[0].parent is tree

    pipeline, ledger = pipeline_of(links, inputs=Tree), Ledger()
    raw = {"tree": {"name": "a", "children": [{"name": "b"}]}}
    assert await run(claim_of(pipeline, raw), pipeline, {}, ledger) is Status.COMPLETED
    assert ledger.value("links") is True


class Secretive(BaseModel):
    number: int = Field(exclude=True)


async def test_a_value_that_no_worker_could_read_again_fails_its_step() -> None:
    @step()
    async def made() -> Secretive:
        return Secretive(number=1)

    @step()
    async def takes(made: Secretive) -> int:
        return made.number

    pipeline, ledger = pipeline_of(made, takes), Ledger()
    await run(claim_of(pipeline), pipeline, {}, ledger)
    assert (
        ledger.report("made").error == "returned Secretive that cannot be read again as it is kept"
    )


def test_a_copy_of_a_read_only_array_can_be_changed() -> None:
    shared = np.ones(3, dtype=np.float32)
    shared.flags.writeable = False
    copied(shared)[:] = 2
    assert shared.tolist() == [1, 1, 1]


async def test_a_process_gets_values_of_its_own() -> None:
    async with Executors(ExecutorRules(processes=1)) as executors:
        pipeline = pipeline_of(listed, pops, inputs=Inputs)
        ledger = Ledger()
        await run(claim_of(pipeline), pipeline, {}, ledger, executors=executors)
    assert ledger.value("pops") == 3


@step()
async def listed() -> list[int]:
    return [1, 2, 3]


@step(runs_on="process", max_attempts=2, backoff=0)
def pops(listed: list[int]) -> int:
    listed.append(len(listed))
    return listed[-1]
