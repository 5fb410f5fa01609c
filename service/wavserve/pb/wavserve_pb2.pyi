from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Image(_message.Message):
    __slots__ = ("camera", "encoding", "height", "width", "channels", "data", "captured_mono_ns")
    class Encoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ENCODING_UNSPECIFIED: _ClassVar[Image.Encoding]
        RAW_RGB8: _ClassVar[Image.Encoding]
        RAW_BGR8: _ClassVar[Image.Encoding]
        JPEG: _ClassVar[Image.Encoding]
        PNG: _ClassVar[Image.Encoding]
    ENCODING_UNSPECIFIED: Image.Encoding
    RAW_RGB8: Image.Encoding
    RAW_BGR8: Image.Encoding
    JPEG: Image.Encoding
    PNG: Image.Encoding
    CAMERA_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CAPTURED_MONO_NS_FIELD_NUMBER: _ClassVar[int]
    camera: str
    encoding: Image.Encoding
    height: int
    width: int
    channels: int
    data: bytes
    captured_mono_ns: int
    def __init__(self, camera: _Optional[str] = ..., encoding: _Optional[_Union[Image.Encoding, str]] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., channels: _Optional[int] = ..., data: _Optional[bytes] = ..., captured_mono_ns: _Optional[int] = ...) -> None: ...

class PlannerOptions(_message.Message):
    __slots__ = ("mode", "num_iterations", "num_video_samples", "num_value_samples", "num_flow_steps", "num_video_steps", "smoothing", "decay", "video_elite_fraction", "value_elite_fraction", "per_view_noise", "estimate_value", "warm_start", "early_stop")
    MODE_FIELD_NUMBER: _ClassVar[int]
    NUM_ITERATIONS_FIELD_NUMBER: _ClassVar[int]
    NUM_VIDEO_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    NUM_VALUE_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    NUM_FLOW_STEPS_FIELD_NUMBER: _ClassVar[int]
    NUM_VIDEO_STEPS_FIELD_NUMBER: _ClassVar[int]
    SMOOTHING_FIELD_NUMBER: _ClassVar[int]
    DECAY_FIELD_NUMBER: _ClassVar[int]
    VIDEO_ELITE_FRACTION_FIELD_NUMBER: _ClassVar[int]
    VALUE_ELITE_FRACTION_FIELD_NUMBER: _ClassVar[int]
    PER_VIEW_NOISE_FIELD_NUMBER: _ClassVar[int]
    ESTIMATE_VALUE_FIELD_NUMBER: _ClassVar[int]
    WARM_START_FIELD_NUMBER: _ClassVar[int]
    EARLY_STOP_FIELD_NUMBER: _ClassVar[int]
    mode: str
    num_iterations: int
    num_video_samples: int
    num_value_samples: int
    num_flow_steps: int
    num_video_steps: int
    smoothing: float
    decay: float
    video_elite_fraction: float
    value_elite_fraction: float
    per_view_noise: bool
    estimate_value: bool
    warm_start: bool
    early_stop: float
    def __init__(self, mode: _Optional[str] = ..., num_iterations: _Optional[int] = ..., num_video_samples: _Optional[int] = ..., num_value_samples: _Optional[int] = ..., num_flow_steps: _Optional[int] = ..., num_video_steps: _Optional[int] = ..., smoothing: _Optional[float] = ..., decay: _Optional[float] = ..., video_elite_fraction: _Optional[float] = ..., value_elite_fraction: _Optional[float] = ..., per_view_noise: _Optional[bool] = ..., estimate_value: _Optional[bool] = ..., warm_start: _Optional[bool] = ..., early_stop: _Optional[float] = ...) -> None: ...

