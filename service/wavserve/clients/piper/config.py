"""The robot's configuration file (TOML): arms, units, cameras, policy, limits. Each default is written once, here.

Units are stated and never guessed. `examples/piper.toml` is the annotated form. Knows neither the SDK nor the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from wavserve.clients.gateways import parse_grpc_targets
from wavserve.clients.piper.limits import MAX_JOINT_SPEED, NUM_AXES, NUM_JOINTS
from wavserve.clients.tables import read, toml
from wavserve.core.errors import InvalidRequest, SettingsError
from wavserve.core.rtc_options import MAX_GUIDANCE_WEIGHT
from wavserve.core.spec import Orientation, PrefixSchedule, RtcMode

MAX_FEEDBACK_AGE_MS = 200.0
"""The longest silence of an arm that a file may allow."""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where the service is, and when the link counts as lost."""

    address: str
    """of gRPC, `host:port`; several gateways with commas"""
    link_timeout_s: float = 0.5
    """without a byte from the server for this long, the link is lost and the robot holds"""
    deadline_ms: int = 2000
    """of each plan"""


@dataclass(frozen=True, slots=True)
class PolicyConfig:
    """Which policy the robot expects, and what it asks of it."""

    name: str
    planner: Mapping[str, Any] = field(default_factory=dict)
    """options of the planner that override the policy's, such as `num_iterations = 1`"""


@dataclass(frozen=True, slots=True)
class UnitsConfig:
    """Units of the policy's state and actions. There is no default: a wrong guess moves the arm to a wrong place."""

    joint: Literal["rad", "deg"]
    gripper: Literal["m", "mm"]


@dataclass(frozen=True, slots=True)
class ArmConfig:
    """One arm on a CAN channel of its own. The order of the arms is their order in the policy's vectors."""

    name: str
    channel: str
    axes: tuple[str, ...] = ()
    """the policy's names of the six joints and the gripper; empty: `NAME_joint_1` to `NAME_joint_6`, `NAME_gripper`"""

    @property
    def axis_names(self) -> tuple[str, ...]:
        return self.axes or (*(f"{self.name}_joint_{i + 1}" for i in range(NUM_JOINTS)), f"{self.name}_gripper")


@dataclass(frozen=True, slots=True)
class CameraConfig:
    """One camera. `source`: a V4L2 device or its number, a video file (in a loop), or a moving synthetic picture."""

    name: str
    source: Literal["device", "file", "synthetic"]
    path: str = ""
    """the device (`/dev/video0`) or the file"""
    width: int = 640
    height: int = 480
    hz: float = 30.0
    orientation: Orientation = "as_captured"
    """`rotated_180`: the camera is mounted upside down against the pictures that the policy was trained with"""


@dataclass(frozen=True, slots=True)
class MotionConfig:
    """What the client lets through, whatever the policy asks."""

    max_joint_speed: float = 1.5
    """rad/s; the largest step of a command is this divided by `control_hz`"""
    max_gripper_speed: float = 0.2
    """m/s"""
    approach_share: float = 0.2
    """of those speeds, while the robot approaches the first command"""
    stop_within_s: float = 0.3
    """from full speed to rest, when the robot holds"""
    joint_margin: float = 0.01
    """rad; commands stay this far from the ends of the joints"""
    max_clamped_steps: int = 30
    """after this many clamped steps in a row the robot holds until the operator arms it again"""


@dataclass(frozen=True, slots=True)
class ChunksConfig:
    """How chunks become commands; see `clients/player`."""

    blend: Literal["linear", "average", "replace"] = "linear"
    blend_steps: int = 8
    max_open_loop_steps: int = 15
    """steps of a chunk that still run after the next one is overdue"""


@dataclass(frozen=True, slots=True)
class RtcConfig:
    """Real-time chunking: a new chunk continues the one that the robot executes. None: the policy's default."""

    mode: RtcMode | None = None
    execution_horizon: int | None = None
    """in steps"""
    prefix_attention_schedule: PrefixSchedule | None = None
    max_guidance_weight: float | None = None


@dataclass(frozen=True, slots=True)
class WatchConfig:
    """When something counts as broken."""

    max_feedback_age_ms: float = 100.0
    """of an arm: older is a fault"""
    min_feedback_hz: float = 150.0
    """of an arm, for the preflight; the arm sends 200"""
    max_frame_age_ms: float = 300.0
    """of a camera: without a newer picture it counts as frozen"""
    max_same_frame_s: float = 1.0
    """a camera that repeats one picture bit for bit for this long counts as frozen"""


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The JSONL log of a run."""

    path: str = "piper.jsonl"
    max_mb: float = 64.0
    """of a file; then a new one is begun"""
    num_files: int = 4


@dataclass(frozen=True, slots=True)
class PiperConfig:
    """The whole file."""

    robot_id: str
    embodiment: str
    instruction: str
    server: ServerConfig
    policy: PolicyConfig
    units: UnitsConfig
    arms: tuple[ArmConfig, ...]
    cameras: tuple[CameraConfig, ...]
    control_hz: float = 30.0
    motion: MotionConfig = field(default_factory=MotionConfig)
    chunks: ChunksConfig = field(default_factory=ChunksConfig)
    rtc: RtcConfig = field(default_factory=RtcConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)
    log: LogConfig = field(default_factory=LogConfig)

    @property
    def dt_s(self) -> float:
        return 1.0 / self.control_hz

    @property
    def axis_names(self) -> tuple[str, ...]:
        """`[A]`, in the order of the policy's state and actions."""
        return tuple(name for arm in self.arms for name in arm.axis_names)

    @property
    def axis_units(self) -> tuple[str, ...]:
        return (*(self.units.joint,) * NUM_JOINTS, self.units.gripper) * len(self.arms)


