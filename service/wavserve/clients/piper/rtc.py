"""Real-time chunking of a Piper robot: what its file asks for, and how the policy's defaults complete it. Pure."""

from __future__ import annotations

from dataclasses import asdict, replace

from wavserve.clients.piper.config import PiperConfig
from wavserve.core.messages import PolicyInfo
from wavserve.core.rtc import RtcRequest
from wavserve.core.spec import RtcSpec


def request(config: PiperConfig) -> RtcRequest:
    """What each observation asks for. A field that the file leaves out has the policy's default."""
    return RtcRequest(**asdict(config.rtc))


def settings(config: PiperConfig, policy: PolicyInfo) -> RtcSpec:
    """What applies to this policy."""
    stated = {name: value for name, value in asdict(config.rtc).items() if value is not None}
    return replace(policy.rtc, **stated)


def max_delay(config: PiperConfig, policy: PolicyInfo) -> int:
    """The longest delay, in steps, that a request may state."""
    is_trained = settings(config, policy).mode == "rtc_trained"
    return policy.max_trained_delay if is_trained else policy.horizon