class PlanRequest(_message.Message):
    __slots__ = ("session_id", "sequence", "control_step", "executed_steps", "images", "state", "instruction", "policy", "planner", "seed", "deadline_ms", "imagine_chunks")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CONTROL_STEP_FIELD_NUMBER: _ClassVar[int]
    EXECUTED_STEPS_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    PLANNER_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    IMAGINE_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    sequence: int
    control_step: int
    executed_steps: int
    images: _containers.RepeatedCompositeFieldContainer[Image]
    state: _containers.RepeatedScalarFieldContainer[float]
    instruction: str
    policy: str
    planner: PlannerOptions
    seed: int
    deadline_ms: int
    imagine_chunks: int
    def __init__(self, session_id: _Optional[str] = ..., sequence: _Optional[int] = ..., control_step: _Optional[int] = ..., executed_steps: _Optional[int] = ..., images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ..., state: _Optional[_Iterable[float]] = ..., instruction: _Optional[str] = ..., policy: _Optional[str] = ..., planner: _Optional[_Union[PlannerOptions, _Mapping]] = ..., seed: _Optional[int] = ..., deadline_ms: _Optional[int] = ..., imagine_chunks: _Optional[int] = ...) -> None: ...

class ResetRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class ResetResponse(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class Iteration(_message.Message):
    __slots__ = ("snr", "scores", "video_elites", "value_elites", "video_std", "value_std", "moved")
    SNR_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    VIDEO_ELITES_FIELD_NUMBER: _ClassVar[int]
    VALUE_ELITES_FIELD_NUMBER: _ClassVar[int]
    VIDEO_STD_FIELD_NUMBER: _ClassVar[int]
    VALUE_STD_FIELD_NUMBER: _ClassVar[int]
    MOVED_FIELD_NUMBER: _ClassVar[int]
    snr: _containers.RepeatedScalarFieldContainer[float]
    scores: _containers.RepeatedScalarFieldContainer[float]
    video_elites: _containers.RepeatedScalarFieldContainer[int]
    value_elites: _containers.RepeatedScalarFieldContainer[int]
    video_std: float
    value_std: float
    moved: float
    def __init__(self, snr: _Optional[_Iterable[float]] = ..., scores: _Optional[_Iterable[float]] = ..., video_elites: _Optional[_Iterable[int]] = ..., value_elites: _Optional[_Iterable[int]] = ..., video_std: _Optional[float] = ..., value_std: _Optional[float] = ..., moved: _Optional[float] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("policy", "policy_digest", "untrained", "seed", "sequence", "planner", "iterations_done", "deadline", "slack_ms", "iterations", "stage_ms", "value_estimate", "digests", "version", "stopped", "warm_start")
    class Deadline(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        DEADLINE_UNSPECIFIED: _ClassVar[Receipt.Deadline]
        NONE: _ClassVar[Receipt.Deadline]
        MET: _ClassVar[Receipt.Deadline]
        MET_DEGRADED: _ClassVar[Receipt.Deadline]
        MISSED: _ClassVar[Receipt.Deadline]
        LATE: _ClassVar[Receipt.Deadline]
    DEADLINE_UNSPECIFIED: Receipt.Deadline
    NONE: Receipt.Deadline
    MET: Receipt.Deadline
    MET_DEGRADED: Receipt.Deadline
    MISSED: Receipt.Deadline
    LATE: Receipt.Deadline
    class Stop(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STOP_UNSPECIFIED: _ClassVar[Receipt.Stop]
        DONE: _ClassVar[Receipt.Stop]
        OUT_OF_TIME: _ClassVar[Receipt.Stop]
        SETTLED: _ClassVar[Receipt.Stop]
    STOP_UNSPECIFIED: Receipt.Stop
    DONE: Receipt.Stop
    OUT_OF_TIME: Receipt.Stop
    SETTLED: Receipt.Stop
    class StageMsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class DigestsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    POLICY_FIELD_NUMBER: _ClassVar[int]
    POLICY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    UNTRAINED_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PLANNER_FIELD_NUMBER: _ClassVar[int]
    ITERATIONS_DONE_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    SLACK_MS_FIELD_NUMBER: _ClassVar[int]
    ITERATIONS_FIELD_NUMBER: _ClassVar[int]
    STAGE_MS_FIELD_NUMBER: _ClassVar[int]
    VALUE_ESTIMATE_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    WARM_START_FIELD_NUMBER: _ClassVar[int]
    policy: str
    policy_digest: str
    untrained: bool
    seed: int
    sequence: int
    planner: PlannerOptions
    iterations_done: int
    deadline: Receipt.Deadline
    slack_ms: float
    iterations: _containers.RepeatedCompositeFieldContainer[Iteration]
    stage_ms: _containers.ScalarMap[str, float]
    value_estimate: float
    digests: _containers.ScalarMap[str, str]
    version: str
    stopped: Receipt.Stop
    warm_start: bool
    def __init__(self, policy: _Optional[str] = ..., policy_digest: _Optional[str] = ..., untrained: _Optional[bool] = ..., seed: _Optional[int] = ..., sequence: _Optional[int] = ..., planner: _Optional[_Union[PlannerOptions, _Mapping]] = ..., iterations_done: _Optional[int] = ..., deadline: _Optional[_Union[Receipt.Deadline, str]] = ..., slack_ms: _Optional[float] = ..., iterations: _Optional[_Iterable[_Union[Iteration, _Mapping]]] = ..., stage_ms: _Optional[_Mapping[str, float]] = ..., value_estimate: _Optional[float] = ..., digests: _Optional[_Mapping[str, str]] = ..., version: _Optional[str] = ..., stopped: _Optional[_Union[Receipt.Stop, str]] = ..., warm_start: _Optional[bool] = ...) -> None: ...

class ImaginedFrames(_message.Message):
    __slots__ = ("camera", "frames")
    CAMERA_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    camera: str
    frames: _containers.RepeatedCompositeFieldContainer[Image]
    def __init__(self, camera: _Optional[str] = ..., frames: _Optional[_Iterable[_Union[Image, _Mapping]]] = ...) -> None: ...

class ActionChunk(_message.Message):
    __slots__ = ("session_id", "epoch", "sequence", "first_control_step", "horizon", "action_dim", "dt_ns", "actions", "valid_until_step", "frozen_prefix_steps", "receipt", "imagined", "chunk_id", "captured_mono_ns", "server_recv_ns", "server_send_ns", "warnings")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FIRST_CONTROL_STEP_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    ACTION_DIM_FIELD_NUMBER: _ClassVar[int]
    DT_NS_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    VALID_UNTIL_STEP_FIELD_NUMBER: _ClassVar[int]
    FROZEN_PREFIX_STEPS_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    IMAGINED_FIELD_NUMBER: _ClassVar[int]
    CHUNK_ID_FIELD_NUMBER: _ClassVar[int]
    CAPTURED_MONO_NS_FIELD_NUMBER: _ClassVar[int]
    SERVER_RECV_NS_FIELD_NUMBER: _ClassVar[int]
    SERVER_SEND_NS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    epoch: int
    sequence: int
    first_control_step: int
    horizon: int
    action_dim: int
    dt_ns: int
    actions: _containers.RepeatedScalarFieldContainer[float]
    valid_until_step: int
    frozen_prefix_steps: int
    receipt: Receipt
    imagined: _containers.RepeatedCompositeFieldContainer[ImaginedFrames]
    chunk_id: str
    captured_mono_ns: int
    server_recv_ns: int
    server_send_ns: int
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, session_id: _Optional[str] = ..., epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., first_control_step: _Optional[int] = ..., horizon: _Optional[int] = ..., action_dim: _Optional[int] = ..., dt_ns: _Optional[int] = ..., actions: _Optional[_Iterable[float]] = ..., valid_until_step: _Optional[int] = ..., frozen_prefix_steps: _Optional[int] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ..., imagined: _Optional[_Iterable[_Union[ImaginedFrames, _Mapping]]] = ..., chunk_id: _Optional[str] = ..., captured_mono_ns: _Optional[int] = ..., server_recv_ns: _Optional[int] = ..., server_send_ns: _Optional[int] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class GetPolicyRequest(_message.Message):
    __slots__ = ("policy",)
    POLICY_FIELD_NUMBER: _ClassVar[int]
    policy: str
    def __init__(self, policy: _Optional[str] = ...) -> None: ...

class Camera(_message.Message):
    __slots__ = ("name", "height", "width", "resize")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    name: str
    height: int
    width: int
    resize: str
    def __init__(self, name: _Optional[str] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., resize: _Optional[str] = ...) -> None: ...

class Vector(_message.Message):
    __slots__ = ("names", "units")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    units: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ..., units: _Optional[_Iterable[str]] = ...) -> None: ...

class PolicyInfo(_message.Message):
    __slots__ = ("name", "digest", "untrained", "cameras", "state", "action", "horizon", "control_hz", "history_frames", "max_instruction_bytes", "defaults", "bounds", "notes", "max_message_bytes")
    class BoundsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    UNTRAINED_FIELD_NUMBER: _ClassVar[int]
    CAMERAS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    CONTROL_HZ_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FRAMES_FIELD_NUMBER: _ClassVar[int]
    MAX_INSTRUCTION_BYTES_FIELD_NUMBER: _ClassVar[int]
    DEFAULTS_FIELD_NUMBER: _ClassVar[int]
    BOUNDS_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: str
    untrained: bool
    cameras: _containers.RepeatedCompositeFieldContainer[Camera]
    state: Vector
    action: Vector
    horizon: int
    control_hz: float
    history_frames: int
    max_instruction_bytes: int
    defaults: PlannerOptions
    bounds: _containers.ScalarMap[str, int]
    notes: str
    max_message_bytes: int
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[str] = ..., untrained: _Optional[bool] = ..., cameras: _Optional[_Iterable[_Union[Camera, _Mapping]]] = ..., state: _Optional[_Union[Vector, _Mapping]] = ..., action: _Optional[_Union[Vector, _Mapping]] = ..., horizon: _Optional[int] = ..., control_hz: _Optional[float] = ..., history_frames: _Optional[int] = ..., max_instruction_bytes: _Optional[int] = ..., defaults: _Optional[_Union[PlannerOptions, _Mapping]] = ..., bounds: _Optional[_Mapping[str, int]] = ..., notes: _Optional[str] = ..., max_message_bytes: _Optional[int] = ...) -> None: ...

class ClientMessage(_message.Message):
    __slots__ = ("hello", "observation", "execution_report", "ping", "reset", "bye")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_REPORT_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    BYE_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    observation: Observation
    execution_report: ExecutionReport
    ping: Ping
    reset: ResetStream
    bye: Bye
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., observation: _Optional[_Union[Observation, _Mapping]] = ..., execution_report: _Optional[_Union[ExecutionReport, _Mapping]] = ..., ping: _Optional[_Union[Ping, _Mapping]] = ..., reset: _Optional[_Union[ResetStream, _Mapping]] = ..., bye: _Optional[_Union[Bye, _Mapping]] = ...) -> None: ...

class ServerMessage(_message.Message):
    __slots__ = ("welcome", "chunk", "dropped", "error", "pong", "reset_ack", "go_away")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    RESET_ACK_FIELD_NUMBER: _ClassVar[int]
    GO_AWAY_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    chunk: ActionChunk
    dropped: ObservationDropped
    error: Error
    pong: Pong
    reset_ack: ResetAck
    go_away: GoAway
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., chunk: _Optional[_Union[ActionChunk, _Mapping]] = ..., dropped: _Optional[_Union[ObservationDropped, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ..., pong: _Optional[_Union[Pong, _Mapping]] = ..., reset_ack: _Optional[_Union[ResetAck, _Mapping]] = ..., go_away: _Optional[_Union[GoAway, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol_version", "client_name", "client_version", "robot_id", "embodiment", "joint_names", "state_dim", "action_dim", "joint_unit", "gripper_unit", "control_hz", "cameras", "instruction", "resume_session_id", "want_value", "want_receipt", "want_rtc")
    class JointUnit(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        JOINT_UNIT_UNSPECIFIED: _ClassVar[Hello.JointUnit]
        RADIAN: _ClassVar[Hello.JointUnit]
        DEGREE: _ClassVar[Hello.JointUnit]
    JOINT_UNIT_UNSPECIFIED: Hello.JointUnit
    RADIAN: Hello.JointUnit
    DEGREE: Hello.JointUnit
    class GripperUnit(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        GRIPPER_UNIT_UNSPECIFIED: _ClassVar[Hello.GripperUnit]
        METRE: _ClassVar[Hello.GripperUnit]
        MILLIMETRE: _ClassVar[Hello.GripperUnit]
        NORMALIZED: _ClassVar[Hello.GripperUnit]
    GRIPPER_UNIT_UNSPECIFIED: Hello.GripperUnit
    METRE: Hello.GripperUnit
    MILLIMETRE: Hello.GripperUnit
    NORMALIZED: Hello.GripperUnit
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NAME_FIELD_NUMBER: _ClassVar[int]
    CLIENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    ROBOT_ID_FIELD_NUMBER: _ClassVar[int]
    EMBODIMENT_FIELD_NUMBER: _ClassVar[int]
    JOINT_NAMES_FIELD_NUMBER: _ClassVar[int]
    STATE_DIM_FIELD_NUMBER: _ClassVar[int]
    ACTION_DIM_FIELD_NUMBER: _ClassVar[int]
    JOINT_UNIT_FIELD_NUMBER: _ClassVar[int]
    GRIPPER_UNIT_FIELD_NUMBER: _ClassVar[int]
    CONTROL_HZ_FIELD_NUMBER: _ClassVar[int]
    CAMERAS_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    RESUME_SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    WANT_VALUE_FIELD_NUMBER: _ClassVar[int]
    WANT_RECEIPT_FIELD_NUMBER: _ClassVar[int]
    WANT_RTC_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    client_name: str
    client_version: str
    robot_id: str
    embodiment: str
    joint_names: _containers.RepeatedScalarFieldContainer[str]
    state_dim: int
    action_dim: int
    joint_unit: Hello.JointUnit
    gripper_unit: Hello.GripperUnit
    control_hz: float
    cameras: _containers.RepeatedCompositeFieldContainer[Camera]
    instruction: str
    resume_session_id: str
    want_value: bool
    want_receipt: bool
    want_rtc: bool
    def __init__(self, protocol_version: _Optional[int] = ..., client_name: _Optional[str] = ..., client_version: _Optional[str] = ..., robot_id: _Optional[str] = ..., embodiment: _Optional[str] = ..., joint_names: _Optional[_Iterable[str]] = ..., state_dim: _Optional[int] = ..., action_dim: _Optional[int] = ..., joint_unit: _Optional[_Union[Hello.JointUnit, str]] = ..., gripper_unit: _Optional[_Union[Hello.GripperUnit, str]] = ..., control_hz: _Optional[float] = ..., cameras: _Optional[_Iterable[_Union[Camera, _Mapping]]] = ..., instruction: _Optional[str] = ..., resume_session_id: _Optional[str] = ..., want_value: _Optional[bool] = ..., want_receipt: _Optional[bool] = ..., want_rtc: _Optional[bool] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("protocol_version", "session_id", "epoch", "server_version", "policy", "dt_ns", "max_message_bytes", "max_in_flight", "supports_rtc", "ping_interval_ms", "resumed")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    DT_NS_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    SUPPORTS_RTC_FIELD_NUMBER: _ClassVar[int]
    PING_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    session_id: str
    epoch: int
    server_version: str
    policy: PolicyInfo
    dt_ns: int
    max_message_bytes: int
    max_in_flight: int
    supports_rtc: bool
    ping_interval_ms: int
    resumed: bool
    def __init__(self, protocol_version: _Optional[int] = ..., session_id: _Optional[str] = ..., epoch: _Optional[int] = ..., server_version: _Optional[str] = ..., policy: _Optional[_Union[PolicyInfo, _Mapping]] = ..., dt_ns: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., max_in_flight: _Optional[int] = ..., supports_rtc: _Optional[bool] = ..., ping_interval_ms: _Optional[int] = ..., resumed: _Optional[bool] = ...) -> None: ...

class Observation(_message.Message):
    __slots__ = ("sequence", "epoch", "control_step", "captured_mono_ns", "sent_mono_ns", "captured_unix_ns", "images", "state", "instruction", "prev_chunk_id", "prev_chunk_next_index", "executed_steps", "committed_prefix", "inference_delay_hint_steps", "deadline_ms", "must_run", "planner", "seed")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    CONTROL_STEP_FIELD_NUMBER: _ClassVar[int]
    CAPTURED_MONO_NS_FIELD_NUMBER: _ClassVar[int]
    SENT_MONO_NS_FIELD_NUMBER: _ClassVar[int]
    CAPTURED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    PREV_CHUNK_ID_FIELD_NUMBER: _ClassVar[int]
    PREV_CHUNK_NEXT_INDEX_FIELD_NUMBER: _ClassVar[int]
    EXECUTED_STEPS_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_PREFIX_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_DELAY_HINT_STEPS_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    MUST_RUN_FIELD_NUMBER: _ClassVar[int]
    PLANNER_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    epoch: int
    control_step: int
    captured_mono_ns: int
    sent_mono_ns: int
    captured_unix_ns: int
    images: _containers.RepeatedCompositeFieldContainer[Image]
    state: _containers.RepeatedScalarFieldContainer[float]
    instruction: str
    prev_chunk_id: str
    prev_chunk_next_index: int
    executed_steps: int
    committed_prefix: Tensor
    inference_delay_hint_steps: int
    deadline_ms: int
    must_run: bool
    planner: PlannerOptions
    seed: int
    def __init__(self, sequence: _Optional[int] = ..., epoch: _Optional[int] = ..., control_step: _Optional[int] = ..., captured_mono_ns: _Optional[int] = ..., sent_mono_ns: _Optional[int] = ..., captured_unix_ns: _Optional[int] = ..., images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ..., state: _Optional[_Iterable[float]] = ..., instruction: _Optional[str] = ..., prev_chunk_id: _Optional[str] = ..., prev_chunk_next_index: _Optional[int] = ..., executed_steps: _Optional[int] = ..., committed_prefix: _Optional[_Union[Tensor, _Mapping]] = ..., inference_delay_hint_steps: _Optional[int] = ..., deadline_ms: _Optional[int] = ..., must_run: _Optional[bool] = ..., planner: _Optional[_Union[PlannerOptions, _Mapping]] = ..., seed: _Optional[int] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("shape", "data")
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class ExecutionReport(_message.Message):
    __slots__ = ("chunk_id", "executed_from_step", "executed_to_step", "clamped_count", "hold", "hold_reason", "faults", "tracking_error")
    class HoldReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        HOLD_REASON_UNSPECIFIED: _ClassVar[ExecutionReport.HoldReason]
        NO_CHUNK: _ClassVar[ExecutionReport.HoldReason]
        LINK_LOST: _ClassVar[ExecutionReport.HoldReason]
        ARM_FAULT: _ClassVar[ExecutionReport.HoldReason]
        OPERATOR: _ClassVar[ExecutionReport.HoldReason]
        LIMIT: _ClassVar[ExecutionReport.HoldReason]
    HOLD_REASON_UNSPECIFIED: ExecutionReport.HoldReason
    NO_CHUNK: ExecutionReport.HoldReason
    LINK_LOST: ExecutionReport.HoldReason
    ARM_FAULT: ExecutionReport.HoldReason
    OPERATOR: ExecutionReport.HoldReason
    LIMIT: ExecutionReport.HoldReason
    CHUNK_ID_FIELD_NUMBER: _ClassVar[int]
    EXECUTED_FROM_STEP_FIELD_NUMBER: _ClassVar[int]
    EXECUTED_TO_STEP_FIELD_NUMBER: _ClassVar[int]
    CLAMPED_COUNT_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    HOLD_REASON_FIELD_NUMBER: _ClassVar[int]
    FAULTS_FIELD_NUMBER: _ClassVar[int]
    TRACKING_ERROR_FIELD_NUMBER: _ClassVar[int]
    chunk_id: str
    executed_from_step: int
    executed_to_step: int
    clamped_count: int
    hold: bool
    hold_reason: ExecutionReport.HoldReason
    faults: _containers.RepeatedScalarFieldContainer[str]
    tracking_error: float
    def __init__(self, chunk_id: _Optional[str] = ..., executed_from_step: _Optional[int] = ..., executed_to_step: _Optional[int] = ..., clamped_count: _Optional[int] = ..., hold: _Optional[bool] = ..., hold_reason: _Optional[_Union[ExecutionReport.HoldReason, str]] = ..., faults: _Optional[_Iterable[str]] = ..., tracking_error: _Optional[float] = ...) -> None: ...

class ObservationDropped(_message.Message):
    __slots__ = ("sequence", "reason", "by_sequence")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[ObservationDropped.Reason]
        SUPERSEDED: _ClassVar[ObservationDropped.Reason]
        TOO_OLD: _ClassVar[ObservationDropped.Reason]
        OVERLOADED: _ClassVar[ObservationDropped.Reason]
    REASON_UNSPECIFIED: ObservationDropped.Reason
    SUPERSEDED: ObservationDropped.Reason
    TOO_OLD: ObservationDropped.Reason
    OVERLOADED: ObservationDropped.Reason
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    BY_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    reason: ObservationDropped.Reason
    by_sequence: int
    def __init__(self, sequence: _Optional[int] = ..., reason: _Optional[_Union[ObservationDropped.Reason, str]] = ..., by_sequence: _Optional[int] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "sequence", "message", "field", "expected", "actual", "retryable", "retry_after_ms", "fatal")
    class Code(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        CODE_UNSPECIFIED: _ClassVar[Error.Code]
        INVALID_ARGUMENT: _ClassVar[Error.Code]
        UNAUTHENTICATED: _ClassVar[Error.Code]
        RESOURCE_EXHAUSTED: _ClassVar[Error.Code]
        DEADLINE_EXCEEDED: _ClassVar[Error.Code]
        FAILED_PRECONDITION: _ClassVar[Error.Code]
        NOT_READY: _ClassVar[Error.Code]
        INTERNAL: _ClassVar[Error.Code]
    CODE_UNSPECIFIED: Error.Code
    INVALID_ARGUMENT: Error.Code
    UNAUTHENTICATED: Error.Code
    RESOURCE_EXHAUSTED: Error.Code
    DEADLINE_EXCEEDED: Error.Code
    FAILED_PRECONDITION: Error.Code
    NOT_READY: Error.Code
    INTERNAL: Error.Code
    CODE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    ACTUAL_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    FATAL_FIELD_NUMBER: _ClassVar[int]
    code: Error.Code
    sequence: int
    message: str
    field: str
    expected: str
    actual: str
    retryable: bool
    retry_after_ms: int
    fatal: bool
    def __init__(self, code: _Optional[_Union[Error.Code, str]] = ..., sequence: _Optional[int] = ..., message: _Optional[str] = ..., field: _Optional[str] = ..., expected: _Optional[str] = ..., actual: _Optional[str] = ..., retryable: _Optional[bool] = ..., retry_after_ms: _Optional[int] = ..., fatal: _Optional[bool] = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ("id", "client_mono_ns")
    ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_MONO_NS_FIELD_NUMBER: _ClassVar[int]
    id: int
    client_mono_ns: int
    def __init__(self, id: _Optional[int] = ..., client_mono_ns: _Optional[int] = ...) -> None: ...

class Pong(_message.Message):
    __slots__ = ("id", "client_mono_ns", "server_recv_ns", "server_send_ns")
    ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_MONO_NS_FIELD_NUMBER: _ClassVar[int]
    SERVER_RECV_NS_FIELD_NUMBER: _ClassVar[int]
    SERVER_SEND_NS_FIELD_NUMBER: _ClassVar[int]
    id: int
    client_mono_ns: int
    server_recv_ns: int
    server_send_ns: int
    def __init__(self, id: _Optional[int] = ..., client_mono_ns: _Optional[int] = ..., server_recv_ns: _Optional[int] = ..., server_send_ns: _Optional[int] = ...) -> None: ...

class ResetStream(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class ResetAck(_message.Message):
    __slots__ = ("id", "epoch")
    ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    id: int
    epoch: int
    def __init__(self, id: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class Bye(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class GoAway(_message.Message):
    __slots__ = ("reconnect_within_ms", "reason")
    RECONNECT_WITHIN_MS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    reconnect_within_ms: int
    reason: str
    def __init__(self, reconnect_within_ms: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...
