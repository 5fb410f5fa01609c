"""A service whose policy fits what LeRobot gives, and the sessions there. Knows neither torch nor LeRobot."""

from __future__ import annotations

from dataclasses import dataclass

from lerobot_policy_wavserve.contract import Assumed, check
from lerobot_policy_wavserve.sessions import Asking, Session, Sessions, Transport, UnarySession
from lerobot_policy_wavserve.streams import StreamSession
from wavserve.clients.plan_client import PlanClient


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


class Connection:
    """A service, and one session for each environment of a batch."""

    def __init__(self, where: Where, assumed: Assumed, asking: Asking) -> None:
        """Asks for the policy and compares it. Raises ContractMismatch, and NotReady when no service answers."""
        self._where, self._asking = where, asking
        self._client = PlanClient(where.address, robot_id=where.robot_id)
        try:
            self.policy = self._client.policy()
            self.cameras = check(self.policy, assumed)
        except BaseException:
            self._client.close()
            raise
        self.sessions = Sessions(self.policy, self._open, where.seed)

    def close(self) -> None:
        """Ends the sessions and the connection."""
        self.sessions.close()
        self._client.close()

    def _open(self, index: int) -> Session:
        if self._where.transport == "stream":
            robot_id = f"{self._where.robot_id}-{index}"
            return StreamSession(self._where.address, robot_id, self.policy, self._asking)
        return UnarySession(self._client, self.policy, self._asking)
