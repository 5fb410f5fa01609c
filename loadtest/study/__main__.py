"""Does planning pay? Runs the study that a file describes, and writes its tables (`make eval-tiny-libero`).

    python -m loadtest.study policies/tiny-libero/study.toml --bundle FOLDER --data FOLDER --out study-results

It screens the planner's options, compares the modes on shifted starts, compares no planning with the best mode on the
shipped starts, beside baselines, and asks what the value is worth. Predicted hours come first. The same command goes on
with a study that was interrupted. Progress goes to standard error, the tables to standard output.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from loadtest.study import report
from loadtest.study.baselines import EXPERTS, MEAN_DEMONSTRATION, Baseline, Baselines, mean_demonstration, renamed
from loadtest.study.cost import CostOfK, costs, costs_on_file
from loadtest.study.frames import check_comparable, imagined, likenesses_on_file
from loadtest.study.pilot import predicted, tasks_of
from loadtest.study.plan import (
    BLIND,
    OFF,
    Budget,
    Starts,
    Study,
    check_chosen,
    described,
    fewer,
    headline_cells,
    ordered,
    read_study,
    screened_cells,
)
from loadtest.study.ranks import calibration, verdicts
from loadtest.study.report import Findings, Part
from loadtest.study.runs import Place, StudyError, ask, joined, run
from loadtest.study.scenes import Player, read_samples
from loadtest.study.spread import spreads_on_file
from wavserve.bundle import bundle
from wavserve.clients import tables
from wavserve.clients.libero.cells import Cell
from wavserve.clients.libero.contract import rotation_of
from wavserve.clients.libero.options import Options
from wavserve.clients.libero.plan_source import Planner, PlanSource, SourceConfig, UnarySource
from wavserve.clients.libero.records import Run
from wavserve.commands.libero import open_planner, progress, simulator
from wavserve.core.errors import WavserveError
from wavserve.core.files import lock, write_whole
from wavserve.core.simulation import OpenEnvironment, PrivilegedEnvironment
from wavserve.training.dataset import open_dataset

SCENES_FILE, FRAMES_FILE, COSTS_FILE, SPREAD_FILE = "scenes.jsonl", "imagined.json", "costs.json", "spread.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, metavar="FILE", help="the study's file, such as policies/NAME/study.toml")
    parser.add_argument("--bundle", required=True, metavar="FOLDER", help="the policy")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="demonstrations (default: no mean demonstration)")
    parser.add_argument("--service", metavar="HOST:PORT", help="serves the policy (default: plans in this process)")
    parser.add_argument(
        "--out", type=Path, default=Path("study-results"), metavar="FOLDER", help="(default: %(default)s)"
    )
    parser.add_argument("--predict", action="store_true", help="predict the hours, and stop")
    args = parser.parse_args()
    try:
        with locked(args.out):
            work = Work.of(args.study, Place(args.out, args.bundle, args.service), args.data)
            tell(described(work.budget))
            if not args.predict:
                work.fix_budget()
                print(work.findings())
    except (WavserveError, StudyError, OSError, json.JSONDecodeError) as error:
        print(f"study: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("study: interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder of one study at a time. Raises StudyError."""
    folder.mkdir(parents=True, exist_ok=True)
    held = lock(folder / "study.lock")  # it ends with the process, however that ends
    if held is None:
        raise StudyError(f"{folder}: another study writes it")
    try:
        yield
    finally:
        os.close(held)


class RunPhase(Protocol):
    """Runs what is not on record of a phase."""

    def __call__(
        self, place: Place, study: Study, name: str, starts: Starts, cells: Sequence[Cell], *flags: str
    ) -> Run: ...


