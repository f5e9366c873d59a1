"""Declares the settings of what a process listens on, and who may call it there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from .allowed_values import PREFIX


class ListeningSettings(BaseSettings):
    """The first of the settings. Their checks are in `settings`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True
    )

    host: str = Field(
        "127.0.0.1",
        description="Address of the gRPC and HTTP ports. `::` or `0.0.0.0` is every address, "
        "`localhost` both loopback addresses.",
    )
    grpc_port: int = Field(50051, ge=0, le=65535, description="gRPC port; 0 picks a free one.")
    http_port: int = Field(
        8080,
        ge=0,
        le=65535,
        description="HTTP port; 0 picks a free one. So does a worker when the default port is "
        "taken.",
    )
    tls_cert: Path | None = Field(
        None,
        description="PEM file of the server's certificate chain. Certificate and key are read "
        "again when they change.",
    )
    tls_key: Path | None = Field(None, description="PEM file of that certificate's key.")
    tls_client_ca: Path | None = Field(
        None,
        description="PEM file of authorities (mTLS): only clients with a certificate of theirs "
        "may connect.",
    )
    insecure: bool = Field(
        False,
        description="Whether the gRPC port may serve other machines without TLS, as in a "
        "container.",
    )
    tokens: Path | None = Field(
        None,
        description="File of the tokens that callers need, read again when it changes; "
        "`headstart token` makes its lines. Without a file no caller needs a token.",
    )
    limits: Path | None = Field(
        None,
        description="TOML file of the limits of namespaces and providers, read again when it "
        "changes. Without a file every namespace weighs the same.",
    )
    reflection: bool = Field(True, description="Whether the gRPC port serves reflection.")
    dashboard: bool = Field(True, description="Whether the HTTP port serves the live page.")
    connect: bool = Field(
        True, description="Whether the HTTP port serves the API with JSON, by the Connect protocol."
    )
    connect_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port of its own for that, not the HTTP port; 0 picks a free one. With a "
        "certificate it speaks TLS.",
    )
    http_tls: bool = Field(
        False,
        description="Whether the HTTP port of `serve` speaks TLS, for probes and metrics too.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Origins of web pages that may call over HTTP, separated by commas, such as "
        "`https://shop.example`; `*` is every page, and needs tokens.",
    )
