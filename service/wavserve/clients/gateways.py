"""A robot's gateways: which one it prefers, which one is next, and why the others failed. Knows neither link nor call.

Rendezvous hashing of the robot's name ranks the addresses, so the robots of a fleet spread over its gateways. A client
stays with a gateway until that fails. Then it goes to the first in rank that has not failed lately.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Collection, Mapping, Sequence

from wavserve.clients.channels import check_target
from wavserve.core.address import ADDRESS, URL, is_url, parse_url, without_login
from wavserve.core.errors import (
    Cancelled,
    ClientClosed,
    ContractMismatch,
    DeadlineExceeded,
    InvalidRequest,
    ModelDown,
    NotReady,
    OutcomeUnknown,
    Overloaded,
    RobotBusy,
    StoreUnavailable,
    Unreachable,
    Unsupported,
    WavserveError,
    shown,
)
from wavserve.core.rendezvous import ranked
from wavserve.core.types import Clock

LATELY_S = 30.0
"""For so long after its failure an address comes after those that have not failed."""
Targets = str | Sequence[str]
"""Addresses of gateways of one policy: a text with commas, or a sequence of texts."""

POLICY_DIGEST = "policy_digest"
"""The field of the error when a gateway has another policy than the client began with."""

_OF_GATEWAY = (NotReady, StoreUnavailable, OutcomeUnknown, ModelDown)
_OF_ROBOT = (ClientClosed, InvalidRequest, RobotBusy, Overloaded)
_VERDICTS = (ContractMismatch, Unsupported, OutcomeUnknown)
"""Errors that say more than others: what no attempt mends, and that a plan may have been committed."""


def parse_targets(targets: Targets, field: str = "target") -> tuple[str, ...]:
    """The addresses, as texts: all `host:port`, or all URLs of HTTP. Raises InvalidRequest naming the one that is
    wrong."""
    parts = targets.split(",") if isinstance(targets, str) else targets
    found: list[str] = []
    for index, part in enumerate(parts):
        name = field if len(parts) == 1 else f"{field}[{index}]"
        target = _parse(part, name)
        if target in found:
            raise InvalidRequest(name, "each address once", shown(without_login(target)))
        if found and is_url(target) != is_url(found[0]):
            expected = "a URL, as the first one" if is_url(found[0]) else "HOST:PORT, as the first one"
            raise InvalidRequest(name, expected, shown(without_login(target)))
        found.append(target)
    if not found:
        raise InvalidRequest(field, "at least one address", "none")
    return tuple(found)


def parse_grpc_targets(targets: Targets, field: str = "target") -> tuple[str, ...]:
    """As `parse_targets`, of gRPC alone."""
    found = parse_targets(targets, field)
    if is_url(found[0]):
        raise InvalidRequest(field, ADDRESS, shown(without_login(found[0])))
    return found


def moves_on(error: WavserveError) -> bool:
    """Whether another gateway may serve what this one did not: nobody of ours answered, it stops or has neither models
    nor store, or it serves another policy."""
    if isinstance(error, ContractMismatch):
        return True
    if isinstance(error, _OF_ROBOT):
        return False
    return error.error_id is None or isinstance(error, _OF_GATEWAY)


def is_unanswered(error: WavserveError) -> bool:
    """Whether a gateway may have done what it was asked all the same: no answer of it says otherwise.

    One that could not be connected to was not asked.
    """
    is_silence = isinstance(error, NotReady | DeadlineExceeded | Cancelled) and not isinstance(error, Unreachable)
    return error.error_id is None and is_silence


class Route:
    """The gateways of one client, and the one it is with. Any thread may use it."""

    def __init__(self, key: str, targets: Sequence[str], clock: Clock = time.monotonic) -> None:
        """`key`: the robot's name. Everybody who knows it and the addresses knows the preferred one."""
        self._ranked = ranked(key, targets)
        self._clock = clock
        self._lock = threading.Lock()
        self._failed_at: dict[str, float] = {}
        self._digest: str | None = None
        self._compared: set[str] = set()  # have the first one's policy
        self.current = self._ranked[0]
        """the gateway to ask next"""

    def __len__(self) -> int:
        return len(self._ranked)

    def must_compare(self, target: str) -> bool:
        """Whether the policy of a gateway must be compared before its first plan, or its first one after a failure."""
        return len(self) > 1 and target not in self._compared

    def compare(self, target: str, digest: str) -> None:
        """Raises ContractMismatch unless all gateways have the same policy, of this digest. One alone may change it."""
        with self._lock:
            self._digest = self._digest or digest
            if len(self) > 1 and digest != self._digest:
                raise ContractMismatch(POLICY_DIGEST, f"{self._digest}, of the first gateway", digest)
            self._compared.add(target)

    def next(self, tried: Collection[str]) -> str | None:
        """The gateway to ask, when those of `tried` did not serve; None: all are tried."""
        with self._lock:
            return self.current if self.current not in tried else self._best(tried)

    def failed(self, target: str) -> None:
        """Another gateway is asked from now on, if there is another one."""
        with self._lock:
            self._failed_at[target] = self._clock()
            self._compared.discard(target)
            if target == self.current:
                self.current = self._best((target,)) or target

    def _best(self, tried: Collection[str]) -> str | None:
        return min((each for each in self._ranked if each not in tried), key=self._order, default=None)

    def _order(self, target: str) -> tuple[float, int]:
        """Those that have not failed lately, by rank; then the others, the oldest failure first."""
        failed_at = self._failed_at.get(target, -math.inf)
        is_recent = self._clock() - failed_at < LATELY_S
        return failed_at if is_recent else -math.inf, self._ranked.index(target)


