"""What passes between the control thread and the link thread. Neither waits for the other.

The control thread publishes what an observation needs, and takes chunks; the link thread does the reverse. Each field
has one writer and is replaced whole.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from wavserve.core.control import ExecutionReport
from wavserve.core.messages import ActionChunk
from wavserve.core.types import Array

MAX_WAITING = 64


@dataclass(frozen=True, slots=True)
class Moment:
    """The robot at a control step: what an observation says besides its pictures."""

    control_step: int
    """of the next command"""
    state: tuple[float, ...]
    """`[S]`, measured, in the policy's units"""
    executed_steps: int
    """actions of chunks executed so far"""
    wants_chunk: bool
    at_s: float
    left_over: Array | None = None
    """`[n, A]`: the actions from `control_step` on; None: without real-time chunking"""
    inference_delay: int = 0
    """steps that are executed before the chunk arrives, as far as the latency is known"""


@dataclass(frozen=True, slots=True)
class LinkView:
    """The link as the control thread sees it."""

    is_lost: bool = True
    session_id: str = ""
    epoch: int = 0
    latency_steps: int | None = None
    """from an observation to its chunk; None: not known yet"""
    problem: str = ""
    """why the robot is blind or cut off; empty: nothing is wrong"""
    refusal: str = ""
    """why the latest observation has no chunk; empty: it has, or waits for it"""
    resumed: bool = False
    """whether the epoch goes on with the session of an earlier stream"""
    at_s: float = -math.inf
    """when the link thread said this; an old view means that the thread stands still"""


@dataclass(frozen=True, slots=True)
class Asked:
    """An observation was sent."""

    sequence: int
    control_step: int
    ages_ms: Mapping[str, float]
    """of the pictures"""
    num_left_over: int = 0
    """actions that the chunk continues; 0: none"""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A chunk came, `latency_s` after its observation was sent; None: it answers none that this link knows."""

    chunk: ActionChunk
    latency_s: float | None


@dataclass(slots=True)
class Mailbox:
    """One for each robot. Deques are safe between two threads; the newest messages are kept."""

    moment: Moment | None = None
    link: LinkView = field(default_factory=LinkView)
    to_control: deque[Asked | Arrived] = field(default_factory=lambda: deque(maxlen=MAX_WAITING))
    reports: deque[ExecutionReport] = field(default_factory=lambda: deque(maxlen=MAX_WAITING))
