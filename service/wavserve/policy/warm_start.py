"""Where a plan begins that goes on from the session's last one: its means, moved on by the steps that were executed.

Called by `making`. Pure numpy. The means are kept and the spread is not, as TD-MPC2's planner does: planning narrows
the Gaussians, and a kept spread would narrow from plan to plan until nothing is explored any more.
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

    That is: another instruction (compared by digest), other shapes, a gap of a whole chunk of `chunk` steps, counted in
    executed steps or in the robot's own control steps, or steps that the robot counts anew. `standard` is what a plan
    begins with otherwise.
    """
    passed = request.executed_steps, request.control_step - last.control_step
    shapes = [(last.video.mean.shape, standard.video.mean.shape), (last.value.mean.shape, standard.value.mean.shape)]
    if last.instruction != instruction or any(ours != theirs for ours, theirs in shapes):
        return None
    if not all(0 <= steps < chunk for steps in passed):
        return None
    return Proposal(
        Gaussian(_moved_on(last.video.mean, request.executed_steps, chunk, axis=2), standard.video.std),
        Gaussian(_moved_on(last.value.mean, request.executed_steps, chunk, axis=0), standard.value.std),
    )


def _moved_on(mean: Array, executed: int, chunk: int, axis: int) -> Array:
    """`mean` without the part along `axis` that lies in the past, zeros (the standard mean) behind; whole entries only.

    The axis (value tokens, or latent frames of the video) spans the chunk; a latent frame stands for several steps and
    stays until all of them were executed.
    """
    length = mean.shape[axis]
    gone = executed * length // chunk
    kept = np.take(mean, range(gone, length), axis=axis)
    fresh = np.zeros_like(np.take(mean, range(gone), axis=axis))
    moved: Array = np.concatenate([kept, fresh], axis=axis)
    return moved
