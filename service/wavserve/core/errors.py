"""The one error tree. Every layer raises from it; only the edges turn an error into a status.

    WavserveError
    ├── InvalidRequest        the caller can correct it; names field, expected and actual
    │   ├── UnsupportedMedia      content type or image encoding that the server does not support
    │   ├── TooLarge              body, image or instruction over its limit
    │   ├── UnknownSession        the session does not exist or has expired
    │   ├── UnknownPolicy         this server serves another policy
    │   ├── SequenceConflict      stale, reused or overlapping sequence number
    │   ├── StaleEpoch            a newer stream or a reset has begun another epoch of the session
    │   └── ContractMismatch      the client assumes something else of the policy than it declares
    ├── RobotBusy             another living stream has the robot id
    ├── Overloaded            the server refuses the request; retry later
    ├── DeadlineExceeded      no action could be produced in time
    ├── NotReady              the server is starting, draining or without a healthy backend
    │   └── Unreachable           the robot's own client got no connection, so it has sent nothing; never sent
    ├── StoreUnavailable      the session store does not answer; the session is as it was
    ├── OutcomeUnknown        whether the plan was committed is not known; the same request again resolves it
    ├── Cancelled             the caller cancelled the request or disconnected
    │   └── ClientClosed          the robot's own client is closed; never sent
    ├── UnsafeChunk           the plan breaks a limit of the policy; another seed may give one that does not
    ├── Unsupported           declared in the contract, not implemented yet
    ├── InvalidAnswer         the server's answer does not fit the contract of this client; never sent
    ├── BundleError           a policy bundle, a data set, a record or a fixture that cannot be used
    ├── SettingsError         settings that cannot be used
    ├── SimulationError       the simulator failed
    │   ├── SimulationUnavailable a package or a library of the simulator is missing; says how to install it
    │   ├── SimulationDiverged    the physics state is not finite: the commands, or the scene, broke it
    │   └── SimulatorDied         the simulator's process ended or stands still; a new environment may run the episode
    └── BackendError          a model call failed
        ├── ArenaFull             not enough free slots for a slice of video features; retryable
        ├── StaleHandle           the features behind a handle no longer exist; imagine again
        ├── TextMiss              the text keys and values are not cached; send the embedding
        ├── TensorMiss            the receiver does not hold a tensor that was sent by key; send the whole tensor
        ├── CallStuck             a model call stands still and was given up; the same request again is a new plan
        └── ModelDown             a model or its server is unavailable and is being restarted; plan again afterwards

No status code appears here; `edge/status.py` holds the table.
"""

from __future__ import annotations

import re
import reprlib
from dataclasses import dataclass
from typing import Literal

_MAX_SHOWN_CHARS = 64


@dataclass(frozen=True, slots=True)
class MissedDeadline:
    """How far a plan was from its deadline when it failed, and the work it had done by then."""

    slack_ms: float
    """deadline minus the time of the error; negative for a late plan"""
    iterations_done: int
    """K"""
    num_video_samples: int
    """N of each iteration"""
    num_value_samples: int
    """M of each video sample"""


@dataclass(frozen=True, slots=True)
class BrokenLimit:
    """The first step of a plan that breaks a kinematic limit of the policy."""

    step: int
    """index in the plan"""
    dimension: int
    """index in an action"""
    name: str
    """of the dimension"""
    limit: str
    """position, velocity or jerk"""
    bound: float
    """in the dimension's unit (position), per s (velocity) or per s^3 (jerk). The last two bound absolute values"""
    value: float
    """what the step has, in the same unit"""

    def __str__(self) -> str:
        what = f"{self.limit} {self.value:g} of {self.name} (dimension {self.dimension})"
        return f"step {self.step} of the plan: {what} is beyond {self.bound:g}"


class WavserveError(Exception):
    """Base of every error this package raises on purpose. `retryable`: a later request may succeed."""

    retryable = False
    error_id: str | None = None
    """the id under which a server logged the error; None for an error that no server sent"""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def shown(value: object) -> str:
    """A few characters of a value, for the `actual` of an error. The repr of a long value is never built."""
    try:
        text = repr(value[:_MAX_SHOWN_CHARS]) if isinstance(value, str | bytes) else reprlib.repr(value)
    except ValueError:  # Python does not print integers of more than 4,300 digits
        text = f"a long {type(value).__name__}"
    return text[:_MAX_SHOWN_CHARS]