class Round:
    """One search for a gateway that serves: each address is tried once. Of one call, or of one stream."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self._errors: dict[str, WavserveError] = {}
        self._reasons: dict[str, str] = {}
        self._unanswered: list[WavserveError] = []

    def next(self) -> str | None:
        """The gateway to ask; None: none is left."""
        return self._route.next(self._errors)

    @property
    def num_left(self) -> int:
        """Gateways that were not asked yet."""
        return len(self._route) - len(self._errors)

    def failed(self, target: str, error: WavserveError, was_asked: bool = True) -> None:
        """A gateway did not serve. `was_asked`: whether the call was sent to it, and not only a question before it."""
        self._errors[target] = error
        if was_asked and is_unanswered(error):
            self._unanswered.append(error)
        self._reasons[target] = error.message.removeprefix(f"{target}: ")
        self._route.failed(target)

    def refused(self, target: str, error: WavserveError) -> WavserveError:
        """The error of a gateway that works and refused a plan.

        It is OutcomeUnknown when another one was asked before and did not answer: that one may have committed it.
        """
        is_refusal = isinstance(error, Overloaded | DeadlineExceeded)
        if not is_refusal or not self._unanswered:
            return error
        return OutcomeUnknown(_told({**self._reasons, target: error.message}))

    def verdict(self) -> WavserveError:
        """Why no gateway has served so far: the error that says most. Its text names each address that was tried.

        That a gateway did not answer says more than that the last one had no models: the plan may be committed.
        """
        errors = list(self._errors.values())
        if (replaced := self._replaced()) is not None:
            return replaced
        by_weight = [each for kind in _VERDICTS for each in errors if isinstance(each, kind)]
        verdict = [*by_weight, *reversed(self._unanswered), errors[-1]][0]
        if len(self._route) > 1:
            verdict.message = _told(self._reasons)
            verdict.args = (verdict.message,)
        return verdict

    def _replaced(self) -> ContractMismatch | None:
        """The error when all gateways have one other policy: no attempt of this client mends that."""
        mismatches = [each for each in self._errors.values() if isinstance(each, ContractMismatch)]
        of_digest = [each for each in mismatches if each.field == POLICY_DIGEST and each.error_id is None]
        num, found = len(self._route), {each.actual for each in of_digest}
        if num == 1 or len(of_digest) < num or len(found) > 1:
            return None
        told = f"{found.pop()} at all {num} gateways: the policy was replaced, and needs a new client"
        return ContractMismatch(POLICY_DIGEST, of_digest[0].expected, told)


def _told(reasons: Mapping[str, str]) -> str:
    return "; ".join(f"{target}: {reason}" for target, reason in reasons.items())


def _parse(text: object, field: str) -> str:
    if not isinstance(text, str):
        raise InvalidRequest(field, "an address as text", shown(text))
    target = text.strip()
    if not is_url(target):
        check_target(target, field)
        return target
    try:
        return parse_url(target)
    except ValueError:
        raise InvalidRequest(field, URL, shown(without_login(target))) from None
