"""Warm start: a plan begins with the means of the session's last plan, shifted by the executed steps. Pure numpy.

The means are kept and the spread is reset, as in TD-MPC2's planner. Planning narrows the Gaussians; a kept spread would
narrow from plan to plan until nothing is explored.
"""

from __future__ import annotations

import numpy as np

from wavserve.core.types import Array, Gaussian, PlanRequest
from wavserve.planning.proposal import Proposal
from wavserve.policy.sessions import LastPlan


def continued(
    last: LastPlan, request: PlanRequest, instruction: str, standard: Proposal, chunk: int
) -> Proposal | None:
    """The proposal to begin with; None when the last plan says nothing about this one.

    That is so for another instruction (compared by digest), for other shapes, after a gap of a whole chunk of `chunk`
    steps (in executed steps or in control steps), when the control step went back, and when the last plan ended at one
    sample, without a spread (mode `best_of_n`), whose noise is no mean to draw around. `standard`: where a plan begins
    without a warm start.
    """
    passed = request.executed_steps, request.control_step - last.control_step
    shapes = [(last.video.mean.shape, standard.video.mean.shape), (last.value.mean.shape, standard.value.mean.shape)]
    if last.instruction != instruction or any(ours != theirs for ours, theirs in shapes):
        return None
    if not all(0 <= steps < chunk for steps in passed) or not last.video.std.any():
        return None
    return Proposal(
        Gaussian(_shifted(last.video.mean, request.executed_steps, chunk, axis=2), standard.video.std),
        Gaussian(_shifted(last.value.mean, request.executed_steps, chunk, axis=0), standard.value.std),
    )


def _shifted(mean: Array, executed: int, chunk: int, axis: int) -> Array:
    """`mean` without its past part along `axis`, filled up with zeros (the standard mean) at the end.

    The axis (value tokens, or latent frames) spans the chunk. Only whole entries move: a latent frame stands for
    several steps and stays until all of them were executed.
    """
    length = mean.shape[axis]
    gone = executed * length // chunk
    kept = np.take(mean, range(gone, length), axis=axis)
    fresh = np.zeros_like(np.take(mean, range(gone), axis=axis))
    moved: Array = np.concatenate([kept, fresh], axis=axis)
    return moved
