"""The one settings tree: what it holds, and its defaults, each written once, here.

Filled by `settings_sources`. Read by `cli`, its commands and `app` only; every other module is handed the small slice
it needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

NOTHING = "none"
"""What unsets an optional setting."""


def _listed(value: object) -> object:
    """Several texts in one, as flags and variables give them: `a,b`."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _endpoints(values: tuple[str, ...]) -> tuple[str, ...]:
    parts = [value.rpartition(":") for value in values]
    fit = all(host and "/" not in host and port.isdecimal() and 0 < int(port) < 65536 for host, _, port in parts)
    if not values or not fit or len(set(values)) < len(values):
        raise PydanticCustomError("endpoints", "HOST:PORT[,HOST:PORT...], each once")
    return values


Port = Annotated[int, Field(ge=0, le=65535)]
Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]
Endpoints = Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_endpoints)]
OptionalPath = Annotated[Path | None, BeforeValidator(lambda value: None if value == NOTHING else value)]
OptionalCount = Annotated[Positive | None, BeforeValidator(lambda value: None if value == NOTHING else value)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BundleSettings(_Section):
    path: OptionalPath = Field(default=None, description="policy bundle; none: the preset below, made at first start")
    preset: Literal["tiny", "libero", "piper"] = Field(default="tiny", description="bundle used when path is none")
    root: Path = Field(default=Path("bundles"), description="folder in which presets are made")
    seed: Annotated[int, Field(ge=0)] = Field(default=0, description="seed of a preset's random weights")

    @property
    def folder(self) -> Path:
        """Where the bundle is, or will be once the preset is made."""
        return self.path or self.root / self.preset


class BackendSettings(_Section):
    kind: Literal["auto", "local", "triton-embedded", "triton"] = Field(
        default="auto",
        description="who runs the models; local: this process; auto: an embedded Triton where one can run, else local",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: cuda where there is one")
    text_device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="of the text encoder alone; auto: as device; cpu: its gigabytes stay off the GPU"
    )
    dtype: Literal["float32", "bfloat16", "auto"] = Field(
        default="float32", description="numbers the models compute in; auto: bfloat16 where it is much faster"
    )
    threads: OptionalCount = Field(default=None, description="torch threads of a call; none: by model size")
    workers: OptionalCount = Field(
        default=None, description="calls at a time on a CPU; none: locally by the model's size, on a Triton two"
    )
    compile: Literal["auto", "on", "off"] = Field(
        default="auto", description="torch's compiler; auto: where it works; on: an error where it does not"
    )
    cuda_graphs: Literal["auto", "on", "off"] = Field(
        default="auto", description="experts as CUDA graphs, one launch a forward; auto: on a GPU"
    )
    max_cached_texts: Positive = Field(default=64, description="instructions whose keys and values are kept")


class TritonSettings(_Section):
    urls: Endpoints = Field(default=("127.0.0.1:18001",), description="gRPC endpoints of running Tritons, one a GPU")
    repository: Path = Field(
        default=Path(__file__).parents[3] / "model_repository",
        description="Triton's model repository, for the embedded server; it is in the source tree",
    )
    canary_s: Seconds = Field(default=1.0, description="how often every model is asked whether it works")
    hang_s: Seconds = Field(default=60.0, description="a model that answers nothing for so long is started again")
    load_s: Seconds = Field(default=600.0, description="longest that loading a model may take")
    max_repairs: Positive = Field(default=3, description="failed repairs in a row until the server is started again")
    shm_bytes: Positive = Field(default=4 * 1024 * 1024, description="shared memory of a model's calls at its start")


class HttpSettings(_Section):
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: Port = Field(default=8000, description="0: any free port")


class GrpcSettings(_Section):
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: Port = Field(default=8001, description="0: any free port")


class LimitSettings(_Section):
    max_body_bytes: Positive = Field(default=32 * 1024 * 1024, description="largest request, both edges")
    max_image_bytes: Positive = Field(default=16 * 1024 * 1024, description="largest image as it travels")
    max_image_pixels: Positive = Field(default=8_388_608, description="largest image, judged before it is decoded")
    max_concurrent_plans: Positive = Field(default=16, description="plans under way at a time; more are refused")
    repair_s: Seconds = Field(default=60.0, description="how long plans under way wait for models that are repaired")
    drain_s: Seconds = Field(default=30.0, description="how long plans under way are waited for when stopping")


class PlannerSettings(_Section):
    slice_size: Positive = Field(
        default=8, description="video samples of a plan that travel together at most; slow models get fewer"
    )
    slices_in_flight: Positive = Field(default=2, description="slices one plan has under way")


class BatcherSettings(_Section):
    max_rows: Positive = Field(default=16, description="batch rows of one backend call")
    ready: Annotated[int, Field(ge=0)] = Field(
        default=1, description="calls handed to a busy backend, so that it finds the next one"
    )
    slice_s: Seconds = Field(
        default=0.2, description="how long a call and those ready behind it may take: what an urgent plan waits for"
    )
    arena_retry_s: Seconds = Field(default=0.05, description="how soon a full arena is tried again")


class ArenaSettings(_Section):
    num_slots: Positive = Field(default=32, description="video samples whose features are kept at a time")
    lease_s: Seconds = Field(default=60.0, description="after this an unread slot is taken back")
    prefix: Name = Field(
        default="wavserve", description="of the arena's file in /dev/shm, where Triton runs the models"
    )


class SessionSettings(_Section):
    ttl_s: Seconds = Field(default=600.0, description="a session unused for longer is forgotten")
    max_sessions: Positive = Field(default=256, description="sessions kept; those of a single plan go first")


class RecordSettings(_Section):
    folder: OptionalPath = Field(default=None, description="where requests are kept for replay; none: nowhere")


class LogSettings(_Section):
    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="least severe line written")
    format: Literal["text", "json"] = Field(default="text", description="json: one object a line")


class Settings(_Section):
    """The tree. Keys are dotted: `http.port`."""

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
    log: LogSettings = LogSettings()
