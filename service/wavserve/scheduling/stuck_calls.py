"""Finds calls that stand still: they run for much longer than the cost model predicts.

Knows calls and their costs, and nothing of what becomes of a stuck call.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from wavserve.scheduling.calls import Call
from wavserve.scheduling.costs import Costs
from wavserve.system.stalls import limit_s

MIN_CALLS = 2
"""Measured calls of a kind before a prediction counts. A kind that ran once at most may have something to load."""


class StuckCalls:
    """`hang_s`: a call that runs for so long is stuck, whatever was predicted."""

    def __init__(self, costs: Costs, hang_s: float) -> None:
        self._costs = costs
        self._hang_s = hang_s

    def newly_stuck(self, calls: Iterable[Call], seconds: float) -> Iterator[tuple[Call, str]]:
        """The calls that became stuck in the last `seconds` of this process's awake time, each with what to say."""
        for call in calls:
            handed = call.handed
            if not handed.runs or handed.stuck:
                continue
            handed.awake_s += seconds
            predicted_s = self._predicted_s(call)
            limit = self._hang_s if predicted_s is None else limit_s(predicted_s, self._hang_s)
            handed.stuck = handed.awake_s > limit
            if handed.stuck:
                usual = (
                    "its first calls have no prediction" if predicted_s is None else f"predicted {predicted_s:.1f} s"
                )
                yield call, f"{handed.model}: no answer to {call.verb} for {handed.awake_s:.1f} s, {usual}"

    def _predicted_s(self, call: Call) -> float | None:
        """How long the call should take by the clock; None while too little is known of its kind."""
        if self._costs.num_calls(call.kind) < MIN_CALLS:
            return None
        return max(self._costs.seconds(call.kind, call.rows), self._costs.wall_s(call.kind))