class InvalidRequest(WavserveError):
    """Bad input. `field` is a dotted path in the request; `expected` and `actual` are short readable texts."""

    def __init__(self, field: str, expected: object, actual: object) -> None:
        self.field = field
        self.expected = str(expected)
        self.actual = str(actual)
        super().__init__(f"{field}: expected {self.expected}, got {self.actual}")


class UnsupportedMedia(InvalidRequest):
    pass


class TooLarge(InvalidRequest):
    pass


class UnknownSession(InvalidRequest):
    pass


class UnknownPolicy(InvalidRequest):
    pass


class SequenceConflict(InvalidRequest):
    pass


class StaleEpoch(InvalidRequest):
    pass


class ContractMismatch(InvalidRequest):
    pass


class RobotBusy(WavserveError):
    retryable = True


RefusalReason = Literal["places", "bytes", "share", "device_time", "sessions", "other"]
"""What there was not enough of: places for plans, bytes that requests may hold, this robot's share, time of the device,
or room for sessions."""


class Overloaded(WavserveError):
    """The server refused the request; retry later.

    `retry_after_s`: seconds until a retry may be admitted. `predicted_s`: predicted seconds until the plan is ready,
    where this prediction is the reason of the refusal; otherwise None. `reason`: for the server's metrics.
    """

    retryable = True

    def __init__(
        self,
        message: str,
        retry_after_s: float = 1.0,
        predicted_s: float | None = None,
        reason: RefusalReason = "other",
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.predicted_s = predicted_s
        self.reason = reason


class DeadlineExceeded(WavserveError):
    """No action is returned. `missed` tells of an admitted plan that was late.

    It is None when the request was refused or did not arrive in time, and when the client's own timeout ended the call.
    """

    def __init__(self, message: str, missed: MissedDeadline | None = None) -> None:
        super().__init__(message)
        self.missed = missed


class NotReady(WavserveError):
    retryable = True


class Unreachable(NotReady):
    pass


class StoreUnavailable(WavserveError):
    retryable = True


class OutcomeUnknown(WavserveError):
    """The session may have advanced. Sent again with the same sequence number and content, the request gets the
    committed answer, or a new plan when nothing was committed."""

    retryable = True


class Cancelled(WavserveError):
    retryable = True


class ClientClosed(Cancelled):
    retryable = False


class InvalidAnswer(WavserveError):
    pass


class UnsafeChunk(WavserveError):
    """No action is returned, and the session is as it was. `broken` is None when the server did not tell it."""

    retryable = True

    def __init__(self, message: str, broken: BrokenLimit | None = None) -> None:
        super().__init__(message)
        self.broken = broken


class Unsupported(WavserveError):
    pass


class BundleError(WavserveError):
    pass


class SettingsError(WavserveError):
    pass


class SimulationError(WavserveError):
    pass


class SimulationUnavailable(SimulationError):
    pass


class SimulationDiverged(SimulationError):
    pass


class SimulatorDied(SimulationError):
    retryable = True


class BackendError(WavserveError):
    retryable = True


class ArenaFull(BackendError):
    pass


class StaleHandle(BackendError):
    pass


class TextMiss(BackendError):
    pass


class TensorMiss(BackendError):
    pass


class CallStuck(BackendError):
    pass


class ModelDown(BackendError):
    pass


def error_name(cls: type[WavserveError]) -> str:
    """An error's public name: `sequence-conflict` for `SequenceConflict`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", cls.__name__).lower()


def error_kinds() -> dict[str, type[WavserveError]]:
    """Every error of the tree by its public name."""
    return {error_name(cls): cls for cls in _with_children(WavserveError)}


def _with_children(cls: type[WavserveError]) -> list[type[WavserveError]]:
    return [cls, *(each for child in cls.__subclasses__() for each in _with_children(child))]
