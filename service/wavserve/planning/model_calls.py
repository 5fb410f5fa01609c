"""What a plan asks of the models, as sample groups: `imagine`, `score`, `decode`, `denoise`.

It names noises, sends the text embedding when the model does not have it, imagines again when features are gone, and
frees slots when a plan ends early. So the planner reads as the algorithm.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from wavserve.core.errors import StaleHandle, TextMiss
from wavserve.core.noise import FINAL, Stream
from wavserve.core.rtc import Continuation
from wavserve.core.spec import PlannerConfig, PolicySpec
from wavserve.core.types import Array, Gaussian, Handles, Tensors, TextEmbedding
from wavserve.planning.proposal import NoiseSource, Proposal
from wavserve.planning.timings import Progress
from wavserve.scheduling.batcher import Batcher
from wavserve.scheduling.groups import SampleGroup
from wavserve.scheduling.ledger import Ticket

T = TypeVar("T")

MAX_ATTEMPTS = 3
"""Attempts to imagine a slice whose features are gone."""


@dataclass(frozen=True, slots=True, eq=False)
class PlanJob:
    """One plan: what it is conditioned on, in the models' own units, and how it is asked for."""

    memory: Array
    """normalised latents of the memory frames `[V, C, Fmem, H, W]`"""
    text: TextEmbedding
    history: Array
    """history token of the action expert `[action channels]`: zeros, then the normalised state"""
    config: PlannerConfig
    noise: NoiseSource
    start: Proposal | None = None
    """where planning begins; None: the standard Gaussians"""
    imagine_chunks: int = 0
    """chunks of imagined frames that are asked for once the plan is made"""
    continuation: Continuation | None = None
    """what the decode continues; None: nothing"""
    ticket: Ticket = field(default_factory=Ticket)
    progress: Progress = field(default_factory=Progress)

    @property
    def guided(self) -> bool:
        """Whether the decode is guided, which costs more."""
        return self.continuation is not None and self.continuation.guided


