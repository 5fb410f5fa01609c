"""The seam between planning and the models: one async method.

Called by the batcher. Implementations: `local` (in-process), `fake` (numpy), later `triton`. Which one runs never shows
above this seam; what may be asked through it stands in `verbs`.
"""

from __future__ import annotations

from typing import Protocol

from wavserve.types import Tensors


class Backend(Protocol):
    """Runs the models. `policy_digest` comes from whoever holds the weights."""

    @property
    def policy_digest(self) -> str: ...

    async def run(self, verb: str, inputs: Tensors) -> Tensors:
        """One call of a verb. Raises BackendError when the call as a whole failed; groups fail by `status`."""
        ...

    async def close(self) -> None: ...
