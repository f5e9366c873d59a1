"""What `make audit` checks, and that each check can fail."""

from __future__ import annotations

import re
from importlib.metadata import requires
from pathlib import Path

import pytest

from deploy import audit, licences
from deploy.licences import ALLOWED, Licence, table
from deploy.pins import (
    BACKEND_LOCK,
    CONSTRAINTS,
    LOCKS,
    POLICY_LOCK,
    POLICY_TOOLS,
    needed,
    needed_to_build,
    pins,
    public,
    unhashed,
)


def test_all_is_in_order():
    assert audit.installed() == []
    assert audit.locked() == []
    assert audit.licensed() == []


def test_the_table_of_licences_has_every_dependency_with_its_pin():
    rows = re.findall(r"^\| ([\w-]+) \| ([\w.]+) \| (.+) \|$", table(), re.MULTILINE)[1:]
    assert {(name, version) for name, version, _ in rows} == {
        (name, pins(CONSTRAINTS)[name]) for name in needed("model,embedded,tracing")
    }
    assert {name: licence for name, _, licence in rows}["grpcio"] == "Apache-2.0"
    assert [name for name, _, licence in rows if licence == "?"] == []


API, WORKER, MODEL = LOCKS.values()


@pytest.mark.parametrize("path", LOCKS.values(), ids=LOCKS)
def test_the_images_get_what_constraints_pin_with_hashes_and_no_path_of_this_machine(path: Path):
    pinned = pins(CONSTRAINTS)
    assert {name: public(version) for name, version in pins(path).items()} == {
        name: pinned[name] for name in pins(path)
    }
    assert unhashed(path) == []
    assert "file:" not in path.read_text()
    assert " @ " not in path.read_text()


def test_torch_is_the_build_without_cuda():
    assert pins(MODEL)["torch"].endswith("+cpu")
    assert not [name for name in pins(MODEL) if name.startswith("nvidia")]


@pytest.mark.parametrize("path", [API, WORKER], ids=["api", "worker"])
def test_the_images_have_no_torch(path: Path):
    heavy = {"torch", "transformers", "sentence-transformers", "scikit-learn", "scipy", "onnx"}
    assert not heavy & set(pins(path))


@pytest.mark.parametrize("path", [API, WORKER], ids=["api", "worker"])
def test_the_images_can_trace(path: Path):
    wanted = needed("tracing")
    assert {"opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-grpc"} <= wanted
    assert wanted <= set(pins(path))


def test_what_an_extra_needs_is_found_through_markers_and_extras():
    wanted = needed("server")
    assert {"grpcio", "protobuf", "hiredis", "uvloop", "h11", "anyio"} <= wanted
    assert not wanted & {"torch", "pytest", "numpy", "headstart"}
    assert wanted < needed("worker")
    assert needed("server,tracing") == wanted | needed("tracing") > wanted
    assert requires("headstart")


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Constraints that a test may change."""
    copy = tmp_path / "constraints.txt"
    copy.write_text(CONSTRAINTS.read_text())
    monkeypatch.setattr(audit, "CONSTRAINTS", copy)
    return copy


def test_another_version_and_what_is_not_pinned_are_reported(other: Path):
    text = other.read_text().replace("redis==8.1.0", "redis==8.0.9").replace("anyio==4.16.0\n", "")
    other.write_text(text)
    assert audit.installed() == [
        "anyio 4.16.0 is installed, and constraints.txt does not pin it",
        "redis 8.1.0 is installed, and constraints.txt pins 8.0.9",
    ]
    assert "requirements-api.txt: redis 8.1.0, and constraints.txt pins 8.0.9" in audit.locked()


def test_a_lock_without_a_hash_or_a_dependency_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lock = tmp_path / "requirements-api.txt"
    text = API.read_text().replace("h11==", "idle==", 1)
    lock.write_text(text + "redis==8.1.0\n")
    monkeypatch.setattr(audit, "LOCKS", {"server,tracing": lock})
    told = "\n".join(audit.locked())
    for part in ("no hash for redis==8.1.0", "h11 is missing", "nobody needs idle"):
        assert part in told


def test_a_pin_of_another_python_is_not_one_of_ours(tmp_path: Path):
    path = tmp_path / "r.txt"
    path.write_text('a==1 ; python_version < "3"\nb==2 ; python_version >= "3" \\\n    --hash=x\n')
    assert pins(path) == {"b": "2"}


def test_the_images_python_may_be_an_earlier_release_than_the_one_that_locked():
    for path in LOCKS.values():
        assert (
            'async-timeout==5.0.1 ; python_full_version < "3.11.3" \\\n    --hash='
            in path.read_text()
        )


@pytest.mark.parametrize("path", [BACKEND_LOCK, POLICY_LOCK])
def test_what_builds_and_checks_images_is_pinned_with_hashes(path: Path):
    assert pins(path)
    assert unhashed(path) == []
    assert "file:" not in path.read_text()


def test_the_build_backend_is_the_one_that_constraints_pin():
    assert set(pins(BACKEND_LOCK)) == needed_to_build()
    assert pins(BACKEND_LOCK).items() <= pins(CONSTRAINTS).items()


def test_what_checks_manifests_is_what_is_asked_for():
    assert set(POLICY_TOOLS) <= {
        f"{name}=={version}" for name, version in pins(POLICY_LOCK).items()
    }


def test_a_line_that_pins_nothing_is_an_error(tmp_path: Path):
    path = tmp_path / "r.txt"
    path.write_text("redis>=8\n")
    with pytest.raises(ValueError, match="'redis>=8' pins nothing"):
        pins(path)


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("Apache-2.0 OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("(MIT OR GPL-2.0) AND MPL-2.0", True),
        ("AGPL-3.0-only", False),
        ("", False),
        ("whatever the author says", False),
    ],
)
def test_a_licence_is_allowed_if_all_that_apply_are(expression: str, *, allowed: bool):
    assert Licence("x", "1", expression).allowed is allowed


def test_a_licence_that_is_not_allowed_is_reported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(licences, "ALLOWED", ALLOWED - {"MPL-2.0"})
    assert any(line.startswith("tqdm: licence 'MPL-2.0 AND MIT'") for line in audit.licensed())