def virtual_robot() -> PiperConfig:
    """Two simulated arms and synthetic cameras for the preset `tiny-piper`: a robot for which no file is written."""
    return PiperConfig(
        robot_id="piper-virtual",
        embodiment="piper_dual",
        instruction="put the cup on the plate",
        server=ServerConfig("127.0.0.1:8001"),
        policy=PolicyConfig("tiny-piper"),
        units=UnitsConfig(joint="rad", gripper="m"),
        arms=(ArmConfig("left", "can_left"), ArmConfig("right", "can_right")),
        cameras=tuple(CameraConfig(name, "synthetic") for name in ("top", "left_wrist", "right_wrist")),
        watch=WatchConfig(max_feedback_age_ms=MAX_FEEDBACK_AGE_MS),  # the simulated arms share this process's processor
    )


def load(file: Path) -> PiperConfig:
    """Reads and checks a file. Raises SettingsError naming the key, expected and actual."""
    config = read(PiperConfig, toml(file))
    check(config)
    return config


def check(config: PiperConfig) -> None:
    """Raises SettingsError for values that cannot be meant."""
    try:
        parse_grpc_targets(config.server.address, "server.address")
    except InvalidRequest as error:
        raise SettingsError(error.message) from None
    if not 1 <= len(config.arms) <= 2:
        raise SettingsError(f"arms: expected 1 or 2, got {len(config.arms)}")
    _distinct("arms.name", [arm.name for arm in config.arms])
    _distinct("arms.channel", [arm.channel for arm in config.arms])
    _distinct("arms.axes", list(config.axis_names))
    _distinct("cameras.name", [camera.name for camera in config.cameras])
    for arm in config.arms:
        if len(arm.axis_names) != NUM_AXES:
            raise SettingsError(f"arms.axes of {arm.name}: expected {NUM_AXES} names, got {len(arm.axis_names)}")
    for camera in config.cameras:
        if (camera.source == "synthetic") == bool(camera.path):
            raise SettingsError(f"cameras.path of {camera.name}: a device or a file has one, a synthetic camera none")
    for key, allowed, text in _BOUNDS:
        value = _at(config, key)
        if not allowed(value):
            raise SettingsError(f"{key}: expected {text}, got {value}")
    if not config.robot_id or not config.embodiment:
        raise SettingsError("robot_id, embodiment: expected a text that is not empty")


_BOUNDS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("control_hz", lambda hz: 1 <= hz <= 200, "1 to 200"),
    ("server.link_timeout_s", lambda s: 0.1 <= s <= 2, "0.1 to 2 s"),
    ("server.deadline_ms", lambda ms: ms >= 1, "at least 1"),
    ("motion.max_joint_speed", lambda v: 0 < v <= MAX_JOINT_SPEED, f"above 0, at most {MAX_JOINT_SPEED} rad/s"),
    ("motion.max_gripper_speed", lambda v: 0 < v <= 1, "above 0, at most 1 m/s"),
    ("motion.approach_share", lambda share: 0 < share <= 1, "above 0, at most 1"),
    ("motion.stop_within_s", lambda s: 0.05 <= s <= 0.5, "0.05 to 0.5 s"),
    ("motion.joint_margin", lambda rad: 0 <= rad <= 0.2, "0 to 0.2 rad"),
    ("motion.max_clamped_steps", lambda n: n >= 1, "at least 1"),
    ("chunks.blend_steps", lambda n: n >= 0, "at least 0"),
    ("chunks.max_open_loop_steps", lambda n: n >= 1, "at least 1"),
    ("rtc.execution_horizon", lambda n: n is None or n >= 1, "at least 1"),
    (
        "rtc.max_guidance_weight",
        lambda weight: weight is None or 0 <= weight <= MAX_GUIDANCE_WEIGHT,
        f"0 to {MAX_GUIDANCE_WEIGHT:g}",
    ),
    ("watch.max_feedback_age_ms", lambda ms: 20 <= ms <= MAX_FEEDBACK_AGE_MS, f"20 to {MAX_FEEDBACK_AGE_MS:.0f} ms"),
    ("watch.min_feedback_hz", lambda hz: hz > 0, "above 0"),
    ("watch.max_frame_age_ms", lambda ms: ms > 0, "above 0"),
    ("watch.max_same_frame_s", lambda s: s > 0, "above 0"),
    ("log.max_mb", lambda mb: mb > 0, "above 0"),
    ("log.num_files", lambda n: n >= 1, "at least 1"),
)


def _at(config: PiperConfig, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _distinct(key: str, names: list[str]) -> None:
    twice = {name for name in names if names.count(name) > 1}
    if twice or "" in names:
        raise SettingsError(f"{key}: expected distinct names that are not empty, got {names}")
