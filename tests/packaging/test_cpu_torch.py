"""`make setup` and `make image` get torch without CUDA, whichever index pip asks by itself."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest

from deploy import cpu_torch
from deploy.images import wheels
from tests.support.processes import ROOT

CPU, CUDA = f"{cpu_torch.version()}+cpu", cpu_torch.version()


def index(directory: Path, *versions: str) -> str:
    """Make an index that has torch in these versions, as wheels without content."""
    torch = directory / "torch"
    torch.mkdir(parents=True)
    names = [f"torch-{version}-py3-none-any.whl" for version in versions]
    for name, version in zip(names, versions, strict=True):
        metadata = f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n"
        if version == CUDA:
            metadata += "Requires-Dist: nvidia-cublas\n"
        with zipfile.ZipFile(torch / name, "w") as wheel:
            about = f"torch-{version}.dist-info"
            wheel.writestr(f"{about}/METADATA", metadata)
            wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(f"{about}/RECORD", "")
    links = "".join(f'<a href="{name}">{name}</a>' for name in names)
    (torch / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")
    return directory.as_uri()


@pytest.fixture
def pypi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose pip asks one index, which has the build with CUDA, as PyPI has."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", index(tmp_path / "pypi", CUDA))


def got(directory: Path) -> list[str]:
    return [path.name for path in directory.glob("*.whl")]


def test_where_pips_index_has_cuda_alone_the_build_comes_from_pytorchs(pypi, tmp_path: Path):
    pytorch = index(tmp_path / "pytorch", CPU)
    cpu_torch.get(pytorch, "download", "--dest", str(tmp_path / "got"))
    assert got(tmp_path / "got") == [f"torch-{CPU}-py3-none-any.whl"]


def test_where_pips_index_has_the_build_no_other_is_asked(
    pypi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("PIP_INDEX_URL", index(tmp_path / "own", CPU, CUDA))
    cpu_torch.get("https://nowhere.invalid/", "download", "--dest", str(tmp_path / "got"))
    assert got(tmp_path / "got") == [f"torch-{CPU}-py3-none-any.whl"]
    assert "nowhere.invalid" not in "".join(capfd.readouterr())


def test_where_no_index_has_it_nothing_is_installed_and_both_cures_are_named(pypi, tmp_path: Path):
    empty = index(tmp_path / "empty", "0.1")
    with pytest.raises(SystemExit, match=re.escape(f"no torch=={CPU}")) as failed:
        cpu_torch.get(empty, "download", "--dest", str(tmp_path / "got"))
    assert "make setup TORCH_INDEX=URL" in str(failed.value)
    assert "make setup TORCH_INDEX= " in str(failed.value)
    assert not got(tmp_path / "got")


def test_an_image_gets_the_wheel_that_the_lock_names_and_no_other(pypi, tmp_path: Path):
    pytorch = index(tmp_path / "pytorch", CPU)
    [wheel] = (tmp_path / "pytorch").glob("torch/*.whl")
    lock = tmp_path / "requirements-worker.txt"
    header = "# What it needs on Python 3.11,\n# linux-x86_64. Elsewhere others.\n"
    pin = "torch=={} \\\n    --hash=sha256:{}\n"
    lock.write_text(header + pin.format(CPU, hashlib.sha256(wheel.read_bytes()).hexdigest()))
    assert wheels(tmp_path / "wheels", pytorch, [lock]) == tmp_path / "wheels"
    assert got(tmp_path / "wheels") == [wheel.name]
    lock.write_text(header + pin.format(CPU, "0" * 64))
    with pytest.raises(SystemExit, match="make image TORCH_INDEX=URL"):
        wheels(tmp_path / "wheels", pytorch, [lock])


def test_make_setup_gets_torch_before_all_that_needs_it():
    dry = subprocess.run(
        ["make", "--dry-run", "--always-make", "setup"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    torch = dry.index(f"-m deploy.cpu_torch '{cpu_torch.INDEX}'")
    assert dry.index("MB to download") < torch < dry.index("--editable '.[all,dev]'")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere PyPI has no build with CUDA")
def test_nothing_of_cuda_is_in_this_environment():
    names = {each.metadata["Name"].lower() for each in distributions()}
    assert "torch" in names
    assert not [name for name in names if name.startswith(("nvidia-", "cuda-"))], (
        "torch has its build with CUDA: make clean setup"
    )
