"""The seam between planning and the models: one async method.

Called by the batcher. Implementations: `local` (in-process), `triton`, `fake` (numpy). Which one runs never shows above
this seam; what may be asked through it stands in `verbs`.
"""

from __future__ import annotations

import math
from typing import Protocol

from wavserve.core.types import Tensors


class Backend(Protocol):
    """Runs the models of one device."""

    async def run(self, verb: str, inputs: Tensors, deadline: float = math.inf) -> Tensors:
        """One call of a verb. `deadline`: after it (monotonic clock) nobody needs the answer.

        Raises BackendError when the call as a whole failed (ModelDown: when its model is gone); groups fail by
        `status`. Cancelling it reaches the model, which stops soon and keeps nothing.
        """
        ...

    async def close(self) -> None: ...