@dataclass(frozen=True, slots=True)
class ModelCalls:
    """The models as one plan sees them."""

    spec: PolicySpec
    batcher: Batcher

    @property
    def video_shape(self) -> tuple[int, ...]:
        """One video noise: generated frames of every view, `(V, C, F, H, W)`."""
        latent = self.spec.latent
        channels = self.spec.model.video.in_channels
        return self.spec.num_views, channels, latent.num_future_frames, latent.height, latent.width

    @property
    def value_shape(self) -> tuple[int, int]:
        """One value noise, `(T, C)`."""
        return self.spec.num_value_tokens, self.spec.model.value.in_channels

    async def with_features(
        self, job: PlanJob, video: Gaussian, iteration: int, samples: range, use: Callable[[Handles], Awaitable[T]]
    ) -> T:
        """Imagines samples and awaits `use` of their handles; imagines them again when their features are gone.

        On an error it frees the slots. Raises StaleHandle after MAX_ATTEMPTS, and what `use` raises.
        """
        tensors = self._video_tensors(job, video, iteration, samples)
        params = {"video_steps": job.config.num_video_steps}
        for _ in range(MAX_ATTEMPTS):
            handles = (await self._with_text(job, "imagine", tensors, params))["handles"]
            try:
                return await use(handles)
            except BaseException as error:
                self.batcher.discard(handles)  # nobody else frees these slots after a cancellation or a failure
                if not isinstance(error, StaleHandle):
                    raise
                stale = error
        raise stale

    async def score(
        self, job: PlanJob, value: Gaussian, handles: Handles, iteration: int, rows: NDArray[np.int64], *, release: bool
    ) -> Array:
        """State-value tokens `[n, M, T]` of the value samples `rows [n, M]` on the features `handles [n, 2]`."""
        tensors = self._value_tensors(job, value, handles, iteration, rows)
        params = {"flow_steps": job.config.num_flow_steps, "release": int(release)}
        values: Array = (await self._run(job, "score", tensors, params))["values"]
        return values

    async def decode(self, job: PlanJob, value: Gaussian, handles: Handles) -> Array:
        """Normalised actions `[T, action channels]` of one video sample; its slot is released."""
        await self._run(
            job, "value_features", self._value_tensors(job, value, handles, FINAL, np.zeros((1, 1), np.int64)), {}
        )
        params = {"flow_steps": job.config.num_flow_steps}
        actions: Array = (await self._run(job, "decode", self._action_tensors(job, handles), params))["actions"]
        return actions

    async def denoise(self, job: PlanJob, video: Gaussian, chunk: int) -> Array:
        """Normalised latents `[V, C, F, H, W]` of imagined frames, fully denoised.

        Chunk 0 starts from the noise that the actions were decoded from, each later chunk from noise of its own.
        """
        tensors = self._video_tensors(job, video, FINAL, range(chunk, chunk + 1))
        params = {"flow_steps": job.config.num_flow_steps}
        latents: Array = (await self._with_text(job, "denoise", tensors, params))["latents"][0]
        return latents

    async def _with_text(self, job: PlanJob, verb: str, tensors: Tensors, params: Mapping[str, int]) -> Tensors:
        """Runs a video verb with the text's key alone; sends the embedding only when the model does not have it."""
        try:
            return await self._run(job, verb, tensors, params)
        except TextMiss:
            return await self._run(job, verb, {**tensors, "embedding": job.text.tokens}, params)

    async def _run(self, job: PlanJob, verb: str, tensors: Tensors, params: Mapping[str, int]) -> Tensors:
        def account(queued_s: float, call_s: float) -> None:
            job.progress.add("queued", queued_s)
            job.progress.add(verb, call_s)

        return await self.batcher.run(SampleGroup(verb, tensors, params, job.ticket, account))

    def _video_tensors(self, job: PlanJob, video: Gaussian, iteration: int, samples: range) -> dict[str, NDArray[Any]]:
        tensors: dict[str, NDArray[Any]] = {
            "memory": job.memory,
            "mean": video.mean,
            "std": video.std,
            "text_key": np.frombuffer(job.text.key, np.uint8),
            "noise_key": np.array(job.noise.key, np.int64),
            "noise_name": np.array([(iteration, sample) for sample in samples], np.int64),
        }
        if job.noise.explicit:
            tensors["noise"] = job.noise.draw(Stream.VIDEO, iteration, samples, self.video_shape)
        return tensors

    def _value_tensors(
        self, job: PlanJob, value: Gaussian, handles: Handles, iteration: int, rows: NDArray[np.int64]
    ) -> dict[str, NDArray[Any]]:
        tensors: dict[str, NDArray[Any]] = {
            "handles": handles,
            "mean": value.mean,
            "std": value.std,
            "noise_key": np.array(job.noise.key, np.int64),
            "noise_name": np.stack([np.full_like(rows, iteration), rows], axis=-1),
        }
        if job.noise.explicit:
            draws = job.noise.draw(Stream.VALUE, iteration, rows.reshape(-1).tolist(), self.value_shape)
            tensors["noise"] = draws.reshape(*rows.shape, *self.value_shape)
        return tensors

    def _action_tensors(self, job: PlanJob, handles: Handles) -> dict[str, NDArray[Any]]:
        tensors: dict[str, NDArray[Any]] = {
            "handles": handles,
            "history": job.history,
            "noise_key": np.array(job.noise.key, np.int64),
            "noise_name": np.array([FINAL, 0], np.int64),
        }
        if job.noise.explicit:
            shape = (self.spec.chunk, self.spec.model.action.in_channels)
            tensors["noise"] = job.noise.draw(Stream.ACTION, FINAL, [0], shape)[0]
        return tensors | ({} if job.continuation is None else _continuation_tensors(job.continuation))


def _continuation_tensors(continuation: Continuation) -> dict[str, NDArray[Any]]:
    """The optional inputs of `decode`: those of a guided decode, or those of one with a clean prefix."""
    if continuation.guided:
        max_weight = np.array([continuation.max_weight], np.float32)
        return {"left_over": continuation.left_over, "weights": continuation.weights, "max_weight": max_weight}
    return {"left_over": continuation.left_over, "num_frozen": np.array([continuation.num_frozen], np.int64)}
