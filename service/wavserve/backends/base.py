"""The seam between scheduling and the models: one async method.

Implementations: `local` (the models in this process), `triton` (in a Triton server), `fake` (numpy). Code above this
seam must not depend on which one runs. `core.verbs` lists the verbs.
"""

from __future__ import annotations

import math
from typing import Protocol

from wavserve.core.types import Tensors


class Backend(Protocol):
    """Runs the models of one device."""

    async def run(self, verb: str, inputs: Tensors, deadline: float = math.inf) -> Tensors:
        """Runs one call of a verb. After `deadline` (monotonic clock) nobody needs the answer.

        Raises BackendError when the whole call failed, or its subclass ModelDown when the model is unavailable. The
        failure of a single group is reported in `status`. Cancelling the call also cancels it in the model, which stops
        soon and keeps nothing.
        """
        ...

    async def close(self) -> None: ...
