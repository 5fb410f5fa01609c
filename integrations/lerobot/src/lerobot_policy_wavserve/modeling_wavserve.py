"""The policy as LeRobot calls it: batches in, actions out, episodes begun anew. The model is at the service.

It counts control steps and keeps the actions that a chunk still has. It never changes an action.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies import PreTrainedPolicy
from torch import Tensor

from lerobot_policy_wavserve.batches import image_keys, instructions_of, seen_by, state_of
from lerobot_policy_wavserve.configuration_wavserve import WavserveConfig
from lerobot_policy_wavserve.connection import Connection
from lerobot_policy_wavserve.left_over import find
from lerobot_policy_wavserve.processor_wavserve import make_wavserve_pre_post_processors
from wavserve.core.errors import InvalidRequest, Unsupported
from wavserve.core.types import Array

Batch = dict[str, Any]


class WavservePolicy(PreTrainedPolicy):
    """A served policy. Each row of a batch is an environment with a session of its own."""

    config_class = WavserveConfig
    name = "wavserve"

    def __init__(self, config: WavserveConfig, **_: Any) -> None:
        """Connects with the first batch."""
        super().__init__(config)
        self.config: WavserveConfig = config
        self._connection: Connection | None = None
        self._lock = threading.RLock()  # LeRobot may reset while another of its threads waits for a chunk
        self.reset()

    def reset(self) -> None:
        """Begins an episode: the service has no memory of the earlier one. Waits for a plan that is under way."""
        with self._lock:
            self._queue: deque[Array] = deque()  # of [B, A]
            self._step = 0  # index of the next action
            self._chunks: list[Array] = []  # the latest, [n, A] for each environment
            self._planned_at = 0
            self._thread: int | None = None
            if self._connection is not None:
                self._connection.sessions.reset()

    @torch.no_grad()
    def select_action(self, batch: Batch) -> Tensor:
        """The next action `[B, A]`, in the policy's units. Asks for chunks when the present ones are used up.

        A chunk that the service cut is used up where it was cut, for every environment. Raises the service's error,
        ContractMismatch before the first action of a policy that does not fit, and InvalidRequest.
        """
        with self._lock:
            self._check_thread()
            if not self._queue:
                rest = [chunk[self._step - self._planned_at :] for chunk in self._chunks]
                chunks = self._plan(batch, rest if self.config.rtc else ())
                num_steps = min(self.config.n_action_steps, *(len(chunk) for chunk in chunks))
                self._queue.extend(np.stack([chunk[:num_steps] for chunk in chunks], axis=1))
            self._step += 1
            return torch.from_numpy(self._queue.popleft().copy())

    @torch.no_grad()
    def predict_action_chunk(
        self,
        batch: Batch,
        inference_delay: int | None = None,
        prev_chunk_left_over: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """A chunk `[B, n, A]`; n is T, or the length of the shortest one where the service cut some. Errors as above.

        `prev_chunk_left_over`: `[n, A]` or `[B, n, A]`, actions of the latest chunk that are not executed. It tells how
        many were: without it, `n_action_steps`.
        """
        with self._lock:
            left_over, executed = _rows(prev_chunk_left_over), self.config.n_action_steps
            if left_over:
                executed, left_over = find(left_over, self._chunks)
            if self._chunks:
                self._step = self._planned_at + executed
            chunks = self._plan(batch, left_over if self.config.rtc else (), inference_delay or 0)
            num_steps = min(len(chunk) for chunk in chunks)
            return torch.from_numpy(np.stack([chunk[:num_steps] for chunk in chunks]))

    def supports_rtc(self) -> bool:
        """LeRobot asks before it runs its own real-time chunking."""
        return True

    def close(self) -> None:
        """Ends the sessions and the connection. The next batch connects again."""
        with self._lock:
            self.reset()
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @classmethod
    def from_pretrained(
        cls, pretrained_name_or_path: str | Path, *, config: PreTrainedConfig | None = None, **kwargs: Any
    ) -> Self:
        """The policy of a folder with `config.json`, or of a repository on the hub. No weights are read."""
        if config is None:
            config = PreTrainedConfig.from_pretrained(pretrained_name_or_path, **kwargs)
        if not isinstance(config, WavserveConfig):
            raise InvalidRequest("type", "wavserve", config.type)
        policy = cls(config)
        policy.eval()
        return policy

    def _save_pretrained(self, save_directory: Path, **_: Any) -> None:
        """Writes the configuration and the processors, all as JSON: a folder for `--policy.path`."""
        self.config._save_pretrained(save_directory)
        for pipeline in make_wavserve_pre_post_processors(self.config):
            pipeline.save_pretrained(save_directory)

    def _check_thread(self) -> None:
        """Refuses tasks in parallel: they would take each other's actions."""
        self._thread = self._thread or threading.get_ident()
        if self._thread != threading.get_ident():
            raise InvalidRequest("env.max_parallel_tasks", "1", "several threads in one episode")

    def _plan(self, batch: Batch, left_over: Sequence[Array], inference_delay: int = 0) -> list[Array]:
        """Chunks from the present step on; `left_over`: for each environment, or nothing."""
        if self._connection is None:
            assumed = self.config.assumed(image_keys(batch), state_of(batch).shape[1])
            self._connection = Connection(self.config.where, assumed, self.config.asking)
        instructions = instructions_of(batch, self.config.instruction_key, self.config.default_instruction)
        seen = seen_by(batch, self._connection.cameras, instructions)
        self._chunks = self._connection.sessions.plan(seen, self._step, left_over, inference_delay)
        self._planned_at = self._step
        return self._chunks

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Any] | None]:
        """Raises Unsupported."""
        raise Unsupported("a served policy cannot be trained here: it has no weights")

    def get_optim_params(self) -> dict[str, Any]:
        """There are no parameters."""
        return {}


def _rows(actions: Tensor | None) -> list[Array]:
    """`[n, A]` for each environment; empty: none."""
    if actions is None or not actions.numel():
        return []
    rows = np.asarray(actions.detach().float().cpu())
    return list(rows if rows.ndim == 3 else rows[None])
