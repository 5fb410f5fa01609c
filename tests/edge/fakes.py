"""A policy that records its requests and answers at once, with example images and limits."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from tests.examples import example_policy
from wavserve.core.errors import BrokenLimit, WavserveError
from wavserve.core.messages import ActionChunk, EncodedImage, Observation
from wavserve.core.rtc import AppliedRtc
from wavserve.core.spec import (
    CameraSpec,
    ExpertConfig,
    Hold,
    LatentSpec,
    LimitsSpec,
    ModelConfig,
    PlannerConfig,
    PolicySpec,
    Resize,
    RtcSpec,
    VideoConfig,
)
from wavserve.core.types import DeadlineResult, IterationRecord, PlanRequest, Receipt, Stop
from wavserve.edge.limits import EdgeLimits
from wavserve.planning.timings import Progress
from wavserve.policy.epochs import OpenedSession
from wavserve.policy.execution import action_chunk
from wavserve.policy.imagined import encode_png
from wavserve.scheduling.permits import Permit

PICTURES = Path(__file__).parent / "pictures"
"""Unusual, partial and damaged pictures of 128x128."""
STATE_DIM, ACTION_DIM, CHUNK = 8, 7, 16
EXAMPLE_LIMITS = LimitsSpec(
    position=(None, *((-2.0, 2.0),) * (ACTION_DIM - 1)),
    velocity=(*(60.0,) * (ACTION_DIM - 1), None),
    min_horizon=4,
)
EXAMPLE_HOLD: tuple[Hold, ...] = (*("zero",) * (ACTION_DIM - 1), "last")
INSTRUCTION = "pick up the alphabet soup"


def example_spec(resize: Resize = "exact") -> PolicySpec:
    """Two cameras of 128x128, state 8, action 7, chunk 16, and limits of which some dimensions are unchecked."""
    expert = ExpertConfig(7, 7, num_heads=2, head_dim=6, rope_base=20)
    video = VideoConfig(16, 16, num_layers=2, num_heads=2, head_dim=12, caption_channels=8)
    policy = example_policy(
        STATE_DIM,
        ACTION_DIM,
        cameras=tuple(CameraSpec(name, 128, 128, resize) for name in ("agentview", "wrist")),
        chunk=CHUNK,
        control_hz=20.0,
        model=ModelConfig(video, expert, expert),
        latent=LatentSpec(4, 2, 4, 4),
        planner=PlannerConfig(num_iterations=2, num_video_samples=6, num_value_samples=4),
        notes="made up for tests",
        embodiment="example_arm",
        rtc=RtcSpec("rtc_guided", "EXP", 5.0, 8),
        max_trained_delay=3,
    )
    return replace(policy, action=replace(policy.action, limits=EXAMPLE_LIMITS, hold=EXAMPLE_HOLD))


def example_limits() -> EdgeLimits:
    return EdgeLimits(max_body_bytes=400_000, max_image_bytes=250_000, max_image_pixels=512 * 512)


def example_pixels(height: int = 128, width: int = 128, seed: int = 0) -> np.ndarray:
    """A smooth random image `[height, width, 3]`, which compresses like a camera's."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def example_bytes(pixels: np.ndarray, encoding: str) -> bytes:
    if encoding.startswith("raw"):
        return (pixels if encoding == "raw_rgb8" else pixels[..., ::-1]).tobytes()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=encoding.upper())
    return buffer.getvalue()


def example_image(camera: str = "agentview", encoding: str = "png", size: tuple[int, int] = (128, 128)) -> EncodedImage:
    pixels = example_pixels(*size, seed=len(camera))
    height, width = size if encoding.startswith("raw") else (0, 0)
    return EncodedImage(camera, encoding, example_bytes(pixels, encoding), height, width, captured_mono_ns=1234)


def example_observation(**changes: object) -> Observation:
    """An observation that the example policy accepts."""
    fields: dict[str, object] = {
        "images": (example_image("agentview", "png"), example_image("wrist", "jpeg")),
        "state": tuple(0.1 * i for i in range(STATE_DIM)),
        "instruction": INSTRUCTION,
    }
    return Observation(**(fields | changes))  # type: ignore[arg-type]


