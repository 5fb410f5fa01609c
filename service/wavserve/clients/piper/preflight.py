"""The checks before the first motion: arms, cameras, the policy's contract. Any red line means that nothing moves.

It judges what it is given, and asks the arms for their limits. It knows no terminal.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from wavserve.clients.piper import rtc, vectors, watch
from wavserve.clients.piper.arm import Arm
from wavserve.clients.piper.cameras import Camera
from wavserve.clients.piper.config import PiperConfig
from wavserve.clients.piper.feedback import Feedback
from wavserve.clients.piper.limits import AXIS_RANGES, JOINT_RANGES, NUM_JOINTS, STATUS_EMERGENCY_STOP
from wavserve.clients.piper.vectors import Axes
from wavserve.core.messages import PolicyInfo

RATE_OVER_S = 1.0
"""how long the feedback rate is measured"""
LIMIT_TOLERANCE = math.radians(1.0)
OLDEST_FIRMWARE = (1, 5, 2)
"""of the SDK's second protocol, which this client speaks"""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table."""

    subject: str
    name: str
    expected: str
    actual: str
    is_ok: bool


@dataclass(frozen=True, slots=True)
class Demands:
    """What this run may accept of a policy. A real bus accepts neither."""

    is_virtual: bool
    allow_untrained: bool = False


def hardware_checks(
    config: PiperConfig,
    arms: Sequence[Arm],
    cameras: Sequence[Camera],
    sleep: Callable[[float], None] = time.sleep,
) -> list[Check]:
    """The checks of arms and cameras. They take a little more than RATE_OVER_S."""
    began, before = time.monotonic(), [arm.latest().num_poses for arm in arms]
    sleep(RATE_OVER_S)
    checks: list[Check] = []
    for arm, count in zip(arms, before, strict=True):
        rate_hz = (arm.latest().num_poses - count) / (time.monotonic() - began)
        checks += arm_checks(config, arm.name, arm.latest(), rate_hz)
        checks += answer_checks(arm.name, arm.firmware(), arm.joint_limits())
    for camera in cameras:
        problem = camera.problem()
        subject = f"camera {camera.config.name}"
        checks.append(Check(subject, "pictures", "new ones", problem or "new ones", problem is None))
    return checks


def arm_checks(config: PiperConfig, name: str, feedback: Feedback, rate_hz: float) -> list[Check]:
    """What an arm reports by itself."""
    subject, least = f"arm {name}", config.watch.min_feedback_hz
    now = time.monotonic()
    faults = watch.faults(feedback, 0, now, config.watch.max_feedback_age_ms / 1e3)
    if feedback.status is not None and feedback.status.arm_status == STATUS_EMERGENCY_STOP:
        faults.append("it is in emergency stop: hold the arm and recover")
    checks = [
        Check(subject, "feedback", f"at least {least:g} Hz", f"{rate_hz:.0f} Hz", rate_hz >= least),
        Check(subject, "status", "no fault", "; ".join(faults) or "no fault", not faults),
    ]
    axes = feedback.axes
    joints = () if axes is None else axes[:6]
    degrees = " ".join(f"{math.degrees(joint):.1f}" for joint in joints)
    moved = bool(joints) and any(joints)
    checks.append(Check(subject, "pose", "not all zero", f"{degrees} deg" if joints else "none", moved))
    steps = vectors.split(vectors.max_steps(config))[0]  # the first target is in the range: at most one step away
    outside = [
        f"axis {i + 1}: {value:.3f}"
        for i, (value, (low, high), step) in enumerate(zip(axes or (), AXIS_RANGES, steps, strict=False))
        if not low - step <= value <= high + step
    ]
    inside = axes is not None and not outside
    checks.append(Check(subject, "range", "every axis inside", "; ".join(outside) or "inside", inside))
    return checks


def answer_checks(name: str, firmware: str | None, limits: Sequence[tuple[float, float] | None]) -> list[Check]:
    """What an arm answers when it is asked. Limits of its own that are narrower than ours would stop it on the way."""
    subject = f"arm {name}"
    told = re.search(r"S-V(\d+)\.(\d+)-(\d+)", firmware or "")
    is_new = told is not None and tuple(map(int, told.groups())) >= OLDEST_FIRMWARE
    oldest = "S-V{}.{}-{} or newer".format(*OLDEST_FIRMWARE)
    checks = [Check(subject, "firmware", oldest, firmware or "no answer", is_new)]
    wrong = []
    for i, (limit, (low, high)) in enumerate(zip(limits, JOINT_RANGES, strict=True)):
        if limit is None:
            wrong.append(f"joint {i + 1}: no answer")
        elif limit[0] > low + LIMIT_TOLERANCE or limit[1] < high - LIMIT_TOLERANCE:
            wrong.append(f"joint {i + 1}: {math.degrees(limit[0]):.0f} to {math.degrees(limit[1]):.0f} deg")
    checks.append(Check(subject, "limits", "as in our table", "; ".join(wrong) or "as in our table", not wrong))
    return checks


