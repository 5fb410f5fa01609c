"""What the parts of a plan will cost, and how it is best cut, by the cost model.

Called by the planner. Knows which calls a plan is made of, and nothing of when they run.
"""

from __future__ import annotations

from dataclasses import dataclass

from wavserve.costs import CallKind, Costs
from wavserve.proposal import CONTROLS
from wavserve.spec import PlannerConfig


@dataclass(frozen=True, slots=True)
class Forecast:
    """Device seconds, as the calls took lately."""

    costs: Costs
    call_s: float
    """what one call should not take longer than, so that nothing urgent waits for long"""
    max_slice: int
    """video samples that travel together at most"""

    def slice_size(self, config: PlannerConfig) -> int:
        """Video samples of a plan that travel together: as many as keep each of their calls short."""
        kinds = _imagine(config), _score(config)
        return min(self.costs.rows_within(kind, self.call_s, self.max_slice) for kind in kinds)

    def floor_s(self, config: PlannerConfig, pictures: int) -> float:
        """A plan without iterations, from its frames to its last picture."""
        return sum(self.costs.seconds(kind, 1) for kind in _floor(config, pictures))

    def least_s(self, config: PlannerConfig, pictures: int) -> float:
        """As `floor_s`, with calls as fast as they ever were."""
        return sum(self.costs.least_seconds(kind, 1) for kind in _floor(config, pictures))

    def iteration_s(self, config: PlannerConfig) -> float:
        """One planning iteration of all its samples."""
        if config.mode in CONTROLS:
            return 0.0
        size = self.slice_size(config)
        whole, rest = divmod(config.num_video_samples, size)
        return whole * self._slice_s(config, size) + (self._slice_s(config, rest) if rest else 0.0)

    def final_s(self, config: PlannerConfig, pictures: int) -> float:
        """The last draw, decoded into actions, and imagined frames."""
        return sum(self.costs.seconds(kind, 1) for kind in _final(config, pictures))

    def _slice_s(self, config: PlannerConfig, rows: int) -> float:
        return self.costs.seconds(_imagine(config), rows) + self.costs.seconds(_score(config), rows)


def _floor(config: PlannerConfig, pictures: int) -> list[CallKind]:
    """Frames and instruction (which costs nothing when it is known, and is rarely new), and what ends a plan."""
    return [CallKind("encode_images"), *_final(config, pictures)]


def _final(config: PlannerConfig, pictures: int) -> list[CallKind]:
    decode = [_imagine(config), CallKind("appraise"), CallKind("decode", config.num_flow_steps)]
    estimate = [_score(config)] if config.estimate_value else []
    picture = [CallKind("denoise", config.num_flow_steps), CallKind("decode_video"), CallKind("encode_images")]
    return decode + estimate + pictures * picture


def _imagine(config: PlannerConfig) -> CallKind:
    return CallKind("imagine", config.num_video_steps)


def _score(config: PlannerConfig) -> CallKind:
    return CallKind("score", config.num_flow_steps, config.num_value_samples)
