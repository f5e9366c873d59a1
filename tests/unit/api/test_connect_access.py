"""Which pages, hosts and machines may call over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from headstart_service.base.service_methods import SERVICE
from headstart_service.http.connect.access import Access
from tests.unit.api.conftest import KEY, Api
from tests.unit.api.connect_port import JSON, Opening, opening_over


@pytest.fixture
def opening(api: Api) -> Opening:
    return opening_over(api)


def access(**rules: Any) -> Access:
    return Access(**({"host": "127.0.0.1", "tokens": False, "local": True, "open": True} | rules))


@pytest.mark.promise("Pages of other sites cannot call over HTTP", "`http/connect/access`")
@pytest.mark.parametrize(
    ("headers", "rules", "status"),
    [
        ({}, {}, 200),
        ({"host": "localhost:8080"}, {}, 200),
        ({"host": "evil.example"}, {}, 403),
        ({"host": "headstart.prod.svc"}, {"local": False}, 200),
        ({"origin": "https://evil.example"}, {}, 403),
        ({"origin": "null"}, {}, 403),
        ({"sec-fetch-site": "cross-site"}, {}, 403),
        ({"sec-fetch-site": "same-site"}, {}, 403),
        ({"sec-fetch-site": "same-origin"}, {}, 200),
        ({"origin": "http://localhost:1", "host": "localhost:1"}, {}, 200),
        ({"origin": "http://evil.example:1", "host": "evil.example:1"}, {"local": False}, 403),
        ({"origin": "https://shop.example"}, {"origins": ("https://shop.example",)}, 200),
        ({"origin": "https://evil.example"}, {"origins": ("https://shop.example",)}, 403),
    ],
)
async def test_pages_of_other_sites_call_only_if_they_are_allowed(
    opening: Opening, headers: dict[str, str], rules: dict[str, Any], status: int
) -> None:
    async with opening(access=access(**rules)) as http:
        answer = await http.post("GetStatus", headers=JSON | headers)
        assert answer.status_code == status
        if status == 403:
            assert "access-control-allow-origin" not in answer.headers


async def test_a_form_with_an_origin_is_refused(opening: Opening) -> None:
    form = {"content-type": "application/x-www-form-urlencoded", "origin": "https://shop.example"}
    async with opening(access=access(origins=("https://shop.example",))) as http:
        assert (await http.post("GetStatus", headers=form)).status_code == 415


async def test_a_read_by_get_needs_a_name_of_this_machine(opening: Opening) -> None:
    async with opening(access=access(local=False)) as http:
        url = f"/{SERVICE}/GetStatus?message=%7B%22key%22%3A%22game-1%22%7D"
        for host, status in (("evil.example", 403), ("localhost", 200)):
            assert (await http.client.get(url, headers={"host": host})).status_code == status


@pytest.mark.promise(
    "HTTP calls are not taken unencrypted by accident", "loopback only without `HEADSTART_INSECURE`"
)
async def test_a_port_in_the_clear_serves_this_machine_alone(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opening(access=access(open=False)) as http:
        assert (await http.post("GetStatus")).status_code == 200
        name = "headstart_service.http.connect.access.is_loopback_address"
        monkeypatch.setattr(name, lambda _: False)
        answer = await http.post("GetStatus")
        assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")


async def test_an_allowed_origin_gets_the_headers_that_browsers_ask_for(opening: Opening) -> None:
    asked = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type, connect-timeout-ms, authorization",
    }
    async with opening(access=access(origins=("https://shop.example",))) as http:
        for origin, status in (("https://shop.example", 200), ("https://evil.example", 400)):
            headers = asked | {"origin": origin}
            url = f"/{SERVICE}/GetStatus"
            answer = await http.client.request("OPTIONS", url, headers=headers)
            assert answer.status_code == status
            allowed = answer.headers.get("access-control-allow-origin")
            assert allowed == (origin if status == 200 else None)
        answer = await http.post("GetStatus", headers=JSON | {"origin": "https://shop.example"})
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
        assert "origin" in answer.headers["vary"].lower()
    assert KEY.key == answer.json()["key"]
