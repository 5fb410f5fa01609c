"""Whether a request may become a plan: places, bytes and device time, kept from its headers on; counts refusals.

Knows the devices' forecasts, and nothing of sessions or of what a plan computes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

from wavserve.core.errors import DeadlineExceeded, Overloaded
from wavserve.planning.device import Device
from wavserve.policy.parts import PolicyParts
from wavserve.policy.placement import first_to_admit
from wavserve.scheduling.ledger import Ticket
from wavserve.scheduling.permits import Permit, Permits


class Reservations:
    """The places of a policy's plans."""

    def __init__(self, parts: PolicyParts, num_running: Callable[[], int]) -> None:
        """`num_running`: plans that run now."""
        self._parts = parts
        self._permits = Permits(parts.max_plans, num_running, self._soonest_s, parts.max_bytes)
        self._frame_bytes = sum(camera.height * camera.width * 3 for camera in parts.spec.cameras)
        self.take_over = self._permits.take_over
        """gives a plan a place of its own, and releases its permit; raises Overloaded where there is none"""

    @contextlib.contextmanager
    def reserve(self, deadline: float | None, num_bytes: int = 0) -> Iterator[Permit]:
        """Keeps a place and the time of the smallest plan until the block ends or a plan takes them over.

        `num_bytes`: the size of the body as far as it is known. Raises DeadlineExceeded or Overloaded.
        """
        with self.counting_errors():
            self._permits.check_room()
            self._permits.check_bytes(num_bytes + self._frame_bytes)
            give_back = self._hold_time(deadline)
        with self._permits.keep(give_back, on_refused=self._parts.on_refused) as permit:
            permit.take_bytes(self._frame_bytes)
            yield permit

    @contextlib.contextmanager
    def counting_errors(self, stage_s: Mapping[str, float] | None = None) -> Iterator[None]:
        """Counts a request without an answer: missed, when its plan was admitted and late; else refused.

        `stage_s`: seconds of the stages of its plan, so far.
        """
        try:
            yield
        except (DeadlineExceeded, Overloaded) as error:
            if isinstance(error, Overloaded):
                self._parts.on_refused(error.reason)
            elif error.missed is None:
                self._parts.on_refused("deadline")
            else:
                self._parts.on_missed(stage_s or {})
            raise

    def _soonest_s(self) -> float:
        """Seconds until the first running plan is predicted to end; 0 when none runs on a device."""
        busy = (device.planner.admission for device in self._parts.placement.devices if device.plans)
        return min((admission.soonest_s() for admission in busy), default=0.0)

    def _hold_time(self, deadline: float | None) -> Callable[[], None]:
        """Keeps device time for the smallest plan; returns what gives it back. No deadline: no time is at stake."""
        choices = self._parts.placement.choices()
        if not choices or deadline is None:
            return lambda: None
        # K is set to 0 here because merge_options, which does so for mode off, is not called
        smallest = replace(self._parts.spec.planner, mode="off", num_iterations=0, estimate_value=False)

        def admit(device: Device) -> Ticket:
            return device.planner.admission.admit(device.planner.demand("", smallest, 0), deadline)

        device, ticket = first_to_admit(choices, admit)
        return partial(device.planner.admission.leave, ticket)
