"""What a program reads of its robot's client, the same whether it blocks or awaits. Any thread may read it."""

from __future__ import annotations

from wavserve.clients.latency import LatencyWindow
from wavserve.clients.robot import Event, LinkState
from wavserve.clients.robot_core import RobotCore
from wavserve.core.errors import WavserveError


class RobotView:
    """Events, and the state of the link and of the latest observation."""

    def __init__(self, core: RobotCore) -> None:
        self.core = core

    def poll(self) -> Event | None:
        """The oldest event that the program has not had; None: nothing happened."""
        return self.core.poll()

    @property
    def link(self) -> LinkState:
        """The link at this moment."""
        return self.core.link

    @property
    def gateway(self) -> str:
        """The address of the stream that is open, or of the next attempt."""
        return self.core.gateway

    @property
    def is_alone(self) -> bool:
        """Whether there is one gateway only."""
        return self.core.is_alone

    @property
    def is_waiting(self) -> bool:
        """Whether the latest observation has no answer yet (no chunk, no drop and no error), or the server has asked
        to be left alone for a while. A new observation would be old when it is sent."""
        return self.core.is_waiting

    @property
    def latency(self) -> LatencyWindow:
        """How long it takes from an observation to its chunk."""
        return self.core.latency

    @property
    def stopped(self) -> WavserveError | None:
        """Why the client connects no more; None: it does."""
        return self.core.stopped
