"""The data on the request path: request, plan, receipt.

Every layer may use these types. They know nothing of HTTP, protobuf or torch. All are frozen, and no code writes into
their arrays.

Shape legend, for docstrings, einops strings and `verbs.VERBS`:
    G groups in a call, N video samples of a group, M value samples of each video sample, K planning iterations,
    E elites, V views (VorOne: 1 if one Gaussian serves all views), F latent frames (Fmem in the memory, Fgen
    generated), H W latent height and width, C channels (Ctext, Cvalue, Caction: of one model; Caction = A + S),
    T action steps or value tokens, A action dim, S state dim, P prompt tokens (`prompt` in `VERBS`),
    height and width in pixels, frames of a camera, bytes of UTF-8.
    In the models: B batch rows, R rows, L tokens, D width of the video model, A width of an expert.
    In the arena: S slots, R rows of processes.
    In the shape of a memory, `V C P H W`, P stands for Fmem.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavserve.core.rtc import AppliedRtc, RtcRequest
from wavserve.core.spec import PlannerConfig

Array = NDArray[np.float32]
Tensors = Mapping[str, NDArray[Any]]
"""Named tensors of one backend call."""
Handles = NDArray[np.int64]
"""`[..., 2]`: (slot, generation) of features in the arena."""
Clock = Callable[[], float]
"""Seconds of a monotonic clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFields:
    """The fields of a request besides its images and its state. `Observation` and `PlanRequest` share them."""

    instruction: str
    session_id: str | None = None
    """None: the server opens a session"""
    sequence: int = 0
    """strictly increasing within a session; the latest number with the same content is a retry"""
    control_step: int = 0
    """index of the next command at the time the images were captured; the chunk is aligned to it"""
    executed_steps: int = 0
    """steps executed since the previous accepted observation"""
    policy: str | None = None
    """None: the server's policy"""
    options: Mapping[str, object] = field(default_factory=dict)
    """planner options that override the policy's defaults; see `options.merge_options`"""
    seed: int | None = None
    """None: the service draws one and reports it"""
    imagine_chunks: int = 0
    """number of chunks of imagined future frames to return with the plan; each costs time"""
    rtc: RtcRequest | None = None
    """real-time chunking; None: the policy's default"""
    epoch: int | None = None
    """of the session, in Control: a commit of an older epoch fails; None: the session's present one"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest(RequestFields):
    """A validated observation. Both edges build the same one from the same input."""

    images: Mapping[str, NDArray[np.uint8]]
    """camera -> `[height, width, 3]` RGB, already at the camera's declared size"""
    image_digests: Mapping[str, str] = field(default_factory=dict)
    """camera -> digest of its pixels, where it was hashed when it was decoded; the policy hashes the others"""
    state: Array
    """`[S]`, in the units the policy declares"""


@dataclass(frozen=True, slots=True)
class TextEmbedding:
    """An encoded instruction: `tokens [P, Ctext]` without padding. `key` names its cached keys and values."""

    key: bytes
    tokens: Array

    @staticmethod
    def key_of(instruction: str) -> bytes:
        """The key of an instruction: its sha256, 32 bytes."""
        return hashlib.sha256(instruction.encode()).digest()


@dataclass(frozen=True, slots=True)
class Gaussian:
    """A diagonal Gaussian over one noise. `mean` and `std` have the noise's shape (video: a leading axis of V or 1)."""

    mean: Array
    std: Array


@dataclass(frozen=True, slots=True)
class IterationRecord:
    """The scores and the elites of one planning iteration, and its refit."""

    snr: Array
    """`[N, M]`; in modes `mean` and `best_of_n` the mean of the value. `[0, M]` where nothing was scored (mode
    `fixed_shrink`)"""
    video_elites: tuple[int, ...]
    """indices n, best first"""
    value_elites: tuple[int, ...]
    """row indices n*M + m, best first"""
    video_std: float
    """mean std of the video Gaussian after the refit"""
    value_std: float
    """mean std of the value Gaussian after the refit"""
    moved: float
    """root mean square change of mean and std, of the Gaussian that changed more"""

    @property
    def scores(self) -> Array:
        """Score of each video sample `[N]`: the highest one among its value samples."""
        scores: Array = self.snr.max(axis=1)
        return scores


class Stop(Enum):
    """Why planning stopped."""

    DONE = "done"
    """all requested iterations are done"""
    OUT_OF_TIME = "out_of_time"
    """admission granted no further iteration: it would have made a plan late, or other robots come first"""
    SETTLED = "settled"
    """the last iteration changed the Gaussians by less than `early_stop`"""


class DeadlineResult(Enum):
    """Whether an answer met its deadline. A plan that was not committed by it has no receipt: it is an error."""

    NONE = "none"
    """the request had no deadline"""
    MET = "met"
    """in time; every requested iteration was done, or `early_stop` ended planning"""
    MET_DEGRADED = "met_degraded"
    """in time, but admission granted fewer iterations than requested (`Stop.OUT_OF_TIME`)"""
    LATE = "late"
    """committed by its deadline and answered after it: the session has advanced, and `slack_s` is negative"""


@dataclass(frozen=True, slots=True)
class ValueEstimate:
    """What M fresh value samples say of a chosen plan."""

    score: float
    """highest score of them, by the plan's mode"""
    values: Array
    """`[M]`; state value of each sample, the mean over its tokens, in the model's units"""


@dataclass(frozen=True, slots=True)
class Plan:
    """The planner's result, in normalised units."""

    actions: Array
    """`[T, Caction]`"""
    iterations: tuple[IterationRecord, ...]
    stopped: Stop
    video: Gaussian
    value: Gaussian
    estimate: ValueEstimate | None
    """None unless `estimate_value` is set"""


@dataclass(frozen=True, slots=True)
class Receipt:
    """How an answer was made: enough to judge it, and with `--record` enough to replay it."""

    policy: str
    policy_digest: str
    untrained: bool
    seed: int
    sequence: int
    config: PlannerConfig
    """as requested, with the defaults filled in"""
    iterations_done: int
    """K done; fewer than requested when planning stopped early"""
    stopped: Stop
    warm_start: bool
    """whether planning started from the session's last plan"""
    deadline: DeadlineResult
    slack_s: float | None
    """the caller's deadline minus the time of the answer; None without a deadline"""
    iterations: tuple[IterationRecord, ...]
    stage_s: Mapping[str, float]
    """seconds by stage, with the whole plan as `total`; stages overlap, so their sum may exceed `total`"""
    value_estimate: float | None
    digests: Mapping[str, str]
    """sha256 of each camera's image, the state, the instruction, the left-over and the frame memory of the plan"""
    version: str
    """version of wavserve"""
    rtc: AppliedRtc | None = None
    """real-time chunking as applied; None: off"""
    seam_jump: float | None = None
    """largest difference of chunk and left-over at step `inference_delay`, in fractions of the action's range; None
    where the left-over has no such step"""
    expected_return: float | None = None
    """mean return that the M value samples of `value_estimate` predict, in the units of the training's returns; None
    where no value is estimated, or the policy declares no units"""

    @property
    def gain(self) -> float | None:
        """The best score of the last iteration minus that of the first one; None where no iteration has scores."""
        best = [float(each.scores.max()) for each in self.iterations if each.scores.size]
        return best[-1] - best[0] if best else None
