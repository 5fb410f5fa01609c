"""The data that passes through the corridor: request, plan, receipt.

Every layer may use these types. They know nothing of HTTP, protobuf or torch. All are frozen, and no code writes into
their arrays.

Shape legend (used in every docstring and einops string):
    B batch rows, G groups in a batch, N video samples of a group, M value samples per video sample,
    K planning iterations, V views, F latent frames (P of them memory), H W latent height and width, L tokens,
    C channels, T action steps, A action dim, S state dim, P prompt tokens (where text is meant).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavserve.core.spec import PlannerConfig

Array = NDArray[np.float32]
Tensors = Mapping[str, NDArray[Any]]
"""Named tensors of one backend call."""
Clock = Callable[[], float]
"""Seconds of a monotonic clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFields:
    """The fields of a request besides its images and its state. `Observation` and `PlanRequest` share them."""

    instruction: str
    session_id: str | None = None
    """None: the server opens a session"""
    sequence: int = 0
    """strictly increasing within a session; the same number with the same content is a retry"""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest(RequestFields):
    """A validated observation. Both edges build the same one from the same input."""

    images: Mapping[str, NDArray[np.uint8]]
    """camera -> `[height, width, 3]` RGB, already at the camera's declared size"""
    state: Array
    """`[S]`, in the units the policy declares"""


@dataclass(frozen=True, slots=True)
class TextEmbedding:
    """An encoded instruction: `tokens [P, C]` without padding, and the key under which its keys/values are cached."""

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
    """`[N, M]`; `[0, M]` where nothing was scored (mode `fixed_shrink`)"""
    video_elites: tuple[int, ...]
    """indices n, best first"""
    value_elites: tuple[int, ...]
    """row indices n*M + m, best first"""
    video_std: float
    """mean std of the video Gaussian after the refit"""
    value_std: float
    moved: float
    """root mean square change of mean and std, of the Gaussian that changed more"""

    @property
    def scores(self) -> Array:
        """Score of each video sample `[N]`: the best SNR of its value samples."""
        scores: Array = self.snr.max(axis=1)
        return scores


class Stop(Enum):
    """Why planning stopped."""

    DONE = "done"
    """all requested iterations are done"""
    OUT_OF_TIME = "out_of_time"
    """another iteration would have made this plan, or one admitted before it, late"""
    SETTLED = "settled"
    """the last iteration changed the Gaussians by less than `early_stop`"""


class DeadlineResult(Enum):
    """Whether an answer met its deadline. A plan that misses its deadline is never answered with actions."""

    NONE = "none"
    """the request had no deadline"""
    MET = "met"
    MET_DEGRADED = "met_degraded"
    """met, because planning stopped early (`Stop.OUT_OF_TIME`)"""


@dataclass(frozen=True, slots=True)
class Plan:
    """The planner's result, in normalised units."""

    actions: Array
    """`[T, action channels]`"""
    iterations: tuple[IterationRecord, ...]
    stopped: Stop
    video: Gaussian
    value: Gaussian
    value_estimate: float | None
    """SNR of the chosen plan, from value samples of its own; None unless requested"""


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
    """K done; less than requested when planning stopped early"""
    stopped: Stop
    warm_start: bool
    """whether planning started from the session's last plan"""
    deadline: DeadlineResult
    slack_s: float | None
    """time left until the deadline when the answer was ready; None without a deadline"""
    iterations: tuple[IterationRecord, ...]
    stage_s: Mapping[str, float]
    value_estimate: float | None
    digests: Mapping[str, str]
    """sha256 of each camera's image, the state, the instruction and the frame memory that the plan used"""
    version: str
    """version of wavserve"""
