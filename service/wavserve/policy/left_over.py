"""The left-over of a robot's chunk in one plan: in the model's units before it, as the chunk's frozen part after it.

Pure numpy. Knows requests and statistics, and neither models nor sessions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wavserve.core.normalise import Normaliser, action_range
from wavserve.core.rtc import AppliedRtc, Continuation, no_actions, prefix_weights
from wavserve.core.rtc_options import merge_rtc
from wavserve.core.spec import PolicySpec
from wavserve.core.types import Array, PlanRequest


@dataclass(frozen=True, slots=True, eq=False)
class LeftOver:
    """The left-over that a plan continues, and how."""

    settings: AppliedRtc
    actions: Array
    """`[n, A]`, as sent"""
    continuation: Continuation | None
    """None: the decode is a plain one"""

    @property
    def guided(self) -> bool:
        """Whether the plan's decode is guided."""
        return self.continuation is not None and self.continuation.guided

    @property
    def num_frozen(self) -> int:
        """First actions of the new chunk that are taken over from the left-over."""
        return 0 if self.continuation is None else self.continuation.num_frozen

    @classmethod
    def of(cls, request: PlanRequest, spec: PolicySpec, normaliser: Normaliser) -> LeftOver:
        """The left-over of a request. Raises InvalidRequest for what the policy does not allow."""
        settings = merge_rtc(spec, request.rtc, request.executed_steps)
        actions = no_actions() if request.rtc is None else request.rtc.prev_chunk_left_over
        if settings.mode == "off" or not len(actions):
            return cls(settings, actions, None)
        delay = settings.inference_delay
        trained = settings.mode == "rtc_trained"
        horizon = 0 if trained else settings.execution_horizon
        weights = prefix_weights(settings.prefix_attention_schedule, delay, horizon, spec.chunk)
        if not weights.any():
            return cls(settings, actions, None)
        seen = normaliser.outputs(_padded(actions, spec.chunk), request.state)
        return cls(settings, actions, Continuation(settings.mode, seen, weights, settings.max_guidance_weight, delay))

    def continued(self, output: Array, normaliser: Normaliser, state: Array) -> Array:
        """The commands `[T, A]` of a model's output `[T, Caction]`, with the frozen ones exactly as they were sent.

        The output gets them too, so that the sums of kind `delta` go on from them.
        """
        frozen = self.num_frozen
        if self.continuation is None or not frozen:
            return normaliser.actions(output, state)
        output = output.copy()
        output[:frozen, : self.actions.shape[1]] = self.continuation.left_over[:frozen]
        actions = normaliser.actions(output, state)
        actions[:frozen] = self.actions[:frozen]
        return actions

    def seam_jump(self, actions: Array, spec: PolicySpec) -> float | None:
        """The largest difference of chunk and left-over at the first step after the delay, in fractions of the range.

        None when the left-over ends before that step. Dimensions whose statistics have no range do not count.
        """
        step = self.settings.inference_delay
        if step >= len(self.actions):
            return None
        difference = np.abs(actions[step].astype(np.float64) - self.actions[step])
        ranges = action_range(spec.action.vector.norm)
        return float(np.divide(difference, ranges, out=np.zeros_like(difference), where=ranges > 0).max())


def _padded(actions: Array, num_steps: int) -> Array:
    """`[num_steps, A]`: the last action is repeated. Zeros would pull the arm to its mean pose."""
    return np.concatenate([actions, np.repeat(actions[-1:], num_steps - len(actions), axis=0)])
