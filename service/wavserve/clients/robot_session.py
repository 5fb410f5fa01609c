"""The session of a robot's streams: its policy, its id and epoch, and the task. Knows neither link nor clock.

It is not thread-safe.
"""

from __future__ import annotations

from wavserve.clients.robot import RobotDescription, RobotOptions
from wavserve.clients.robot_contract import check_policy, hello
from wavserve.core.control import Hello, ServerMessage, StreamError, Welcome
from wavserve.core.errors import InvalidAnswer
from wavserve.core.messages import PolicyInfo


class RobotSession:
    """What one stream tells the next. The first policy is the only one."""

    def __init__(self, robot: RobotDescription, options: RobotOptions) -> None:
        self.id: str | None = options.resume_session_id or None
        """of the session that the next stream resumes; None: it opens a new one"""
        self.epoch = 0
        self.resumed = False
        """whether the epoch goes on with the session of an earlier stream"""
        self.existed = self.id is not None
        """whether there was a stream, of this run or of the one that it resumes"""
        self.instruction = ""
        """the latest one that was sent"""
        self._robot = robot
        self._digest = options.policy_digest

    def hello(self, policy: PolicyInfo) -> Hello:
        """The first message of a stream. Raises ContractMismatch when the robot or the first policy was another."""
        check_policy(policy, self._robot, self._digest)
        return hello(policy, self._robot, self.instruction, self.id)

    def opened(self, message: ServerMessage | None) -> Welcome:
        """Takes the server's first message. Raises the server's error, InvalidAnswer and ContractMismatch."""
        if isinstance(message, StreamError):
            raise message.error()
        if not isinstance(message, Welcome):
            raise InvalidAnswer(f"the first message: expected a Welcome, got {type(message).__name__}")
        check_policy(message.policy, self._robot, self._digest)
        self._digest = message.policy.digest
        self.id, self.epoch, self.resumed, self.existed = message.session_id, message.epoch, message.resumed, True
        return message

    def was_reset(self, epoch: int) -> None:
        """The server has forgotten the memory and begun an epoch."""
        self.epoch, self.resumed = epoch, False

    def give_up(self) -> None:
        """The next stream opens a new session."""
        self.id = None
