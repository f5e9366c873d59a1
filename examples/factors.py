"""A pipeline that computes for seconds, with nothing simulated: the prime factors of a number.

`make run` serves it, so that a first run on a fresh machine, without a network, has a cost.
"""

from pydantic import BaseModel, Field

from headstart_service.sdk import Pipeline, step


class Inputs(BaseModel, extra="forbid"):
    number: int = Field(ge=2, lt=2**53)


def prime_factors(number: int, divisor: int = 2) -> list[int]:
    while divisor * divisor <= number:
        if number % divisor == 0:
            return [divisor, *prime_factors(number // divisor, divisor)]
        divisor += 1 if divisor == 2 else 2
    return [number]


@step(required=True, timeout=60, runs_on="process")
def factors(number: int) -> list[int]:
    return prime_factors(number)


FACTORS = Pipeline("factors", "1", "Prime factors of a number", Inputs, (factors,))