def contract_checks(
    config: PiperConfig, policy: PolicyInfo, demands: Demands, measured: Axes | None = None
) -> list[Check]:
    """The policy against this robot. The service compares the same again when the stream begins.

    `measured` `[A]`: the pose of the arms in rad and m; None: not known.
    """
    names = [camera.name for camera in config.cameras]
    same = [
        _same("name", [config.policy.name], [policy.name]),
        _same("embodiment", [config.embodiment], [policy.embodiment or "none"]),
        _same("control rate", [f"{config.control_hz:g} Hz"], [f"{policy.control_hz:g} Hz"]),
        _same("state names", config.axis_names, policy.state.names),
        _same("state units", config.axis_units, policy.state.units, config.axis_names),
        _same("action names", config.axis_names, policy.action.names),
        _same("action units", config.axis_units, policy.action.units, config.axis_names),
        _same("action at rest", ["positions"], ["offsets" if "zero" in policy.action.hold else "positions"]),
        _same("cameras", sorted(names), sorted(camera.name for camera in policy.cameras)),
    ]
    checks = [*same, *_trust_checks(policy, demands), _limits_check(config, policy), *_rtc_checks(config, policy)]
    if len(policy.action.limits.position) == len(config.axis_names):
        checks.append(_scale_check(config, policy, measured))
    return checks


def _trust_checks(policy: PolicyInfo, demands: Demands) -> list[Check]:
    """A real arm runs only a policy that was trained, and whose golden plan the service has checked."""
    may_be_untrained = demands.is_virtual and demands.allow_untrained
    expected = "any" if may_be_untrained else "trained, or --allow-untrained" if demands.is_virtual else "trained"
    actual = "untrained: random weights" if policy.untrained else "trained"
    golden = policy.golden_digest[:16] or "none"
    return [
        Check("policy", "training", expected, actual, may_be_untrained or not policy.untrained),
        Check(
            "policy",
            "golden plan",
            "any" if demands.is_virtual else "checked by the service",
            golden,
            demands.is_virtual or bool(policy.golden_digest),
        ),
    ]


def _limits_check(config: PiperConfig, policy: PolicyInfo) -> Check:
    """What the policy declares and what the arm reaches must overlap on every axis."""
    declared = policy.action.limits
    fits = not declared.position or len(declared.position) == len(config.axis_names)
    empty: list[str] = []
    if fits:
        low, high = vectors.ranges(config, declared)
        empty = [name for name, a, b in zip(config.axis_names, low, high, strict=True) if not a < b]
    if not fits:
        actual = f"{len(declared.position)} entries for {len(config.axis_names)} axes"
    elif empty:
        actual = f"no range for {', '.join(empty)}"
    else:
        actual = "a range for every axis" if declared.position else "none declared: the arm's own ranges"
    return Check("policy", "limits", "a range for every axis, or none declared", actual, fits and not empty)


def _scale_check(config: PiperConfig, policy: PolicyInfo, measured: Axes | None) -> Check:
    """Numbers whose unit is declared wrongly, such as degrees as rad, do not fit the arm: neither limits nor pose."""
    units = vectors.Units(config)
    reach = units.to_policy(vectors.reach(config)) * np.array(([5.0] * NUM_JOINTS + [50.0]) * len(config.arms))
    pose = None if measured is None else units.to_policy(measured)
    wrong = []
    for d, limit in enumerate(policy.action.limits.position):
        if limit is None:
            continue
        low, high = limit
        axis, unit = config.axis_names[d], policy.action.units[d]
        if max(abs(low), abs(high)) > reach[d]:
            wrong.append(f"{axis} may go to {low:g} .. {high:g} {unit}, far beyond its reach")
        elif pose is not None and not 2 * low - high <= pose[d] <= 2 * high - low:
            wrong.append(f"{axis} is at {pose[d]:.3g} {unit}, far outside of {low:g} .. {high:g}")
    return Check("policy", "scale", "limits that fit the arm and its pose", "; ".join(wrong) or "they fit", not wrong)


def _rtc_checks(config: PiperConfig, policy: PolicyInfo) -> list[Check]:
    """The service refuses each observation that asks for a mode or a horizon that the policy does not have."""
    applied = rtc.settings(config, policy)
    modes = " or ".join(policy.rtc_modes)
    checks = [Check("policy", "real-time chunking", modes, applied.mode, applied.mode in policy.rtc_modes)]
    if applied.mode != "off":
        steps, most = applied.execution_horizon, policy.horizon
        checks.append(Check("policy", "execution horizon", f"1 to {most} steps", f"{steps} steps", 1 <= steps <= most))
    return checks


def _same(name: str, expected: Sequence[str], actual: Sequence[str], labels: Sequence[str] = ()) -> Check:
    """Shows one text, or the first difference of two lists. `labels`: what the entries belong to."""
    wanted, got = list(expected), list(actual)
    if wanted == got:
        shown = wanted[0] if len(wanted) == 1 else f"{len(wanted)} as configured"
        return Check("policy", name, shown, shown, True)
    if len(wanted) != len(got):
        return Check("policy", name, f"{len(wanted)} entries", f"{len(got)} entries", False)
    i = next(i for i, (a, b) in enumerate(zip(wanted, got, strict=True)) if a != b)
    label = labels[i] if labels else f"[{i}]"
    at = f"{label} " if len(wanted) > 1 else ""
    return Check("policy", name, f"{at}{wanted[i]}", f"{at}{got[i]}", False)
