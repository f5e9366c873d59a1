"""Write the generated parts of pages, of the dashboard and of the service config: `make docs`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from . import (
    contract_pages,
    dashboard,
    decisions_page,
    exit_codes_page,
    metrics_page,
    openapi,
    promises_page,
    settings_page,
    step_options,
)

PAGES: Final[Mapping[Path, Callable[[str], str]]] = {
    settings_page.PAGE: settings_page.page,
    metrics_page.PAGE: metrics_page.page,
    step_options.PAGE: step_options.page,
    decisions_page.PAGE: decisions_page.page,
    exit_codes_page.PAGE: exit_codes_page.page,
    promises_page.PAGE: promises_page.page,
    contract_pages.SECURITY: contract_pages.security,
    contract_pages.SERVICE_CONFIG: contract_pages.service_config,
    dashboard.PATH: dashboard.dashboard,
    openapi.PATH: openapi.document,
}
"""Each file that has generated parts, with the function that writes them into its text."""


if __name__ == "__main__":
    for path, write in PAGES.items():
        path.write_text(write(path.read_text()))
