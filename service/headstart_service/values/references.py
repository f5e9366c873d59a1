"""A value that is kept elsewhere: steps pass a reference, and read its data where needed."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Reference(BaseModel):
    """Where the `storage` provider has put data, and what they are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(min_length=1, max_length=2000)
    bytes: int = Field(ge=0)
    """How many there are."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
