"""Generates a data set: every task in turn, several simulators at once, and on from where an earlier program ended.

An episode depends on the recipe, its task and its number only, and episodes are put on disk in one order. So neither
the number of simulators nor an interruption changes a data set. Knows no network.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from wavserve.core.errors import InvalidRequest
from wavserve.core.simulation import PrivilegedEnvironment, first_reused
from wavserve.training.dataset_writer import DatasetWriter
from wavserve.training.demos.request import IN_A_ROW, Assignment, Request, assignments, chosen_tasks, recipe_of
from wavserve.training.demos.workers import OpenPolicy, OpenPrivileged, Workers
from wavserve.training.episode import Episode

Listener = Callable[[Episode | None, int, int], None]
"""Gets each new episode, how many are on disk, and how many will be; at first without an episode."""


class Generation:
    """Fills a folder. `run` may be called again, in another program, after any end of this one."""

    def __init__(
        self,
        request: Request,
        open_environment: OpenPrivileged,
        num_workers: int = 1,
        open_policy: OpenPolicy | None = None,
    ) -> None:
        """`open_policy`: opens the policy that acts first, for one simulator and in its thread; None: the expert acts.

        Raises InvalidRequest.
        """
        if request.num_episodes < 1:
            raise InvalidRequest("--episodes", "at least 1", request.num_episodes)
        if num_workers < 1:
            raise InvalidRequest("--workers", "at least 1", num_workers)
        self._request, self._open, self._num_workers = request, open_environment, num_workers
        self._open_policy = open_policy

    def run(self, folder: Path, listener: Listener) -> None:
        """Raises InvalidRequest, BundleError, SimulationError when an episode cannot be recorded, and what the policy
        raises."""
        with contextlib.closing(self._open()) as first:
            tasks = chosen_tasks(first, self._request)
            recipe = recipe_of(self._request, tasks, first.versions())
            with DatasetWriter(folder, recipe) as writer:
                done = {(info.task, info.number) for info in writer.infos}
                left = [
                    each
                    for each in assignments(tasks, self._request.num_episodes)
                    if (each.task.index, each.number) not in done
                ]
                total = len(writer.infos) + len(left)
                listener(None, len(writer.infos), total)
                try:
                    self._fill(writer, left, first, listener, total)
                finally:
                    writer.write_metadata()

    def _fill(
        self,
        writer: DatasetWriter,
        left: list[Assignment],
        first: PrivilegedEnvironment,
        listener: Listener,
        total: int,
    ) -> None:
        with Workers(
            self._request, left, self._num_workers, first_reused(first, self._open), self._open_policy
        ) as workers:
            for count, episode in enumerate(workers.episodes(), 1):
                writer.add(episode)
                listener(episode, len(writer.infos), total)
                if count % (IN_A_ROW * len(writer.recipe.tasks)) == 0:
                    writer.write_metadata()
