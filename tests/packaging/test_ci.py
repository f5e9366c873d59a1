"""`.ci/run` before it runs: a line in the wrong place must be found here, not on a new machine."""

import re
import subprocess

from tests.support.processes import ROOT

RUN = ROOT / ".ci" / "run"


def script() -> str:
    return RUN.read_text("utf-8")


def recipes() -> set[str]:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    return set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


def packages() -> list[str]:
    """What the script's list holds, as the shell reads it."""
    block = re.search(r"^packages=\(.*?^\)$", script(), re.MULTILINE | re.DOTALL)
    assert block, "no package list in .ci/run"
    printed = f'{block.group()}\nprintf "%s\\n" "${{packages[@]}}"'
    return subprocess.run(
        ["bash", "-euc", printed], check=True, capture_output=True, text=True
    ).stdout.split()


def test_the_list_of_packages_holds_no_recipe() -> None:
    listed = packages()
    assert "chromium" in listed
    assert not [name for name in listed if name == "make" or name in recipes()]


def test_every_recipe_that_the_script_calls_exists_and_every_suite_is_called() -> None:
    called = set(re.findall(r"\bmake ([a-z-]+)$", script(), re.MULTILINE))
    assert called <= recipes()
    suites = {name for name in recipes() if name.startswith("test") or name.endswith("-test")}
    assert suites | {"check", "audit", "fuzz"} <= called


def test_the_shell_can_read_it() -> None:
    subprocess.run(["bash", "-n", str(RUN)], check=True)
