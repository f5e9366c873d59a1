"""Declares the settings of the provider `storage`."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings


class StorageSettings(BaseSettings):
    """A part of `Settings`. Durations are in seconds."""

    storage: str | None = Field(
        None,
        description="URL below which steps with `storage` keep data, such as "
        "`file:///srv/headstart` or `s3://bucket/headstart`. All workers need the same.",
    )
    storage_ttl: float = Field(
        8 * 86400.0,
        ge=60.0,
        le=90 * 86400,
        description="How long stored data live, longer than results and memos that refer to them.",
    )
