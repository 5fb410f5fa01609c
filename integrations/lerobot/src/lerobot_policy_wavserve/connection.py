"""A service whose policy fits what LeRobot gives, and the sessions there. Knows neither torch nor LeRobot."""

from __future__ import annotations

from dataclasses import dataclass

from lerobot_policy_wavserve.contract import Assumed, check
from lerobot_policy_wavserve.sessions import Asking, Session, Sessions, Transport, UnarySession
from lerobot_policy_wavserve.streams import StreamSession
from wavserve.clients.plan_client import PlanClient
from wavserve.clients.traces import tracer_to


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Which service, and as whom."""

    address: str
    """`host:port`; for transport `http` the URL `http://host:port`. Several gateways with commas"""
    transport: Transport = "grpc"
    robot_id: str = "lerobot"
    """Environment `i` is the robot `robot_id-i` on a stream."""
    seed: int | None = None
    """of the plans of the first environment's first episode; see `Sessions`. None: the service draws them"""
    traces: str | None = None
    """URL of the collector that gets the spans of plans; None: none are recorded"""


class Connection:
    """A service, and one session for each environment of a batch."""

    def __init__(self, where: Where, assumed: Assumed, asking: Asking) -> None:
        """Asks for the policy and compares it. Raises ContractMismatch, NotReady when no service answers, and
        InvalidRequest as `tracer_to` for `traces`."""
        self._where, self._asking = where, asking
        self._tracer = tracer_to(where.traces, "wavserve-lerobot", "traces")
        self._client = PlanClient(where.address, robot_id=where.robot_id, tracer=self._tracer)
        try:
            self.policy = self._client.policy()
            self.cameras = check(self.policy, assumed)
        except BaseException:
            self._end()
            raise
        self.sessions = Sessions(self.policy, self._open, where.seed)

    def close(self) -> None:
        """Ends the sessions and the connection."""
        self.sessions.close()
        self._end()

    def _end(self) -> None:
        self._client.close()
        self._tracer.close()

    def _open(self, index: int) -> Session:
        if self._where.transport == "stream":
            robot_id = f"{self._where.robot_id}-{index}"
            return StreamSession(self._where.address, robot_id, self.policy, self._asking, self._tracer)
        return UnarySession(self._client, self.policy, self._asking)
