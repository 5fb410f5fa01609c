"""Two baseline policies with the interface of the service's policy: each makes one plan at a time.

`SerialPolicy` puts a lock around a policy. `PlainPolicy` plans as the authors' code does: it projects the features
again for every value sample and flow step, and it pads and masks the text. It runs on the bundle's own weights. The
comparison favours it in three ways: it keeps the text embedding, it does not begin a plan whose deadline passed in the
queue, and it hashes nothing.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from wavserve.bundle.bundle import TRANSFORMER, Bundle
from wavserve.core.errors import DeadlineExceeded, UnknownSession, Unsupported
from wavserve.core.messages import ActionChunk
from wavserve.core.noise import FINAL, Stream, draw, draw_many
from wavserve.core.normalise import Normaliser
from wavserve.core.options import merge_options
from wavserve.core.spec import PlannerConfig, PolicySpec
from wavserve.core.types import Array, DeadlineResult, PlanRequest, Receipt, Stop
from wavserve.edge.frontend import PolicyProtocol
from wavserve.models.networks.encoder import Encoder, Pixels
from wavserve.models.networks.plain import Draws, Plain, Scene, plain_plan
from wavserve.models.weights import weights
from wavserve.planning.timings import Progress
from wavserve.policy.epochs import OpenedSession
from wavserve.policy.execution import action_chunk
from wavserve.policy.sessions import FrameMemory
from wavserve.scheduling.permits import Permit


class UnaryOnly:
    """A policy without streams."""

    async def open_session(self, robot_id: str, resume: str | None, silent_s: float | None) -> OpenedSession:
        raise Unsupported("this baseline has no streams")

    async def reset_epoch(self, session_id: str, epoch: int) -> OpenedSession:
        raise Unsupported("this baseline has no streams")

    async def end_session(self, session_id: str) -> None:
        raise Unsupported("this baseline has no clients of other servers")


@dataclass(slots=True)
class SerialPolicy(UnaryOnly):
    """A policy that makes one plan at a time, first come, first served."""

    policy: PolicyProtocol
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def spec(self) -> PolicySpec:
        return self.policy.spec

    @property
    def digest(self) -> str:
        return self.policy.digest

    @property
    def golden_digest(self) -> str:
        return self.policy.golden_digest

    @property
    def ready(self) -> bool:
        return self.policy.ready

    @property
    def fault(self) -> str | None:
        return self.policy.fault

    def reserve(self, deadline: float | None, num_bytes: int = 0) -> AbstractContextManager[Permit]:
        """Admits every request: no plan is refused before its turn."""
        return nullcontext(Permit())

    async def plan(
        self,
        request: PlanRequest,
        deadline: float | None = None,
        permit: Permit | None = None,
        progress: Progress | None = None,
    ) -> ActionChunk:
        """Makes one plan, after all earlier ones. Raises DeadlineExceeded when its deadline passed in the queue."""
        async with self._lock:
            if deadline is not None and time.monotonic() > deadline:
                raise DeadlineExceeded("the deadline passed in the queue")
            return await self.policy.plan(request, deadline, permit, progress)

    async def reset(self, session_id: str) -> None:
        await self.policy.reset(session_id)


class PlainPolicy(UnaryOnly):
    """Plans on the plain path, in a thread. It never drops a session and always runs all K iterations."""

    golden_digest = ""
    ready = True
    fault = None

    def __init__(self, bundle: Bundle, digest: str) -> None:
        self.spec = bundle.spec
        self.digest = digest
        self._models = PlainModels(bundle)
        self._normaliser = Normaliser(bundle.spec)
        self._sessions: dict[str, FrameMemory] = {}

    def reserve(self, deadline: float | None, num_bytes: int = 0) -> AbstractContextManager[Permit]:
        """Admits every request, because it has no cost model."""
        return nullcontext(Permit())

    async def plan(
        self,
        request: PlanRequest,
        deadline: float | None = None,
        permit: Permit | None = None,
        progress: Progress | None = None,
    ) -> ActionChunk:
        """Makes one plan. Raises DeadlineExceeded when it is ready too late, UnknownSession for an unknown session."""
        began = time.monotonic()
        session = request.session_id or secrets.token_urlsafe(18)
        if request.session_id is not None and request.session_id not in self._sessions:
            raise UnknownSession("session_id", "a session of this service", repr(session))
        config = merge_options(self.spec.planner, self.spec.bounds, dict(request.options))
        seed = secrets.randbits(53) if request.seed is None else request.seed
        latents = await asyncio.to_thread(self._models.encode_images, request.images)
        memory = self._remembered(session, latents, request.executed_steps)
        history = self._normaliser.history(request.state)
        output = await asyncio.to_thread(
            self._models.plan, (memory.frames, request.instruction, history), config, (seed, request.sequence)
        )
        actions = self._normaliser.actions(output, request.state)
        if deadline is not None and time.monotonic() > deadline:
            raise DeadlineExceeded("the plan was ready too late")
        self._sessions[session] = memory
        receipt = self._receipt(request, config, seed, (began, deadline))
        return action_chunk(self.spec, session, request, actions, receipt)

    async def reset(self, session_id: str) -> None:
        """Forgets a session."""
        self._sessions.pop(session_id, None)

    def _remembered(self, session: str, latents: Array, executed_steps: int) -> FrameMemory:
        spec, known = self.spec, self._sessions.get(session)
        if known is None:
            return FrameMemory.begin(latents, spec.latent.num_memory_frames, spec.memory_threshold)
        return known.observe(latents, executed_steps, spec.memory_threshold)

    def _receipt(
        self, request: PlanRequest, config: PlannerConfig, seed: int, times: tuple[float, float | None]
    ) -> Receipt:
        (began, deadline), now = times, time.monotonic()
        return Receipt(
            policy=self.spec.name,
            policy_digest=self.digest,
            untrained=self.spec.untrained,
            seed=seed,
            sequence=request.sequence,
            config=config,
            iterations_done=config.num_iterations,
            stopped=Stop.DONE,
            warm_start=False,
            deadline=DeadlineResult.NONE if deadline is None else DeadlineResult.MET,
            slack_s=None if deadline is None else deadline - now,
            iterations=(),
            stage_s={"total": now - began},
            value_estimate=None,
            digests={},
            version="baseline",
        )


class PlainModels:
    """A bundle's models on the plain path: frames to latents, and a plan. Only one thread at a time may call it."""

    def __init__(self, bundle: Bundle) -> None:
        self._spec = bundle.spec
        self._encoder = Encoder(bundle.folder)
        models = weights.load(bundle.folder / TRANSFORMER, bundle.spec.model)
        self._plain = Plain(models, bundle.spec.model, bundle.spec.latent)
        self._texts: dict[str, tuple[Tensor, Tensor]] = {}

    def encode_images(self, images: Mapping[str, Pixels]) -> Array:
        """Normalised latents `[V, C, H, W]` of one frame per camera."""
        pixels = np.stack([images[camera.name] for camera in self._spec.cameras])
        latents: Array = self._encoder.encode_images(pixels[None])[0]
        return latents

    @torch.inference_mode()
    def plan(self, context: tuple[Array, str, Array], config: PlannerConfig, key: tuple[int, int]) -> Array:
        """Normalised actions `[T, action channels]` of one plan.

        `context` holds the frame memory, the instruction and the history token. `key`, a seed and a sequence number,
        names the noise.
        """
        memory, instruction, history = context
        scene = Scene(torch.from_numpy(memory), *self._text(instruction), torch.from_numpy(history))
        actions, _ = plain_plan(self._plain, scene, self._draws(config, key), config)
        normalised: Array = actions.numpy()
        return normalised

    def _text(self, instruction: str) -> tuple[Tensor, Tensor]:
        """The embedding `[P, C]`, padded to the policy's prompt length as in the released code, and its mask."""
        if instruction not in self._texts:
            [own] = self._encoder.encode_text([instruction.encode()])
            text = torch.zeros(self._spec.max_prompt_tokens, own.shape[1])
            text[: len(own)] = torch.from_numpy(own)
            self._texts[instruction] = text, (torch.arange(len(text)) < len(own)).float()
        return self._texts[instruction]

    def _draws(self, config: PlannerConfig, key: tuple[int, int]) -> Draws:
        """Every noise of a plan, drawn by the same names as in the service."""
        spec, latent = self._spec, self._spec.latent
        video = (spec.num_views, spec.model.video.in_channels, latent.num_future_frames, latent.height, latent.width)
        value = (spec.num_value_tokens, spec.model.value.in_channels)
        action = (spec.chunk, spec.model.action.in_channels)
        futures, rows = range(config.num_video_samples), range(config.num_video_samples * config.num_value_samples)
        rounds = range(config.num_iterations)
        videos = [draw_many(key, Stream.VIDEO, k, futures, video) for k in rounds]
        values = [draw_many(key, Stream.VALUE, k, rows, value) for k in rounds]
        return Draws(
            torch.from_numpy(np.stack(videos) if videos else np.empty((0, len(futures), *video), np.float32)),
            torch.from_numpy(np.stack(values) if values else np.empty((0, len(rows), *value), np.float32)),
            torch.from_numpy(draw(key, Stream.VIDEO, FINAL, 0, video)),
            torch.from_numpy(draw(key, Stream.VALUE, FINAL, 0, value)),
            torch.from_numpy(draw(key, Stream.ACTION, FINAL, 0, action)),
        )
