"""The one settings tree: every setting, with its default, which is written only here.

Knows no source of values. A module outside `app` and `commands` never reads the tree: it gets the small slice it needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_serializer

from wavserve.app.settings_types import (
    CameraNames,
    Endpoints,
    Gateways,
    Host,
    HostNames,
    Name,
    OptionalCollector,
    OptionalCount,
    OptionalPath,
    OptionalStoreUrl,
    OptionalText,
    Port,
    Positive,
    Seconds,
    StoreUrl,
    Switch,
)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BundleSettings(_Section):
    path: OptionalPath = Field(default=None, description="folder of the policy bundle; none: that of bundle.preset")
    preset: Literal["auto", "tiny", "tiny-piper", "libero", "piper"] = Field(
        default="auto",
        description="bundle to serve when bundle.path is none; auto: the trained policy tiny-libero where "
        "bundle.policies has it, else tiny; the others have random weights and are created at the first start",
    )
    policies: Path = Field(default=Path("policies"), description="folder of the trained policies that ship")
    root: OptionalPath = Field(
        default=None,
        description="folder in which presets are created; none: bundles, or where the working directory is read-only, "
        "wavserve/bundles in the user's cache folder",
    )
    seed: Annotated[int, Field(ge=0)] = Field(default=0, description="seed of a preset's random weights")

    @property
    def folder(self) -> Path:
        """Where the bundle is, or will be once the preset is created."""
        return self.path or self.shipped or self.presets / self.created

    @property
    def shipped(self) -> Path | None:
        """The trained policy, if it is what `auto` means here."""
        folder = self.policies / "tiny-libero"
        return folder if self.preset == "auto" and (folder / "policy.json").exists() else None

    @property
    def created(self) -> str:
        """The preset that is created where there is no bundle."""
        return "tiny" if self.preset == "auto" else self.preset

    @property
    def presets(self) -> Path:
        """The folder of presets."""
        return self.root or Path("bundles")


class BackendSettings(_Section):
    kind: Literal["auto", "local", "triton-embedded", "triton"] = Field(
        default="auto",
        description="where the models run; local: this process; triton-embedded: a Triton that this process starts; "
        "triton: the Tritons at triton.urls; auto: triton-embedded where it can run, else local",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="device of the models; auto: cuda where there is one, else cpu"
    )
    text_device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        description="device of the text encoder; auto: backend.device; cpu leaves its gigabytes of GPU memory free",
    )
    dtype: Literal["float32", "bfloat16", "auto"] = Field(
        default="float32", description="number type of the models; auto: bfloat16 where it is much faster"
    )
    threads: OptionalCount = Field(
        default=None, description="torch threads of one model call; none: chosen by model size"
    )
    workers: OptionalCount = Field(
        default=None,
        description="model calls at a time; none: by model size in this process on a CPU, 2 on a Triton on a CPU, "
        "1 on a GPU",
    )
    compile: Switch = Field(
        default="auto",
        description="compile the models with torch; auto: where that works; on: an error where it does not",
    )
    cuda_graphs: Switch = Field(
        default="auto",
        description="run the value and action experts as CUDA graphs, one launch per forward pass; auto: on a GPU; "
        "on: an error on a CPU",
    )
    max_cached_texts: Positive = Field(
        default=64,
        description="instructions that are cached: their embeddings in the gateway and in the Redis of sessions.url, "
        "their keys and values in video_dit",
    )


class TritonSettings(_Section):
    urls: Endpoints = Field(
        default=("127.0.0.1:18001",),
        description="gRPC endpoints of running Tritons, one for each GPU; dns:///NAME:PORT: every address that DNS has "
        "for the name, followed as they change",
    )
    discovery_s: Seconds = Field(default=5.0, description="time between two look-ups of a name in dns:///")
    gateways: Gateways = Field(
        default=(),
        description="names of all gateways before these Tritons, with this one, or dns:///NAME for their addresses: "
        "each gateway prefers its share of the Tritons; none: this is the only one",
    )
    gateway: OptionalText = Field(
        default=None,
        description="this gateway in triton.gateways: its name, or its IP address where DNS tells those; none: the "
        "name of this machine",
    )
    proxy: bool = Field(
        default=False,
        description="reach `triton.urls` through the HTTP proxy of the environment, except those on this machine",
    )
    repository: Path = Field(
        default=Path(__file__).parents[3] / "model_repository",
        description="model repository of the embedded Triton; it is in the source tree",
    )
    canary_s: Seconds = Field(
        default=1.0, description="time between two test calls to a model that show whether it works"
    )
    hang_s: Seconds = Field(
        default=60.0,
        description="longest time that a model may take to answer before it is restarted; a call whose time is "
        "predicted may take five times as long, and 2 s at least. With backend.kind local, a call that takes hang_s "
        "ends the service",
    )
    load_s: Seconds = Field(default=600.0, description="longest time that loading a model may take")
    max_repairs: Positive = Field(
        default=3, description="failed repairs in a row after which the embedded Triton is restarted"
    )
    metrics_port: Port = Field(
        default=0, description="port on 127.0.0.1 for the embedded Triton's own metrics; 0: any free port"
    )
    shm_bytes: Positive = Field(
        default=4 * 1024 * 1024, description="shared memory of each model at its start, in bytes"
    )


class HttpSettings(_Section):
    host: Host = Field(
        default="127.0.0.1",
        description="address to listen on, or a name, for all of its addresses; ::, for all of this machine",
    )
    port: Port = Field(default=8000, description="port to listen on; 0: any free port")


class GrpcSettings(_Section):
    host: Host = Field(
        default="127.0.0.1",
        description="address to listen on, or a name, for all of its addresses; ::, for all of this machine",
    )
    port: Port = Field(default=8001, description="port to listen on; 0: any free port")


class LimitSettings(_Section):
    max_body_bytes: Positive = Field(default=32 * 1024 * 1024, description="largest request over HTTP or gRPC")
    max_image_bytes: Positive = Field(default=16 * 1024 * 1024, description="largest encoded image")
    max_image_pixels: Positive = Field(
        default=8_388_608, description="largest image in pixels, checked before decoding"
    )
    max_concurrent_plans: Positive = Field(
        default=256,
        description="most plans under way at a time. Plans with deadlines are refused earlier, by their predicted time",
    )
    max_inflight_bytes: Positive = Field(
        default=512 * 1024 * 1024,
        description="most bytes that requests under way hold: bodies as they arrive, and decoded frames; a request "
        "that is alone may hold more",
    )
    max_connections: OptionalCount = Field(
        default=None,
        description="most open connections of HTTP, and as many of gRPC; none: by this process's limit of open files",
    )
    max_connections_per_address: Positive = Field(
        default=64, description="most open HTTP connections of one client address"
    )
    repair_s: Seconds = Field(default=60.0, description="how long plans under way wait for models under repair")
    drain_s: Seconds = Field(default=30.0, description="how long a stopping service waits for plans under way")


class PlannerSettings(_Section):
    slice_size: Positive = Field(
        default=8, description="most video samples of a plan in one slice; slow models get smaller slices"
    )
    slices_in_flight: Positive = Field(default=2, description="slices of one plan that are under way at a time")


class BatcherSettings(_Section):
    max_rows: Positive = Field(
        default=16,
        description="most rows of joined sample groups in a backend call; a larger single group is sent alone",
    )
    ready: Annotated[int, Field(ge=0)] = Field(
        default=1, description="calls sent to a busy backend in advance, so that it need not wait for the next one"
    )
    slice_s: Seconds = Field(
        default=0.2,
        description="target time of a running call and the ready ones behind it; an urgent plan may wait this long",
    )
    arena_retry_s: Seconds = Field(
        default=0.05, description="pause before a full arena is tried again while this process holds none of its slots"
    )


class ArenaSettings(_Section):
    num_slots: Positive = Field(default=32, description="video samples whose features are kept at the same time")
    lease_s: Seconds = Field(default=60.0, description="time after which an unread slot may be used again")
    prefix: Name = Field(
        default="wavserve", description="prefix of the arena's file in /dev/shm, when Triton runs the models"
    )


class SessionSettings(_Section):
    ttl_s: Seconds = Field(default=600.0, description="a session that is unused for longer expires")
    max_sessions: Positive = Field(
        default=256,
        description="most sessions kept in this process; those with a single plan are evicted first. Redis has its own "
        "maxmemory",
    )
    url: OptionalStoreUrl = Field(
        default=None,
        description="a Redis that keeps the sessions, so that gateways share them; none: this process keeps them",
    )
    url_file: OptionalPath = Field(default=None, description="file with the Redis URL, in place of sessions.url")
    timeout_s: Annotated[float, Field(gt=0, le=1.5)] = Field(
        default=1.0, description="longest time that one answer of Redis may take, and to connect"
    )
    max_connections: Positive = Field(default=32, description="most connections to Redis")
    when_down: Literal["fail", "fresh"] = Field(
        default="fail",
        description="while Redis does not answer: fail: plans get a retryable error; fresh: sessions go on in this "
        "process, and each begins there without frame memory",
    )

    @field_serializer("url", when_used="json")
    def _masked(self, url: StoreUrl | None) -> str | None:
        return None if url is None else str(url)


class RecordSettings(_Section):
    folder: OptionalPath = Field(
        default=None, description="folder in which plans are recorded for replay; none: no recording"
    )


class CompatSettings(_Section):
    aloha: CameraNames = Field(
        default=("cam_high=top", "cam_left_wrist=left_wrist", "cam_right_wrist=right_wrist", "cam_low=none"),
        description="openpi, ALOHA: the policy's camera for each of a client's images, NAME=CAMERA[,...]; a camera "
        "`none` is not read",
    )
    libero: CameraNames = Field(
        default=("observation/image=agentview", "observation/wrist_image=wrist"),
        description="openpi, LIBERO: the same for its keys",
    )
    droid: CameraNames = Field(default=(), description="openpi, DROID: the same for its keys; none: no such clients")
    wav: CameraNames = Field(
        default=("0=top", "1=left_wrist", "2=right_wrist"),
        description="websocket of the authors' server: the same for the index of each view",
    )
    predict: CameraNames = Field(
        default=("front_head=top", "left_hand=left_wrist", "right_hand=right_wrist"),
        description="POST /predict of the authors' server: the same for its parts",
    )
    executed_steps: OptionalCount = Field(
        default=None,
        description="steps that such a client executes of each chunk, because only WAV's websocket says so; none: all",
    )
    instruction: OptionalText = Field(
        default=None, description="instruction of a request that has none; none: such a request is refused"
    )
    allow_untrained: bool = Field(
        default=False, description="answer such clients from random weights too, which their protocols cannot show"
    )


class UiSettings(_Section):
    enabled: Switch = Field(
        default="auto",
        description="the live page at /ui; auto: where HTTP listens on loopback addresses only; on: everywhere, for "
        "everybody who reaches HTTP",
    )
    hosts: HostNames = Field(
        default=(),
        description="names under which browsers may open the page, beside addresses, localhost, http.host and the "
        "machine's name; none: no others",
    )


class LogSettings(_Section):
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least severe level that is logged"
    )
    format: Literal["text", "json"] = Field(default="text", description="format of log lines; json: one object a line")
    plans: Literal["off", "json"] = Field(
        default="off",
        description="json: one line of JSON on standard output for each request for a plan; they have session ids",
    )
    instructions: bool = Field(default=False, description="lines of plans have the robot's instruction")


class TracingSettings(_Section):
    endpoint: OptionalCollector = Field(
        default=None,
        description="OTLP/HTTP collector of traces, such as http://127.0.0.1:4318 (extra otel); none: no traces",
    )
    ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        default=1.0, description="share of plans that are traced, of those whose robot has not decided it"
    )
    instructions: bool = Field(default=False, description="traces have the robot's instruction")


class Settings(_Section):
    """The tree. A key is dotted: `http.port`."""

    bundle: BundleSettings = BundleSettings()
    backend: BackendSettings = BackendSettings()
    triton: TritonSettings = TritonSettings()
    http: HttpSettings = HttpSettings()
    grpc: GrpcSettings = GrpcSettings()
    limits: LimitSettings = LimitSettings()
    planner: PlannerSettings = PlannerSettings()
    batcher: BatcherSettings = BatcherSettings()
    arena: ArenaSettings = ArenaSettings()
    sessions: SessionSettings = SessionSettings()
    record: RecordSettings = RecordSettings()
    compat: CompatSettings = CompatSettings()
    ui: UiSettings = UiSettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()
