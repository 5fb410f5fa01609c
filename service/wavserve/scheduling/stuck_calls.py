"""Finds calls that stand still: they run for much longer than the cost model predicts.

A prediction counts for a process that has made such calls before: in a new one, the first calls have something to load.
Knows calls, their costs and the processes that make them, and nothing of what becomes of a stuck call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from wavserve.scheduling.calls import Call
from wavserve.scheduling.costs import CallKind, Costs
from wavserve.system.processes import Process
from wavserve.system.stalls import MIN_LIMIT_S, RunTime, limit_s

MIN_CALLS = 2
"""Answered calls of a kind before a prediction counts. A process that made one at most may have something to load."""
YOUNG_S = MIN_LIMIT_S / 2
"""Calls that run for less are the normal case: their processes are not looked at."""

ProcessOf = Callable[[str], Process | None]
"""The process that makes a model's calls. None: no such process is known, now or ever."""


class StuckCalls:
    """`hang_s`: a call that runs for so long is stuck, whatever was predicted and whatever its process waits for."""

    def __init__(self, costs: Costs, hang_s: float) -> None:
        self._costs = costs
        self._hang_s = hang_s
        self.process_of: ProcessOf = lambda model: None
        self._answered: dict[str, tuple[Process | None, Counter[CallKind]]] = {}
        """by model: the process that answered last, and how many calls of each kind it has answered"""

    def answered(self, call: Call) -> None:
        """A call was answered without an error."""
        model, process = call.handed.model, self.process_of(call.handed.model)
        if model not in self._answered or self._answered[model][0] != process:
            self._answered[model] = process, Counter()
        self._answered[model][1][call.kind] += 1

    def newly_stuck(self, calls: Iterable[Call], seconds: float) -> Iterator[tuple[Call, str]]:
        """The calls that became stuck in the last `seconds` of this process's awake time, each with what to say."""
        for call in calls:
            handed = call.handed
            if not handed.runs or handed.stuck:
                continue
            handed.counted_s += self._counted_s(call, seconds)
            handed.awake_s += seconds
            predicted_s = self._predicted_s(call)
            limit = self._hang_s if predicted_s is None else limit_s(predicted_s, self._hang_s)
            handed.stuck = handed.counted_s > limit or handed.awake_s > self._hang_s
            if handed.stuck:
                usual = (
                    "its first calls have no prediction" if predicted_s is None else f"predicted {predicted_s:.1f} s"
                )
                yield call, f"{handed.model}: no answer to {call.verb} for {handed.awake_s:.1f} s, {usual}"

    def _counted_s(self, call: Call, seconds: float) -> float:
        """The part of the last `seconds` in which the call's process could run."""
        handed = call.handed
        if handed.run_time is None:
            if handed.awake_s < YOUNG_S:
                return seconds
            handed.run_time = RunTime(partial(self.process_of, handed.model))
        return handed.run_time.of(seconds)

    def _predicted_s(self, call: Call) -> float | None:
        """How long the call should take by the clock; None while too little is known of its kind in its process."""
        model = call.handed.model
        process, answered = self._answered.get(model, (None, Counter[CallKind]()))
        if answered[call.kind] < MIN_CALLS or process != self.process_of(model):
            return None
        return max(self._costs.seconds(call.kind, call.rows), self._costs.wall_s(call.kind))
