"""What a user reads while an evaluation runs: how much is done, the success so far, and the time left."""

from __future__ import annotations

from collections.abc import Callable

from wavserve.clients.libero.records import EpisodeRecord
from wavserve.clients.libero.runner import Listener
from wavserve.core.errors import WavserveError
from wavserve.core.types import Clock


class Progress(Listener):
    """`show` gets the line of the present state, `log` lines that stay."""

    def __init__(
        self,
        records: tuple[EpisodeRecord, ...],
        num_episodes: int,
        clock: Clock,
        show: Callable[[str], None],
        log: Callable[[str], None],
    ) -> None:
        """`records`: on record already. `num_episodes`: of the whole run."""
        self._num_before = self._num_done = len(records)
        self._num_successes = sum(record.success for record in records)
        self._num_episodes = num_episodes
        self._clock, self._began_at = clock, clock()
        self._show, self._log = show, log
        self._trouble = ""

    def finished(self, record: EpisodeRecord) -> None:
        self._num_done += 1
        self._num_successes += record.success
        self._trouble = ""
        outcome = "success" if record.success else record.failure or "failure"
        self._log(
            f"{self.line()}: {record.cell} {record.suite} task {record.task} state {record.state_index}: "
            f"{outcome}, {record.num_steps} steps"
        )

    def waiting(self, error: WavserveError, pause_s: float) -> None:
        self._trouble = f"; an episode begins anew in {pause_s:g} s: {error.message}"
        self._log(self.line())

    def tick(self) -> None:
        self._show(self.line())

    def line(self) -> str:
        """One line: episodes, success so far, time left."""
        share = f"{self._num_successes / self._num_done:.1%}" if self._num_done else "none yet"
        return f"{self._num_done}/{self._num_episodes} episodes, success {share}, {self._left()} left{self._trouble}"

    def _left(self) -> str:
        done_now = self._num_done - self._num_before
        if not done_now:
            return "unknown time"
        seconds = round((self._clock() - self._began_at) / done_now * (self._num_episodes - self._num_done))
        hours, minutes = divmod(seconds // 60, 60)
        return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds % 60} s"