@dataclass(frozen=True, slots=True)
class Work:
    """A study that may begin or go on."""

    study: Study
    place: Place
    budget: Budget
    baselines: tuple[Baseline, ...]
    """those that are no policy"""
    open_environment: OpenEnvironment
    run: RunPhase = run

    @classmethod
    def of(cls, file: Path, place: Place, data: Path | None, open_environment: OpenEnvironment | None = None) -> Work:
        """Predicts the hours at the first start. Raises StudyError for a folder with another study or policy, one that
        began with demonstrations, and a policy that the study cannot judge; BundleError for demonstrations that do not
        serve the study."""
        study, digest = read_study(file), hashlib.sha256(file.read_bytes()).hexdigest()
        opener = open_environment or simulator(not study.no_antialiasing)
        baselines: tuple[Baseline, ...] = (EXPERTS,)
        if data is not None:  # read now, because the study needs it after hours
            demonstrations = open_dataset(data)  # before a simulator starts
            baselines = (EXPERTS, mean_demonstration(demonstrations, tasks_of(study, opener)))
        known = place.folder / "budget.json"
        if known.exists():
            budget = tables.read(Budget, json.loads(known.read_bytes()), str(known))
            if budget.study_digest != digest:
                raise StudyError(f"{place.folder}: expected the study {budget.study_digest[:12]}, got {digest[:12]}")
            if budget.policy_digest != (policy := bundle.digest(Path(place.bundle))):
                raise StudyError(f"{place.folder}: expected the policy {budget.policy_digest[:12]}, got {policy[:12]}")
            if data is None and (begun := sorted(place.folder.glob(f"*-{MEAN_DEMONSTRATION}"))):
                raise StudyError(f"--data: expected a folder, as when {begun[0].name} began; got none")
        else:
            check_comparable(bundle.load_spec(Path(place.bundle)))
            check_chosen(study, bundle.digest(Path(place.bundle)))
            tell("pilot: the first steps of two episodes of every cell")
            budget = predicted(study, digest, place, opener)
        return cls(study, place, budget, baselines, opener)

    def fix_budget(self) -> None:
        """No result changes it any more."""
        write_whole(self.place.folder / "budget.json", json.dumps(dataclasses.asdict(self.budget), indent=2).encode())

    def findings(self) -> str:
        """Runs what is not on record, and writes the tables so far after each phase. Returns all tables."""
        parts = self.phases()
        self._values()
        return self._write(parts, complete=True)

    def phases(self) -> list[Part]:
        """The phases in order: what the screen chose goes into the headline, and the headline's best to the shipped
        starts. Those without planning come before the headline, because they wait for no choice."""
        parts: list[Part] = []
        cells = screened_cells(self.study, self.budget)
        papers = [cell for cell in cells if cell.planner.get("mode") == "paper"]
        if self.study.chosen is not None:
            [chosen] = papers
        else:
            screen = self._run("screen", self.study.screen, cells)
            chosen = best_of(screen, papers)
            parts.append(Part("Screen, shifted starts", screen, chosen.name))
            self._write(parts)
        shipped = [self._run("shipped", self.study.shipped, (OFF,))]
        options = {name: value for name, value in chosen.planner.items() if name != "mode"}
        headline = self._run("headline", self.study.headline, headline_cells(self.study, options))
        planning = [cell for cell in headline.config.cells if cell.name != OFF.name]
        best = best_of(headline, planning) if planning else OFF
        parts.append(Part("Headline, shifted starts", self._with_baselines(headline, "headline"), best.name))
        self._write(parts)
        if planning:
            shipped.append(self._run("shipped-best", self.study.shipped, (best,)))
        parts.append(Part("Shipped starts", self._with_baselines(joined(shipped), "shipped")))
        self._write(parts)
        return parts

    def _run(self, name: str, starts: Starts, cells: tuple[Cell, ...], *flags: str) -> Run:
        tell(f"{name}: {len(cells)} cells")
        made = self.run(self.place, self.study, name, starts, cells, *flags)
        self._check_policy(made.config.policy_digest, f"; remove {self.place.folder / name}")
        return made

    def _check_policy(self, digest: str, cure: str = "") -> None:
        """Raises StudyError when the service has got another policy."""
        if digest != self.budget.policy_digest:
            raise StudyError(f"expected the policy {self.budget.policy_digest[:12]} all along, got {digest[:12]}{cure}")

    def _with_baselines(self, policy: Run, name: str) -> Run:
        """With the baselines on the first of the same starts."""
        starts = fewer(getattr(self.study, name), self.study.baseline_trials_per_task)
        baselines = Baselines(self.study, self.open_environment, progress)
        found = [policy, self._run(f"{name}-{BLIND.name}", starts, (BLIND,))]
        for baseline in self.baselines:
            tell(f"{name}: {baseline.name}")
            found.append(baselines.run(self.place.folder / f"{name}-{baseline.name}", starts, baseline))
        return joined([*found, self._untrained(starts, name)])

    def _untrained(self, starts: Starts, name: str) -> Run:
        """Random weights of the preset `tiny`, whose cameras and robot are the same."""
        folder = self.place.folder / "untrained"
        if not folder.exists():
            ask("bundle", "create", "--preset", "tiny", "--out", str(folder))
        tell(f"{name}: untrained")
        place, first = replace(self.place, bundle=str(folder), service=None), self.study.untrained_trials_per_task
        made = self.run(place, self.study, f"{name}-untrained", fewer(starts, first), (OFF,), "--allow-untrained")
        return renamed(made, "untrained")

    def _values(self) -> None:
        """Plays the samples of scenes, and takes imagined frames."""
        tell("scenes: what the value is worth")
        study = self.study
        options = Options(suite=(study.suite,), service=self.place.service, in_process=_in_process(self.place))
        with open_planner(options) as planner, contextlib.closing(_opened(study, planner)) as environment:
            info = planner.policy()
            self._check_policy(info.digest)
            rotation = rotation_of(info, None)

            def open_source(asked: Mapping[str, object]) -> PlanSource:
                return UnarySource(planner, info, SourceConfig(rotation=rotation, options=asked))

            player = Player(study, environment, info.horizon, open_source)
            player.play(self.place.folder / SCENES_FILE, tell)
            likenesses_on_file(
                self.place.folder / FRAMES_FILE, lambda: imagined(study, environment, planner, rotation, tell)
            )

    def _costs(self) -> list[CostOfK]:
        tell("time and memory against K")
        return costs(self.place.bundle, self.study.iterations)

    def _write(self, parts: list[Part], complete: bool = False) -> str:
        earlier = self.study.chosen.cell if self.study.chosen is not None else ""
        findings = Findings(f"Study of {self.place.bundle}", self.budget, tuple(parts), earlier)
        if complete:
            samples = read_samples(self.place.folder / SCENES_FILE)
            findings = replace(
                findings,
                spreads=spreads_on_file(self.place.folder / SPREAD_FILE, Path(self.place.bundle)),
                verdicts=tuple(verdicts(samples)),
                bins=tuple(calibration(samples, bundle.load_spec(Path(self.place.bundle)).value_norm)),
                likenesses=tuple(likenesses_on_file(self.place.folder / FRAMES_FILE, lambda: iter(()))),
                costs=tuple(costs_on_file(self.place.folder / COSTS_FILE, self._costs)),
            )
        text = report.markdown(findings)
        name = "results" if complete else "so-far"  # a study that is run again keeps its results until they are new
        table = json.dumps(report.as_table(findings), indent=2, allow_nan=False)
        write_whole(self.place.folder / f"{name}.json", table.encode())
        write_whole(self.place.folder / f"{name}.md", text.encode())
        return text


def best_of(phase: Run, cells: list[Cell]) -> Cell:
    """Most successes, then the cheapest plans."""
    seconds = {cell.name: report.plan_ms(phase, cell) for cell in cells}
    return ordered(cells, report.successes(phase), seconds)[0]


def _opened(study: Study, planner: Planner) -> PrivilegedEnvironment:
    """A simulator with pictures of the policy's size."""
    environment = simulator(not study.no_antialiasing, planner.policy())()
    assert isinstance(environment, PrivilegedEnvironment), "LIBERO knows its scenes"
    return environment


def _in_process(place: Place) -> str | None:
    """The bundle whose plans are made here; None: a service makes them."""
    return None if place.service else place.bundle


def tell(words: str) -> None:
    """Progress."""
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
