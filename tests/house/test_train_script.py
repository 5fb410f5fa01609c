"""`policies/tiny-libero/train.sh` as it runs, with a `wavserve` that only notes what it is told."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from wavserve.cli import build_parser

SCRIPT = Path(__file__).parents[2] / "policies" / "tiny-libero" / "train.sh"
STAGES = ["demos", "vae", "video", "value", "action", "bundle", "held-out"]
FAKE = """#!/bin/sh
printf '%s\\n' "$*" >> "$COMMANDS"
echo "did $2"
test "$2" = "$FAILS" && exit 3
test "$2" = bundle && for last; do :; done && mkdir "$last"
exit 0
"""


class Trainer:
    """Runs the script in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder / "training", folder / "commands"
        (folder / "bin").mkdir()
        (folder / "bin" / "wavserve").write_text(FAKE)
        (folder / "bin" / "wavserve").chmod(0o755)
        self._path = f"{folder / 'bin'}:{os.environ['PATH']}"

    def run(self, fails: str = "") -> subprocess.CompletedProcess[str]:
        self.log.write_text("")
        variables = os.environ | {"PATH": self._path, "COMMANDS": str(self.log), "FAILS": fails}
        command = [SCRIPT, self.folder]
        return subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=60)

    @property
    def commands(self) -> list[list[str]]:
        return [shlex.split(line) for line in self.log.read_text().splitlines()]

    @property
    def stages(self) -> list[str]:
        return [action for _, action, *_ in self.commands]


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    return Trainer(tmp_path)


def test_every_stage_runs_in_order_by_commands_that_exist(trainer: Trainer) -> None:
    ran = trainer.run()
    assert ran.returncode == 0, ran.stderr
    assert trainer.stages == STAGES
    for command in trainer.commands:
        build_parser().parse_args(command)


def test_it_says_first_how_long_it_takes(trainer: Trainer) -> None:
    told = trainer.run().stdout
    hours = told.index(" h ")
    assert hours < told.index("did demos")
    lines = [line.split() for line in told[: told.index("did demos")].splitlines() if line.startswith("  ")]
    *parts, total = (float(line[1]) for line in lines)
    assert [line[0] for line in lines] == ["demonstrations", "vae", "video", "value", "action", "together"]
    assert sum(parts) == pytest.approx(total)


def test_a_stage_that_fails_ends_it_and_the_same_command_goes_on(trainer: Trainer) -> None:
    assert trainer.run(fails="value").returncode == 3
    assert trainer.stages == STAGES[:4]
    assert trainer.run().returncode == 0
    assert trainer.stages == STAGES


def test_a_bundle_that_is_there_is_kept(trainer: Trainer) -> None:
    trainer.run()
    assert trainer.run().returncode == 0
    assert trainer.stages == [stage for stage in STAGES if stage != "bundle"]
