"""`.ci/run` before it runs: a line in the wrong place must be found here, not on a new machine."""

import os
import pty
import re
import subprocess
import sys

from tests.contract.conftest import BACKENDS, TWO, chosen
from tests.support.processes import ROOT, TAIL, Process, clean_environment
from tests.support.waiting import wait_until

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
    called = set(re.findall(r"\bmake ([a-z-]+)(?: \|\| again \1)?$", script(), re.MULTILINE))
    assert called <= recipes()
    suites = {name for name in recipes() if name.startswith("test") or name.endswith("-test")}
    assert suites | {"check", "audit", "fuzz"} <= called


def test_the_shell_can_read_it() -> None:
    subprocess.run(["bash", "-n", str(RUN)], check=True)


def helped(*, terminal: bool, **environment: str) -> str:
    """What `make help` prints, into a pipe or on a terminal."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    with os.fdopen(theirs, "wb") as output:
        subprocess.run(
            ["make", "--no-print-directory", "help"],
            cwd=ROOT,
            env=clean_environment() | {"TERM": "xterm"} | environment,
            stdout=output,
            check=True,
        )
        printed = os.read(ours, 1 << 16) if terminal else b""
    with os.fdopen(ours, "rb") as rest:
        return (printed if terminal else rest.read()).decode().replace("\r\n", "\n")


def test_the_list_of_targets_has_columns_and_colours_only_on_a_terminal_that_wants_them():
    lines = helped(terminal=False).splitlines()
    assert {line.split()[0] for line in lines} == documented()
    names = {len(re.match(r"  [a-z-]+ +", line)[0]) for line in lines}
    assert len(names) == 1, "each description begins in the same column"
    plain = helped(terminal=True, NO_COLOR="1")
    assert "\x1b" not in plain + helped(terminal=True, TERM="dumb") + "".join(lines)
    assert "\x1b[1mhelp" in helped(terminal=True)


def documented() -> set[str]:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    return set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))


def test_make_test_runs_the_store_on_two_deployments_and_one_target_on_all():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    bodies = {
        name: re.search(rf"^{name}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)[1]
        for name in ("test", "test-deployments")
    }
    assert "DEPLOYMENTS=two $(BIN)/pytest" in bodies["test"]
    assert "DEPLOYMENTS" not in bodies["test-deployments"]
    assert "tests/contract" in bodies["test-deployments"]
    assert sorted(BACKENDS[name][1] for name in TWO) == [1, 4], "one partition, and several"


def test_the_script_runs_the_store_on_every_deployment_once():
    assert "\nmake test ||" in script()
    assert "\nexport DEPLOYMENTS=rest\nmake test-deployments ||" in script()
    assert sorted(chosen("two") + chosen("rest")) == sorted(chosen(None)) == sorted(BACKENDS)


async def test_of_a_long_log_only_the_end_is_shown(capsys):
    process = Process([sys.executable, "-c", "for i in range(99): print(i)"], clean_environment())
    await wait_until(lambda: not process.alive)
    process.stop()
    head, cut, *shown = capsys.readouterr().out.splitlines()
    assert head.endswith("said:")
    assert cut == f"({99 - TAIL} lines before)"
    assert shown == [str(i) for i in range(99 - TAIL, 99)]
