"""A pipeline of one call of a language model, for processes of tests."""

from __future__ import annotations

from pydantic import BaseModel

from headstart_service.pipeline.language_model import LanguageModel
from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.providers import Embedder
from headstart_service.pipeline.step import step
from headstart_service.values.artifacts import ArtifactCodec


class Nothing(BaseModel):
    """No inputs."""


class Clues(BaseModel):
    clues: list[str]


async def asked(language_model: LanguageModel) -> list[str]:
    answer = await language_model.parse(system="s", prompt="p", output=Clues, max_tokens=50)
    return answer.clues


@step(timeout=30)
async def patient(language_model: LanguageModel) -> list[str]:
    return await asked(language_model)


@step(timeout=2)
async def hasty(language_model: LanguageModel) -> list[str]:
    return await asked(language_model)


@step(timeout=30)
async def speaking(language_model: LanguageModel) -> str:
    async with language_model.stream(system="s", prompt="p", max_tokens=50) as answer:
        return "".join([text async for text in answer])


class Text(BaseModel):
    text: str


@step(timeout=30)
async def embedding(text: str, embedder: Embedder) -> list[float]:
    [row] = await embedder.embed([text])
    return [float(each) for each in row]


@step(timeout=5)
async def unhurried(language_model: LanguageModel) -> list[str]:
    answers = []
    for _ in range(2):  # the same question: each has an answer of its own
        answer = await language_model.text(prompt="p", max_tokens=50, batch=True)
        answers.append(answer.text)
    return answers


def _pipeline(name: str, *steps: object, language_model: str = "") -> Pipeline:
    return Pipeline(
        name=name,
        version="1",
        description="Asks a language model",
        inputs=Nothing,
        steps=steps,  # type: ignore[arg-type]
        codec=ArtifactCodec(),
        language_model=language_model,
    )


EMBEDDING = Pipeline("embedding", "1", "Embeds a text", Text, (embedding,))
PATIENT = _pipeline("patient", patient)
HASTY = _pipeline("hasty", hasty)
SPEAKING = _pipeline("speaking", speaking, language_model="openai:org/small")
UNHURRIED = _pipeline("unhurried", unhurried)
WAITING = f"{__name__}:UNHURRIED,{__name__}:PATIENT"
ASKING = f"{__name__}:PATIENT,{__name__}:HASTY"
TWO_MODELS = f"{__name__}:PATIENT,{__name__}:SPEAKING"
EMBEDS = f"{__name__}:EMBEDDING"
"""What HEADSTART_PIPELINES must be."""