def example_receipt(spec: PolicySpec, request: PlanRequest) -> Receipt:
    config = spec.planner
    draw = np.random.default_rng(3)
    records = tuple(
        IterationRecord(
            snr=draw.standard_normal((config.num_video_samples, config.num_value_samples), dtype=np.float32),
            video_elites=(3, 1, 0, 2, 5, 4),
            value_elites=(7, 2, 11),
            video_std=0.5,
            value_std=0.25,
            moved=0.125,
        )
        for _ in range(config.num_iterations)
    )
    return Receipt(
        policy=spec.name,
        policy_digest="d" * 64,
        untrained=spec.untrained,
        seed=2**63 - 1 if request.seed is None else request.seed,
        sequence=request.sequence,
        config=config,
        iterations_done=config.num_iterations,
        stopped=Stop.OUT_OF_TIME,
        warm_start=True,
        deadline=DeadlineResult.MET_DEGRADED,
        slack_s=0.125,
        iterations=records,
        stage_s={"imagine": 0.5, "score": 0.25},
        value_estimate=0.75,
        digests={"state": "a" * 64, "images.wrist": "b" * 64},
        version="0.0.0",
        rtc=AppliedRtc(mode="rtc_guided", execution_horizon=8, inference_delay=2),
        seam_jump=0.25,
        expected_return=0.625,
    )


def example_chunk_of(spec: PolicySpec, request: PlanRequest) -> ActionChunk:
    """An answer in which no two actions are equal, with imagined frames when the request asks for them."""
    actions = np.linspace(-1, 1, CHUNK * ACTION_DIM, dtype=np.float32).reshape(CHUNK, ACTION_DIM)
    cameras = spec.cameras if request.imagine_chunks else ()
    imagined = {c.name: tuple(encode_png(c.name, example_pixels(16, 16, seed)) for seed in (5, 6)) for c in cameras}
    session_id = request.session_id or "session-of-the-fake"
    chunk = action_chunk(spec, session_id, request, actions, example_receipt(spec, request), imagined)
    return replace(
        chunk, cut=BrokenLimit(CHUNK, 2, "x2", "velocity", 1.5, -1.75), fresh_memory=True, frozen_prefix_steps=2
    )


@dataclass
class RecordingPolicy:
    """Answers with `example_chunk_of`, or raises `error`. With `hold`, a plan lasts until it is cancelled."""

    spec: PolicySpec = field(default_factory=example_spec)
    digest: str = "d" * 64
    golden_digest: str = "9" * 64
    ready: bool = True
    fault: str | None = None
    error: BaseException | None = None
    reserve_error: WavserveError | None = None
    hold: bool = False
    requests: list[PlanRequest] = field(default_factory=list)
    deadlines: list[float | None] = field(default_factory=list)
    reserved: list[float | None] = field(default_factory=list)
    resets: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    started: Callable[[], object] = lambda: None
    cancelled: Callable[[], object] = lambda: None

    @contextmanager
    def reserve(self, deadline: float | None, num_bytes: int = 0) -> Iterator[Permit]:
        self.reserved.append(deadline)
        if self.reserve_error is not None:
            raise self.reserve_error
        yield Permit()

    async def plan(
        self, request: PlanRequest, deadline: float | None, permit: Permit | None, progress: Progress | None = None
    ) -> ActionChunk:
        self.requests.append(request)
        self.deadlines.append(deadline)
        self.started()
        if self.hold:
            await self._until_cancelled()
        if self.error is not None:
            raise self.error
        return example_chunk_of(self.spec, request)

    async def reset(self, session_id: str) -> None:
        self.resets.append(session_id)
        if self.error is not None:
            raise self.error

    async def end_session(self, session_id: str) -> None:
        self.ended.append(session_id)

    async def open_session(self, robot_id: str, resume: str | None, silent_s: float | None) -> OpenedSession:
        return OpenedSession("session-of-the-fake", 1, 0, False)

    async def reset_epoch(self, session_id: str, epoch: int) -> OpenedSession:
        return OpenedSession(session_id, epoch + 1, 0, False)

    async def _until_cancelled(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled()
            raise
