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
    __slots__ = ("mode", "num_iterations", "num_video_samples", "num_value_samples", "num_flow_steps", "num_video_steps", "smoothing", "decay", "video_elite_fraction", "value_elite_fraction", "per_view_noise", "estimate_value", "warm_start", "early_stop", "fixed_shapes")
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
    FIXED_SHAPES_FIELD_NUMBER: _ClassVar[int]
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
    fixed_shapes: bool
    def __init__(self, mode: _Optional[str] = ..., num_iterations: _Optional[int] = ..., num_video_samples: _Optional[int] = ..., num_value_samples: _Optional[int] = ..., num_flow_steps: _Optional[int] = ..., num_video_steps: _Optional[int] = ..., smoothing: _Optional[float] = ..., decay: _Optional[float] = ..., video_elite_fraction: _Optional[float] = ..., value_elite_fraction: _Optional[float] = ..., per_view_noise: _Optional[bool] = ..., estimate_value: _Optional[bool] = ..., warm_start: _Optional[bool] = ..., early_stop: _Optional[float] = ..., fixed_shapes: _Optional[bool] = ...) -> None: ...

class RealTimeChunking(_message.Message):
    __slots__ = ("mode", "prefix_attention_schedule", "max_guidance_weight", "execution_horizon", "inference_delay", "prev_chunk_left_over")
    class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        MODE_UNSPECIFIED: _ClassVar[RealTimeChunking.Mode]
        OFF: _ClassVar[RealTimeChunking.Mode]
        RTC_GUIDED: _ClassVar[RealTimeChunking.Mode]
        RTC_TRAINED: _ClassVar[RealTimeChunking.Mode]
    MODE_UNSPECIFIED: RealTimeChunking.Mode
    OFF: RealTimeChunking.Mode
    RTC_GUIDED: RealTimeChunking.Mode
    RTC_TRAINED: RealTimeChunking.Mode
    class Schedule(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        SCHEDULE_UNSPECIFIED: _ClassVar[RealTimeChunking.Schedule]
        LINEAR: _ClassVar[RealTimeChunking.Schedule]
        EXP: _ClassVar[RealTimeChunking.Schedule]
        ONES: _ClassVar[RealTimeChunking.Schedule]
        ZEROS: _ClassVar[RealTimeChunking.Schedule]
    SCHEDULE_UNSPECIFIED: RealTimeChunking.Schedule
    LINEAR: RealTimeChunking.Schedule
    EXP: RealTimeChunking.Schedule
    ONES: RealTimeChunking.Schedule
    ZEROS: RealTimeChunking.Schedule
    MODE_FIELD_NUMBER: _ClassVar[int]
    PREFIX_ATTENTION_SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    MAX_GUIDANCE_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_HORIZON_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_DELAY_FIELD_NUMBER: _ClassVar[int]
    PREV_CHUNK_LEFT_OVER_FIELD_NUMBER: _ClassVar[int]
    mode: RealTimeChunking.Mode
    prefix_attention_schedule: RealTimeChunking.Schedule
    max_guidance_weight: float
    execution_horizon: int
    inference_delay: int
    prev_chunk_left_over: Tensor
    def __init__(self, mode: _Optional[_Union[RealTimeChunking.Mode, str]] = ..., prefix_attention_schedule: _Optional[_Union[RealTimeChunking.Schedule, str]] = ..., max_guidance_weight: _Optional[float] = ..., execution_horizon: _Optional[int] = ..., inference_delay: _Optional[int] = ..., prev_chunk_left_over: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("shape", "data")
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class PlanRequest(_message.Message):
    __slots__ = ("session_id", "sequence", "control_step", "executed_steps", "images", "state", "instruction", "policy", "planner", "seed", "deadline_ms", "imagine_chunks", "rtc")
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
    RTC_FIELD_NUMBER: _ClassVar[int]
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
    rtc: RealTimeChunking
    def __init__(self, session_id: _Optional[str] = ..., sequence: _Optional[int] = ..., control_step: _Optional[int] = ..., executed_steps: _Optional[int] = ..., images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ..., state: _Optional[_Iterable[float]] = ..., instruction: _Optional[str] = ..., policy: _Optional[str] = ..., planner: _Optional[_Union[PlannerOptions, _Mapping]] = ..., seed: _Optional[int] = ..., deadline_ms: _Optional[int] = ..., imagine_chunks: _Optional[int] = ..., rtc: _Optional[_Union[RealTimeChunking, _Mapping]] = ...) -> None: ...

class ResetRequest(_message.Message):
    __slots__ = ("session_id", "end")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    end: bool
    def __init__(self, session_id: _Optional[str] = ..., end: _Optional[bool] = ...) -> None: ...

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
    __slots__ = ("policy", "policy_digest", "untrained", "seed", "sequence", "planner", "iterations_done", "deadline", "slack_ms", "iterations", "stage_ms", "value_estimate", "digests", "version", "stopped", "warm_start", "rtc", "seam_jump", "expected_return")
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
    RTC_FIELD_NUMBER: _ClassVar[int]
    SEAM_JUMP_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_RETURN_FIELD_NUMBER: _ClassVar[int]
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
    rtc: RealTimeChunking
    seam_jump: float
    expected_return: float
    def __init__(self, policy: _Optional[str] = ..., policy_digest: _Optional[str] = ..., untrained: _Optional[bool] = ..., seed: _Optional[int] = ..., sequence: _Optional[int] = ..., planner: _Optional[_Union[PlannerOptions, _Mapping]] = ..., iterations_done: _Optional[int] = ..., deadline: _Optional[_Union[Receipt.Deadline, str]] = ..., slack_ms: _Optional[float] = ..., iterations: _Optional[_Iterable[_Union[Iteration, _Mapping]]] = ..., stage_ms: _Optional[_Mapping[str, float]] = ..., value_estimate: _Optional[float] = ..., digests: _Optional[_Mapping[str, str]] = ..., version: _Optional[str] = ..., stopped: _Optional[_Union[Receipt.Stop, str]] = ..., warm_start: _Optional[bool] = ..., rtc: _Optional[_Union[RealTimeChunking, _Mapping]] = ..., seam_jump: _Optional[float] = ..., expected_return: _Optional[float] = ...) -> None: ...

class GateCut(_message.Message):
    __slots__ = ("step", "dimension", "name", "limit", "bound", "value")
    STEP_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    BOUND_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    step: int
    dimension: int
    name: str
    limit: str
    bound: float
    value: float
    def __init__(self, step: _Optional[int] = ..., dimension: _Optional[int] = ..., name: _Optional[str] = ..., limit: _Optional[str] = ..., bound: _Optional[float] = ..., value: _Optional[float] = ...) -> None: ...

class ImaginedFrames(_message.Message):
    __slots__ = ("camera", "frames")
    CAMERA_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    camera: str
    frames: _containers.RepeatedCompositeFieldContainer[Image]
    def __init__(self, camera: _Optional[str] = ..., frames: _Optional[_Iterable[_Union[Image, _Mapping]]] = ...) -> None: ...

class ActionChunk(_message.Message):
    __slots__ = ("session_id", "epoch", "sequence", "first_control_step", "horizon", "action_dim", "dt_ns", "actions", "valid_until_step", "frozen_prefix_steps", "receipt", "imagined", "chunk_id", "captured_mono_ns", "server_recv_ns", "server_send_ns", "warnings", "cut", "fresh_memory")
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
    CUT_FIELD_NUMBER: _ClassVar[int]
    FRESH_MEMORY_FIELD_NUMBER: _ClassVar[int]
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
    cut: GateCut
    fresh_memory: bool
    def __init__(self, session_id: _Optional[str] = ..., epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., first_control_step: _Optional[int] = ..., horizon: _Optional[int] = ..., action_dim: _Optional[int] = ..., dt_ns: _Optional[int] = ..., actions: _Optional[_Iterable[float]] = ..., valid_until_step: _Optional[int] = ..., frozen_prefix_steps: _Optional[int] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ..., imagined: _Optional[_Iterable[_Union[ImaginedFrames, _Mapping]]] = ..., chunk_id: _Optional[str] = ..., captured_mono_ns: _Optional[int] = ..., server_recv_ns: _Optional[int] = ..., server_send_ns: _Optional[int] = ..., warnings: _Optional[_Iterable[str]] = ..., cut: _Optional[_Union[GateCut, _Mapping]] = ..., fresh_memory: _Optional[bool] = ...) -> None: ...

class GetPolicyRequest(_message.Message):
    __slots__ = ("policy",)
    POLICY_FIELD_NUMBER: _ClassVar[int]
    policy: str
    def __init__(self, policy: _Optional[str] = ...) -> None: ...

class Camera(_message.Message):
    __slots__ = ("name", "height", "width", "resize", "orientation")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    ORIENTATION_FIELD_NUMBER: _ClassVar[int]
    name: str
    height: int
    width: int
    resize: str
    orientation: str
    def __init__(self, name: _Optional[str] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., resize: _Optional[str] = ..., orientation: _Optional[str] = ...) -> None: ...

class Vector(_message.Message):
    __slots__ = ("names", "units", "statistics_digest", "limits", "hold")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    units: _containers.RepeatedScalarFieldContainer[str]
    statistics_digest: str
    limits: Limits
    hold: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ..., units: _Optional[_Iterable[str]] = ..., statistics_digest: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., hold: _Optional[_Iterable[str]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("position_low", "position_high", "velocity", "jerk", "min_horizon")
    POSITION_LOW_FIELD_NUMBER: _ClassVar[int]
    POSITION_HIGH_FIELD_NUMBER: _ClassVar[int]
    VELOCITY_FIELD_NUMBER: _ClassVar[int]
    JERK_FIELD_NUMBER: _ClassVar[int]
    MIN_HORIZON_FIELD_NUMBER: _ClassVar[int]
    position_low: _containers.RepeatedScalarFieldContainer[float]
    position_high: _containers.RepeatedScalarFieldContainer[float]
    velocity: _containers.RepeatedScalarFieldContainer[float]
    jerk: _containers.RepeatedScalarFieldContainer[float]
    min_horizon: int
    def __init__(self, position_low: _Optional[_Iterable[float]] = ..., position_high: _Optional[_Iterable[float]] = ..., velocity: _Optional[_Iterable[float]] = ..., jerk: _Optional[_Iterable[float]] = ..., min_horizon: _Optional[int] = ...) -> None: ...

class PolicyInfo(_message.Message):
    __slots__ = ("name", "digest", "untrained", "cameras", "state", "action", "horizon", "control_hz", "history_frames", "max_instruction_bytes", "defaults", "bounds", "notes", "max_message_bytes", "embodiment", "action_kind", "rtc", "rtc_modes", "max_trained_delay", "golden_digest")
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
    EMBODIMENT_FIELD_NUMBER: _ClassVar[int]
    ACTION_KIND_FIELD_NUMBER: _ClassVar[int]
    RTC_FIELD_NUMBER: _ClassVar[int]
    RTC_MODES_FIELD_NUMBER: _ClassVar[int]
    MAX_TRAINED_DELAY_FIELD_NUMBER: _ClassVar[int]
    GOLDEN_DIGEST_FIELD_NUMBER: _ClassVar[int]
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
    embodiment: str
    action_kind: str
    rtc: RealTimeChunking
    rtc_modes: _containers.RepeatedScalarFieldContainer[RealTimeChunking.Mode]
    max_trained_delay: int
    golden_digest: str
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[str] = ..., untrained: _Optional[bool] = ..., cameras: _Optional[_Iterable[_Union[Camera, _Mapping]]] = ..., state: _Optional[_Union[Vector, _Mapping]] = ..., action: _Optional[_Union[Vector, _Mapping]] = ..., horizon: _Optional[int] = ..., control_hz: _Optional[float] = ..., history_frames: _Optional[int] = ..., max_instruction_bytes: _Optional[int] = ..., defaults: _Optional[_Union[PlannerOptions, _Mapping]] = ..., bounds: _Optional[_Mapping[str, int]] = ..., notes: _Optional[str] = ..., max_message_bytes: _Optional[int] = ..., embodiment: _Optional[str] = ..., action_kind: _Optional[str] = ..., rtc: _Optional[_Union[RealTimeChunking, _Mapping]] = ..., rtc_modes: _Optional[_Iterable[_Union[RealTimeChunking.Mode, str]]] = ..., max_trained_delay: _Optional[int] = ..., golden_digest: _Optional[str] = ...) -> None: ...

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
    __slots__ = ("protocol_version", "client_name", "client_version", "robot_id", "embodiment", "policy", "policy_digest", "state", "action", "control_hz", "cameras", "instruction", "resume_session_id", "want_iterations")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NAME_FIELD_NUMBER: _ClassVar[int]
    CLIENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    ROBOT_ID_FIELD_NUMBER: _ClassVar[int]
    EMBODIMENT_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    POLICY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    CONTROL_HZ_FIELD_NUMBER: _ClassVar[int]
    CAMERAS_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    RESUME_SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    WANT_ITERATIONS_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    client_name: str
    client_version: str
    robot_id: str
    embodiment: str
    policy: str
    policy_digest: str
    state: Vector
    action: Vector
    control_hz: float
    cameras: _containers.RepeatedCompositeFieldContainer[Camera]
    instruction: str
    resume_session_id: str
    want_iterations: bool
    def __init__(self, protocol_version: _Optional[int] = ..., client_name: _Optional[str] = ..., client_version: _Optional[str] = ..., robot_id: _Optional[str] = ..., embodiment: _Optional[str] = ..., policy: _Optional[str] = ..., policy_digest: _Optional[str] = ..., state: _Optional[_Union[Vector, _Mapping]] = ..., action: _Optional[_Union[Vector, _Mapping]] = ..., control_hz: _Optional[float] = ..., cameras: _Optional[_Iterable[_Union[Camera, _Mapping]]] = ..., instruction: _Optional[str] = ..., resume_session_id: _Optional[str] = ..., want_iterations: _Optional[bool] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("protocol_version", "session_id", "epoch", "server_version", "policy", "dt_ns", "max_in_flight", "ping_interval_ms", "resumed", "next_sequence", "resume_within_ms")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    DT_NS_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    PING_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    NEXT_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RESUME_WITHIN_MS_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    session_id: str
    epoch: int
    server_version: str
    policy: PolicyInfo
    dt_ns: int
    max_in_flight: int
    ping_interval_ms: int
    resumed: bool
    next_sequence: int
    resume_within_ms: int
    def __init__(self, protocol_version: _Optional[int] = ..., session_id: _Optional[str] = ..., epoch: _Optional[int] = ..., server_version: _Optional[str] = ..., policy: _Optional[_Union[PolicyInfo, _Mapping]] = ..., dt_ns: _Optional[int] = ..., max_in_flight: _Optional[int] = ..., ping_interval_ms: _Optional[int] = ..., resumed: _Optional[bool] = ..., next_sequence: _Optional[int] = ..., resume_within_ms: _Optional[int] = ...) -> None: ...

class Observation(_message.Message):
    __slots__ = ("sequence", "epoch", "control_step", "executed_steps", "sent_mono_ns", "images", "state", "instruction", "prev_chunk_id", "prev_chunk_next_index", "rtc", "deadline_ms", "planner", "seed", "imagine_chunks", "traceparent")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    CONTROL_STEP_FIELD_NUMBER: _ClassVar[int]
    EXECUTED_STEPS_FIELD_NUMBER: _ClassVar[int]
    SENT_MONO_NS_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    PREV_CHUNK_ID_FIELD_NUMBER: _ClassVar[int]
    PREV_CHUNK_NEXT_INDEX_FIELD_NUMBER: _ClassVar[int]
    RTC_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    PLANNER_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    IMAGINE_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    epoch: int
    control_step: int
    executed_steps: int
    sent_mono_ns: int
    images: _containers.RepeatedCompositeFieldContainer[Image]
    state: _containers.RepeatedScalarFieldContainer[float]
    instruction: str
    prev_chunk_id: str
    prev_chunk_next_index: int
    rtc: RealTimeChunking
    deadline_ms: int
    planner: PlannerOptions
    seed: int
    imagine_chunks: int
    traceparent: str
    def __init__(self, sequence: _Optional[int] = ..., epoch: _Optional[int] = ..., control_step: _Optional[int] = ..., executed_steps: _Optional[int] = ..., sent_mono_ns: _Optional[int] = ..., images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ..., state: _Optional[_Iterable[float]] = ..., instruction: _Optional[str] = ..., prev_chunk_id: _Optional[str] = ..., prev_chunk_next_index: _Optional[int] = ..., rtc: _Optional[_Union[RealTimeChunking, _Mapping]] = ..., deadline_ms: _Optional[int] = ..., planner: _Optional[_Union[PlannerOptions, _Mapping]] = ..., seed: _Optional[int] = ..., imagine_chunks: _Optional[int] = ..., traceparent: _Optional[str] = ...) -> None: ...

class ExecutionReport(_message.Message):
    __slots__ = ("chunk_id", "executed_from_step", "executed_to_step", "clamped_steps", "hold_reason", "faults", "tracking_error", "chunk_age_ms", "seam_jump", "starved_steps")
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
    CLAMPED_STEPS_FIELD_NUMBER: _ClassVar[int]
    HOLD_REASON_FIELD_NUMBER: _ClassVar[int]
    FAULTS_FIELD_NUMBER: _ClassVar[int]
    TRACKING_ERROR_FIELD_NUMBER: _ClassVar[int]
    CHUNK_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    SEAM_JUMP_FIELD_NUMBER: _ClassVar[int]
    STARVED_STEPS_FIELD_NUMBER: _ClassVar[int]
    chunk_id: str
    executed_from_step: int
    executed_to_step: int
    clamped_steps: int
    hold_reason: ExecutionReport.HoldReason
    faults: _containers.RepeatedScalarFieldContainer[str]
    tracking_error: float
    chunk_age_ms: float
    seam_jump: float
    starved_steps: int
    def __init__(self, chunk_id: _Optional[str] = ..., executed_from_step: _Optional[int] = ..., executed_to_step: _Optional[int] = ..., clamped_steps: _Optional[int] = ..., hold_reason: _Optional[_Union[ExecutionReport.HoldReason, str]] = ..., faults: _Optional[_Iterable[str]] = ..., tracking_error: _Optional[float] = ..., chunk_age_ms: _Optional[float] = ..., seam_jump: _Optional[float] = ..., starved_steps: _Optional[int] = ...) -> None: ...

class ObservationDropped(_message.Message):
    __slots__ = ("sequence", "reason", "by_sequence", "epoch", "retry_after_ms")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[ObservationDropped.Reason]
        SUPERSEDED: _ClassVar[ObservationDropped.Reason]
        TOO_OLD: _ClassVar[ObservationDropped.Reason]
        OVERLOADED: _ClassVar[ObservationDropped.Reason]
        RESET: _ClassVar[ObservationDropped.Reason]
        DRAINING: _ClassVar[ObservationDropped.Reason]
    REASON_UNSPECIFIED: ObservationDropped.Reason
    SUPERSEDED: ObservationDropped.Reason
    TOO_OLD: ObservationDropped.Reason
    OVERLOADED: ObservationDropped.Reason
    RESET: ObservationDropped.Reason
    DRAINING: ObservationDropped.Reason
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    BY_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    reason: ObservationDropped.Reason
    by_sequence: int
    epoch: int
    retry_after_ms: int
    def __init__(self, sequence: _Optional[int] = ..., reason: _Optional[_Union[ObservationDropped.Reason, str]] = ..., by_sequence: _Optional[int] = ..., epoch: _Optional[int] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("name", "sequence", "epoch", "message", "field", "expected", "actual", "retryable", "retry_after_ms", "fatal", "error_id", "facts")
    class FactsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    ACTUAL_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    FATAL_FIELD_NUMBER: _ClassVar[int]
    ERROR_ID_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    sequence: int
    epoch: int
    message: str
    field: str
    expected: str
    actual: str
    retryable: bool
    retry_after_ms: int
    fatal: bool
    error_id: str
    facts: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., sequence: _Optional[int] = ..., epoch: _Optional[int] = ..., message: _Optional[str] = ..., field: _Optional[str] = ..., expected: _Optional[str] = ..., actual: _Optional[str] = ..., retryable: _Optional[bool] = ..., retry_after_ms: _Optional[int] = ..., fatal: _Optional[bool] = ..., error_id: _Optional[str] = ..., facts: _Optional[_Mapping[str, str]] = ...) -> None: ...

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
    __slots__ = ("id", "epoch", "next_sequence")
    ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NEXT_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    id: int
    epoch: int
    next_sequence: int
    def __init__(self, id: _Optional[int] = ..., epoch: _Optional[int] = ..., next_sequence: _Optional[int] = ...) -> None: ...

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

class WatchRequest(_message.Message):
    __slots__ = ("interval_s",)
    INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    interval_s: float
    def __init__(self, interval_s: _Optional[float] = ...) -> None: ...

class WatchUpdate(_message.Message):
    __slots__ = ("robots",)
    ROBOTS_FIELD_NUMBER: _ClassVar[int]
    robots: _containers.RepeatedCompositeFieldContainer[RobotStatus]
    def __init__(self, robots: _Optional[_Iterable[_Union[RobotStatus, _Mapping]]] = ...) -> None: ...

class RobotStatus(_message.Message):
    __slots__ = ("robot_id", "embodiment", "client", "peer", "epoch", "connected_s", "instruction", "observations", "chunks", "dropped", "errors", "plan_ms_p50", "plan_ms_p95", "last_chunk", "last_chunk_age_s", "last_report")
    ROBOT_ID_FIELD_NUMBER: _ClassVar[int]
    EMBODIMENT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_S_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    OBSERVATIONS_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    PLAN_MS_P50_FIELD_NUMBER: _ClassVar[int]
    PLAN_MS_P95_FIELD_NUMBER: _ClassVar[int]
    LAST_CHUNK_FIELD_NUMBER: _ClassVar[int]
    LAST_CHUNK_AGE_S_FIELD_NUMBER: _ClassVar[int]
    LAST_REPORT_FIELD_NUMBER: _ClassVar[int]
    robot_id: str
    embodiment: str
    client: str
    peer: str
    epoch: int
    connected_s: float
    instruction: str
    observations: int
    chunks: int
    dropped: int
    errors: int
    plan_ms_p50: float
    plan_ms_p95: float
    last_chunk: ActionChunk
    last_chunk_age_s: float
    last_report: ExecutionReport
    def __init__(self, robot_id: _Optional[str] = ..., embodiment: _Optional[str] = ..., client: _Optional[str] = ..., peer: _Optional[str] = ..., epoch: _Optional[int] = ..., connected_s: _Optional[float] = ..., instruction: _Optional[str] = ..., observations: _Optional[int] = ..., chunks: _Optional[int] = ..., dropped: _Optional[int] = ..., errors: _Optional[int] = ..., plan_ms_p50: _Optional[float] = ..., plan_ms_p95: _Optional[float] = ..., last_chunk: _Optional[_Union[ActionChunk, _Mapping]] = ..., last_chunk_age_s: _Optional[float] = ..., last_report: _Optional[_Union[ExecutionReport, _Mapping]] = ...) -> None: ...
