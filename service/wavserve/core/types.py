"""The data that travels down and up the corridor: request, plan, receipt.

Every layer may use these; they know nothing of HTTP, protobuf or torch. All are frozen; arrays in them are not written.

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
class RequestHeader:
    """What a robot says beside its pictures and its state. An `Observation` and a `PlanRequest` both have it."""

    instruction: str
    session_id: str | None = None
    """None opens a session"""
    sequence: int = 0
    """strictly increasing within a session; the same number with the same content is a retry"""
    control_step: int = 0
    """index of the next command when the images were captured; the chunk is aligned to it"""
    executed_steps: int = 0
    """steps executed since the previous accepted observation"""
    policy: str | None = None
    """None: whichever policy the server has"""
    options: Mapping[str, object] = field(default_factory=dict)
    """planner options over the policy's defaults, see `options.merge_options`"""
    seed: int | None = None
    """None: the service draws one and reports it"""
    imagine_chunks: int = 0
    """how many chunks of imagined future frames to return with the plan; they cost time"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest(RequestHeader):
    """A validated observation; both edges build the same one from the same input."""

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
    """A diagonal Gaussian over one noise; `mean` and `std` have the noise's shape (video: a leading V or 1)."""

    mean: Array
    std: Array


@dataclass(frozen=True, slots=True)
class IterationRecord:
    """What one planning iteration saw and chose."""

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
    """root mean square change of mean and std, of the Gaussian that moved more"""

    @property
    def scores(self) -> Array:
        """Score of each video sample `[N]`: the best SNR of its value samples."""
        scores: Array = self.snr.max(axis=1)
        return scores


class Stop(Enum):
    """Why planning went no further."""

    DONE = "done"
    """every iteration that was asked for"""
    OUT_OF_TIME = "out_of_time"
    """another iteration would have made this plan or one admitted before it late"""
    SETTLED = "settled"
    """the Gaussians moved by less than `early_stop`"""


class DeadlineResult(Enum):
    """How a plan stood to its deadline; a missed one is never answered with actions."""

    NONE = "none"
    MET = "met"
    MET_DEGRADED = "met_degraded"


@dataclass(frozen=True, slots=True)
class Plan:
    """The planner's answer, in normalised units."""

    actions: Array
    """`[T, action channels]`"""
    iterations: tuple[IterationRecord, ...]
    stopped: Stop
    video: Gaussian
    value: Gaussian
    value_estimate: float | None
    """SNR of the chosen plan by value samples of its own; None unless asked for"""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was done to get an answer: enough to judge it, and with `--record` to replay it."""

    policy: str
    policy_digest: str
    untrained: bool
    seed: int
    sequence: int
    config: PlannerConfig
    """as asked for, after defaults"""
    iterations_done: int
    """K spent; less than asked for when planning stopped before"""
    stopped: Stop
    warm_start: bool
    """whether it began from the session's last plan"""
    deadline: DeadlineResult
    slack_s: float | None
    """time left at the deadline; None without one"""
    iterations: tuple[IterationRecord, ...]
    stage_s: Mapping[str, float]
    value_estimate: float | None
    digests: Mapping[str, str]
    """sha256 of images (each camera), state, instruction and the frame memory the plan was made on"""
    version: str
    """of wavserve"""
