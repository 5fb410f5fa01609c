"""What a user of LeRobot configures: `--policy.type=wavserve --policy.address=...`, or a folder with `config.json`.

Knows no service and no tensors. The fields have LeRobot's names where LeRobot has one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast, get_args

from lerobot.configs import PreTrainedConfig
from lerobot.policies.rtc.configuration_rtc import RTCConfig

from lerobot_policy_wavserve.connection import Where
from lerobot_policy_wavserve.contract import Assumed
from lerobot_policy_wavserve.sessions import Asking, Transport
from wavserve.clients.gateways import parse_targets
from wavserve.core.address import is_url
from wavserve.core.errors import InvalidRequest, Unsupported, shown
from wavserve.core.jpeg import JPEG_QUALITY
from wavserve.core.rtc import RtcRequest
from wavserve.core.spec import RTC_MODES, Orientation, RtcMode


@PreTrainedConfig.register_subclass("wavserve")
@dataclass
class WavserveConfig(PreTrainedConfig):
    """A policy that is served by wavserve. It has no weights here."""

    address: str = "127.0.0.1:8001"
    """`host:port`; for transport `http` a URL: `http://host:port`. Several gateways with commas"""
    transport: str = "grpc"
    """`grpc` and `http`: a request for each plan; `stream`: a robot's stream for each environment"""
    deadline_ms: int | None = None
    """of each plan; None: it may take any time"""
    n_action_steps: int = 8
    """actions of a chunk that `select_action` executes before it asks for the next one"""
    instruction_key: str = "task"
    """key of the batch with the instructions"""
    default_instruction: str = ""
    """for environments that have none"""
    camera_map: dict[str, str] = field(default_factory=dict)
    """key of the batch -> camera of the policy; empty: `observation.images.NAME` is camera `NAME`"""
    orientation: str | None = None
    """`as_captured` or `rotated_180`: of the pictures that LeRobot gives; None: as the policy wants them"""
    jpeg_quality: int | None = JPEG_QUALITY
    """1 to 100; None: raw pixels, which are exact"""
    planner: dict[str, Any] = field(default_factory=dict)
    """planner options by name, instead of the policy's defaults"""
    seed: int | None = None
    """of the plans of the first environment's first episode; every other episode has the next one. None: drawn"""
    rtc_config: RTCConfig | None = None
    """real-time chunking: a plan continues the actions that are left of the previous chunk. `lerobot-rollout` sets it
    from `--inference.rtc`. None, and `enabled=false`: a plan continues nothing"""
    rtc_mode: str = "rtc_guided"
    """`rtc_guided` or `rtc_trained`: how it continues them"""
    allow_untrained: bool = False
    """whether the service may have random weights: for tests, never for a robot"""
    policy_digest: str = ""
    """the only policy that may act; empty: any that fits"""
    state_names: list[str] | None = None
    """names of `observation.state`, compared with the policy's; None: only their number is"""
    action_names: list[str] | None = None
    """names of `action`, compared with the policy's; None: only their number is"""
    control_hz: float | None = None
    """rate of the actions, compared with the policy's; None: it is not"""
    robot_id: str = "lerobot"
    """for transport `stream`: environment `i` is the robot `robot_id-i`"""
    traces: str | None = None
    """URL of an OTLP/HTTP collector that gets the spans of plans, such as `http://127.0.0.1:4318` (extra otel)"""

    def __post_init__(self) -> None:
        """Raises InvalidRequest naming the field."""
        super().__post_init__()
        _check_choice("transport", self.transport, get_args(Transport))
        _check_choice("orientation", self.orientation, (None, *get_args(Orientation)))
        _check_choice("rtc_mode", self.rtc_mode, RTC_MODES[1:])
        if is_url(parse_targets(self.address, "address")[0]) != (self.transport == "http"):
            expected = "http://HOST:PORT" if self.transport == "http" else "HOST:PORT"
            raise InvalidRequest("address", f"{expected} for transport {self.transport}", shown(self.address))
        if self.n_action_steps < 1:
            raise InvalidRequest("n_action_steps", "at least 1", self.n_action_steps)

    @property
    def where(self) -> Where:
        """Which service, and as whom."""
        transport = cast(Transport, self.transport)
        return Where(
            address=self.address,
            transport=transport,
            robot_id=self.robot_id,
            seed=self.seed,
            traces=self.traces,
        )

    @property
    def asking(self) -> Asking:
        """How sessions ask for plans."""
        return Asking(
            deadline_ms=self.deadline_ms,
            planner=self.planner,
            jpeg_quality=self.jpeg_quality,
            orientation=self._orientation,
            rtc=self.rtc,
        )

    @property
    def rtc(self) -> RtcRequest | None:
        """How plans continue what is left; None: they continue nothing."""
        chosen = self.rtc_config
        if chosen is None or not chosen.enabled:
            return None
        return RtcRequest(
            mode=cast(RtcMode, self.rtc_mode),
            prefix_attention_schedule=chosen.prefix_attention_schedule.value,
            max_guidance_weight=chosen.max_guidance_weight,
            execution_horizon=chosen.execution_horizon,
        )

    def assumed(self, image_keys: list[str], state_dim: int) -> Assumed:
        """What a batch with these keys assumes of the policy."""
        action = self.action_feature
        return Assumed(
            image_keys=image_keys,
            state_dim=state_dim,
            action_dim=None if action is None else action.shape[0],
            n_action_steps=self.n_action_steps,
            camera_map=self.camera_map,
            orientation=self._orientation,
            state_names=None if self.state_names is None else tuple(self.state_names),
            action_names=None if self.action_names is None else tuple(self.action_names),
            control_hz=self.control_hz,
            policy_digest=self.policy_digest,
            allow_untrained=self.allow_untrained,
        )

    @property
    def _orientation(self) -> Orientation | None:
        return cast(Orientation | None, self.orientation)

    def validate_features(self) -> None:
        """Does nothing: the first batch is compared with the served policy."""

    def get_optimizer_preset(self) -> Any:
        """Raises Unsupported."""
        raise Unsupported("a served policy cannot be trained here: it has no weights")

    def get_scheduler_preset(self) -> None:
        """There is nothing to schedule."""

    @property
    def observation_delta_indices(self) -> None:
        """The service remembers earlier frames itself."""

    @property
    def action_delta_indices(self) -> None:
        """No data set is read."""

    @property
    def reward_delta_indices(self) -> None:
        """No data set is read."""


def _check_choice(name: str, value: str | None, choices: tuple[str | None, ...]) -> None:
    if value not in choices:
        raise InvalidRequest(name, f"one of {', '.join(str(each) for each in choices)}", shown(value))
