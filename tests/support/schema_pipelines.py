"""Pipelines whose schemas have all that pydantic writes, and names that languages refuse."""

from __future__ import annotations

from datetime import datetime
from enum import Enum, IntEnum
from typing import Annotated, Any, Generic, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from headstart_service.sdk import Pipeline, step

T = TypeVar("T")


class Colour(Enum):
    RED = "red"
    BLUE = 'b"l\\ue'


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    tricks: tuple[str, int] = ("sit", 1)


Pet: TypeAlias = Annotated[Cat | Dog, Field(discriminator="kind")]


class Node(BaseModel):
    value: int
    children: list[Node] = []


class Pair(BaseModel, Generic[T]):
    left: T
    right: T | None = None


class Awkward(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)

    class_: int = Field(alias="class")
    dashed: Pair[int] = Field(alias="a-b")
    dunder: str = Field(default="", alias="__private")
    list_: list[Colour] = Field(alias="list")


class Query(BaseModel):
    text: str
    key: int
    class_: Literal["a", "b"] = Field(alias="class")
    limit: int = 10
    since: datetime | None = None
    depth: int | None = 3
    anything: Any = 1
    level: Level = Level.LOW
    start: Node | None = None
    dashed: float = Field(default=0.5, alias="from-to")
    wanted: Literal["all of them", "the newest", "the oldest", "those that are read"] = "the newest"


class Result(BaseModel):
    score: float


class Results(BaseModel):
    """Its name is one that the module imports."""

    all: list[Result]


@step(required=True)
async def pets(text: str) -> list[Pet]:
    return [Cat(), Dog()]


@step()
async def tree(text: str) -> Node:
    return Node(value=1, children=[Node(value=2)])


@step()
async def awkward(key: int) -> Awkward:
    return Awkward(class_=1, dashed=Pair(left=1), list_=[Colour.BLUE])


@step()
async def found(level: Level) -> Results:
    return Results(all=[Result(score=1.0)])


@step()
async def by_name(text: str) -> dict[str, tuple[int, ...]]:
    return {"a": (1, 2)}


@step()
async def run(text: str) -> JsonValue:
    return None


@step()
async def maybe(depth: int | None) -> Pair[str] | Level | bool | None:
    return None


@step()
async def mixed(
    limit: int,
) -> dict[str, list[Result | Pair[str] | Pair[int] | Literal["nothing was found", "too many"]]]:
    return {}


@step()
async def raw(text: str) -> bytes:
    return text.encode()


@step()
async def free(anything: Any) -> Any:
    return anything


SCHEMAS = Pipeline(
    "schemas.all-2",
    "1",
    'Has "every" \\ kind */ of """type',
    Query,
    (pets, tree, awkward, found, by_name, run, maybe, mixed, raw, free),
)


class Nothing(BaseModel):
    pass


def other() -> Pipeline:
    """Return a pipeline with another type of a name that the first has, and almost its own name."""

    class Result(BaseModel):
        score: str

    @step()
    async def result() -> Result:
        return Result(score="good")

    return Pipeline("schemas_all_2", "1", "", Nothing, (result,))


OTHER = other()
REFERENCES = (f"{__name__}:SCHEMAS", f"{__name__}:OTHER")
