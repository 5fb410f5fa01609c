"""`policies/train.sh` as it runs, with a `wavserve` that only notes what it is told."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from wavserve.cli import build_parser

POLICIES = Path(__file__).parents[2] / "policies"
FIRST = ["demos", "held-out", "vae", "video", "value", "action", "bundle"]
NAMES = ["demonstrations", "vae", "video", "value", "action", "recoveries", "action", "together"]
ACTIONS = [*FIRST, "demos", "action", "bundle"]
MORE_NAMES = [*NAMES[:-1], "more recoveries", "action", "together"]
FAKE = """#!/bin/sh
printf '%s\\n' "$*" >> "$COMMANDS"
echo "did $2"
test "$2" = "$FAILS" && exit 3
action=$2
while test $# -gt 1; do
    if test "$1" = --out && test $action = bundle; then mkdir -p "$2"; fi
    if test "$1" = --folder && test $action = vae; then mkdir -p "$2/vae" "$2/latents"; fi
    shift
done
"""


class Trainer:
    """Runs the script in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder / "training", folder / "commands"
        (folder / "bin").mkdir()
        (folder / "bin" / "wavserve").write_text(FAKE)
        (folder / "bin" / "wavserve").chmod(0o755)
        self._path = f"{folder / 'bin'}:{os.environ['PATH']}"

    def run(self, *weak_tasks: str, fails: str = "") -> subprocess.CompletedProcess[str]:
        self.log.write_text("")
        variables = os.environ | {"PATH": self._path, "COMMANDS": str(self.log), "FAILS": fails}
        command = [POLICIES / "train.sh", POLICIES / "tiny-libero", "libero_object", self.folder, *weak_tasks]
        return subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=60)

    @property
    def commands(self) -> list[list[str]]:
        return [shlex.split(line) for line in self.log.read_text().splitlines()]

    @property
    def actions(self) -> list[str]:
        return [action for _, action, *_ in self.commands]


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    return Trainer(tmp_path)


def value_of(command: list[str], flag: str) -> str:
    return command[command.index(flag) + 1]


def test_every_stage_runs_in_order_by_commands_that_exist(trainer: Trainer) -> None:
    ran = trainer.run()
    assert ran.returncode == 0, ran.stderr
    assert trainer.actions == ACTIONS
    for command in trainer.commands:
        build_parser().parse_args(command)


def test_the_last_stage_goes_on_from_the_policy_before_with_its_recoveries(trainer: Trainer) -> None:
    trainer.run()
    bundle, demos, action, after = trainer.commands[6:10]
    assert value_of(demos, "--policy") == value_of(bundle, "--out")
    assert value_of(action, "--start") == value_of(bundle, "--folder") != value_of(action, "--folder")
    args = build_parser().parse_args(action)
    assert [path.name for path in args.data] == ["demonstrations", "recoveries"]
    assert (Path(value_of(action, "--folder")) / "vae").is_dir(), "both runs have one autoencoder"
    assert value_of(after, "--folder") == value_of(action, "--folder")


def test_weak_tasks_get_recoveries_of_the_second_policy_and_the_last_stage_once_more(trainer: Trainer) -> None:
    assert trainer.run("4-5").returncode == 0
    assert trainer.actions == [*ACTIONS, "demos", "action", "bundle"]
    before, bundle, demos, action, last = trainer.commands[8:]
    assert build_parser().parse_args(demos).tasks == (4, 5)
    assert value_of(demos, "--policy") == value_of(bundle, "--out") != value_of(last, "--out")
    assert value_of(action, "--start") == value_of(before, "--folder") == value_of(bundle, "--folder")
    data = [path.name for path in build_parser().parse_args(action).data]
    assert data == ["demonstrations", "recoveries", "recoveries-1"]
    assert value_of(last, "--folder") == value_of(action, "--folder")
    assert (Path(value_of(action, "--folder")) / "vae").is_dir()


@pytest.mark.parametrize(("weak_tasks", "names"), [((), NAMES), (("4-5",), MORE_NAMES)])
def test_it_says_first_how_long_it_takes(trainer: Trainer, weak_tasks: tuple[str, ...], names: list[str]) -> None:
    told = trainer.run(*weak_tasks).stdout.partition("did demos")[0]
    lines = [line.split("  ") for line in told.splitlines() if line[:2] == "  "]
    rows = [[cell.strip() for cell in line if cell] for line in lines]
    assert [row[0].removesuffix(" again") for row in rows] == names
    *hours, total = (float(row[1].removesuffix(" h")) for row in rows)
    assert sum(hours) == pytest.approx(total)


def test_a_stage_that_fails_ends_it_and_the_same_command_goes_on(trainer: Trainer) -> None:
    assert trainer.run(fails="value").returncode == 3
    assert trainer.actions == FIRST[:5]
    assert trainer.run().returncode == 0
    assert trainer.actions == ACTIONS


def test_a_copy_that_was_stopped_is_made_again(trainer: Trainer) -> None:
    torn = trainer.folder / "run-1" / "vae.partial"
    torn.mkdir(parents=True)
    (torn / "torn").touch()
    assert trainer.run().returncode == 0
    assert list((trainer.folder / "run-1" / "vae").iterdir()) == []
    assert not torn.exists()


def test_bundles_that_are_there_are_kept(trainer: Trainer) -> None:
    trainer.run()
    assert trainer.run().returncode == 0
    assert trainer.actions == [action for action in ACTIONS if action != "bundle"]
