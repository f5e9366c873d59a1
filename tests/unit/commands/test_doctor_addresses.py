from __future__ import annotations

import pytest

from headstart_service.commands.doctor.address import Place, places


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("localhost:50051", [Place("localhost", 50051)]),
        ("headstart", [Place("headstart", 50051)]),
        ("[::1]:1", [Place("::1", 1)]),
        ("dns:///headstart.prod.svc:50051", [Place("headstart.prod.svc", 50051)]),
        ("dns://1.1.1.1/headstart:2", [Place("headstart", 2)]),
        ("dns:headstart:3", [Place("headstart", 3)]),
        ("ipv4:10.0.0.1:4,10.0.0.2:5", [Place("10.0.0.1", 4), Place("10.0.0.2", 5)]),
        ("ipv6:[::1]:6,[::2]:7", [Place("::1", 6), Place("::2", 7)]),
        ("unix:///run/headstart.sock", [Place("/run/headstart.sock", 0)]),
        ("unix:headstart.sock", [Place("headstart.sock", 0)]),
        ("xds:///headstart", None),
    ],
)
def test_the_places_that_grpcs_addresses_name(address: str, expected: list[Place] | None) -> None:
    assert places(address) == expected


@pytest.mark.parametrize("address", ["", ":1", "host:", "host:x", "host:65536", "host:0", "h:²"])
def test_what_names_no_place_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="is not host:port"):
        places(address)


def test_what_is_on_this_machine() -> None:
    here = ("localhost:1", "127.0.0.9:1", "[::1]:1", "unix:/a")
    there = ("example.org:1", "10.0.0.1:1")
    for address, local in [*((a, True) for a in here), *((a, False) for a in there)]:
        [place] = places(address) or []
        assert place.local is local, address
