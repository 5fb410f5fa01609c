"""The predicted cost of a plan's parts, and the best slice size, by the cost model.

Knows which calls a plan makes, and nothing of when they run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from wavserve.core.spec import PlannerConfig
from wavserve.planning.proposal import CONTROL_MODES
from wavserve.scheduling.costs import CallKind, Costs
from wavserve.scheduling.ledger import Work

FIXED_SLICE = 4
"""Video samples in one slice of a plan with fixed shapes, whatever they cost."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """The work of a plan's parts, by the cost of recent calls."""

    costs: Costs
    call_s: float
    """the longest that one call should take, so that an urgent plan waits briefly"""
    max_slice: int
    """most video samples in one slice"""
    slices_in_flight: int
    """slices of one plan that run at once"""

    def slice_size(self, config: PlannerConfig) -> int:
        """Video samples in one slice of a plan: as many as keep each of the slice's calls short, or a fixed number."""
        if config.fixed_shapes:
            return min(FIXED_SLICE, self.max_slice)
        kinds = _imagine(config), _score(config)
        return min(self.costs.rows_within(kind, self.call_s, self.max_slice) for kind in kinds)

    def floor(self, config: PlannerConfig, imagine_chunks: int, guided: bool = False) -> Work:
        """A plan without iterations: image encoding, the decode, and imagined frames.

        The instruction is not counted: its embedding is nearly always cached.
        """
        return self._work(CallKind("encode_images"), 1) + self.final(config, imagine_chunks, guided)

    def least_s(self, config: PlannerConfig, imagine_chunks: int, guided: bool = False) -> float:
        """Device seconds of `floor` with every call at its lowest cost so far."""
        kinds = [CallKind("encode_images"), *_final(config, imagine_chunks, guided)]
        return sum(self.costs.least_seconds(kind, 1) for kind in kinds)

    def iteration(self, config: PlannerConfig) -> Work:
        """One planning iteration over all samples."""
        if config.mode in CONTROL_MODES:
            return Work()
        size = self.slice_size(config)
        whole, rest = divmod(config.num_video_samples, size)
        work = self._slice(config, size) * whole + (self._slice(config, rest) if rest else Work())
        return replace(work, wall_s=work.wall_s / min(self.slices_in_flight, whole + bool(rest)))

    def final(self, config: PlannerConfig, imagine_chunks: int, guided: bool = False) -> Work:
        """The last draw, its decoding into actions (`guided`: by a left-over), and the imagined frames."""
        return sum((self._work(kind, 1) for kind in _final(config, imagine_chunks, guided)), start=Work())

    def _slice(self, config: PlannerConfig, rows: int) -> Work:
        return self._work(_imagine(config), rows) + self._work(_score(config), rows)

    def _work(self, kind: CallKind, rows: int) -> Work:
        return Work(self.costs.seconds(kind, rows), self.costs.wall_s(kind))


def _final(config: PlannerConfig, imagine_chunks: int, guided: bool) -> list[CallKind]:
    decode = [_imagine(config), CallKind("value_features"), CallKind("decode", config.num_flow_steps, guided=guided)]
    estimate = [_score(config)] if config.estimate_value else []
    frames = [CallKind("denoise", config.num_flow_steps), CallKind("decode_video"), CallKind("encode_images")]
    return decode + estimate + imagine_chunks * frames


def _imagine(config: PlannerConfig) -> CallKind:
    return CallKind("imagine", config.num_video_steps)


def _score(config: PlannerConfig) -> CallKind:
    return CallKind("score", config.num_flow_steps, config.num_value_samples)
