"""What the models can be asked: the verb and signature table, and the outcome of one group in a call.

Used on both sides of the backend seam: the batcher's answers, the runners, the fake, and the tests of Triton's configs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from wavserve.core.errors import ArenaFull, BackendError, Cancelled, StaleHandle, TextMiss


class Status(IntEnum):
    """Outcome of one group in a call (output `status [G]` int32); one group's failure is never its neighbours'."""

    OK = 0
    ARENA_FULL = 1
    STALE_HANDLE = 2
    TEXT_MISS = 3
    CANCELLED = 4


def error_of(status: int) -> BackendError | Cancelled | None:
    """The typed error of a group's status; None when it is OK."""
    match Status(status):
        case Status.OK:
            return None
        case Status.ARENA_FULL:
            return ArenaFull("the feature arena has no room for this slice")
        case Status.STALE_HANDLE:
            return StaleHandle("the features behind a handle are gone")
        case Status.TEXT_MISS:
            return TextMiss("the instruction's keys and values are not cached")
        case Status.CANCELLED:
            return Cancelled("the call was cancelled")


@dataclass(frozen=True, slots=True)
class Verb:
    """Something a model can be asked to do. Tensors have a leading group axis G; shapes below follow it."""

    model: str
    inputs: dict[str, tuple[str, str]]
    """name -> (dtype, shape in the legend's letters)"""
    optional: dict[str, tuple[str, str]]
    outputs: dict[str, tuple[str, str]]
    params: tuple[str, ...] = ()
    """int32 scalars `[G, 1]` that all groups of a call share"""
    joined: bool = True
    """whether groups of different plans may share a call"""
    interned: tuple[str, ...] = ()
    """inputs that may cross a wire as `NAME_key [G, 16]` alone once the model has seen them; see `interning`"""


_IMAGINE = {
    "memory": ("float32", "V C P H W"),
    "mean": ("float32", "VorOne C Fgen H W"),
    "std": ("float32", "VorOne C Fgen H W"),
    "text_key": ("uint8", "32"),
    "noise_key": ("int64", "2"),
}
_PLAN_WIDE = ("memory", "mean", "std")  # of the plan, or of an iteration, and not of a slice
_IMAGINE_OPTIONAL = {"embedding": ("float32", "prompt Ctext"), "noise": ("float32", "N V C Fgen H W")}
_VALUE_NOISE = {
    "mean": ("float32", "T Cvalue"),
    "std": ("float32", "T Cvalue"),
    "noise_key": ("int64", "2"),
    "noise_name": ("int64", "N M 2"),
}
_STATUS = {"status": ("int32", "")}

VERBS: dict[str, Verb] = {
    "encode_images": Verb(
        "encoder", {"pixels": ("uint8", "V height width 3")}, {}, {"latents": ("float32", "V C H W")}
    ),
    "encode_text": Verb(  # alone: a prompt that is too long is refused as a whole call, once per instruction
        "encoder", {"text": ("uint8", "bytes")}, {}, {"embedding": ("float32", "prompt Ctext")}, joined=False
    ),
    "decode_video": Verb(
        "encoder", {"latents": ("float32", "V C Fgen H W")}, {}, {"frames": ("uint8", "V frames height width 3")}
    ),
    "imagine": Verb(
        "video_dit",
        {**_IMAGINE, "noise_name": ("int64", "N 2")},
        _IMAGINE_OPTIONAL,
        {"handles": ("int64", "N 2"), **_STATUS},
        ("video_steps",),
        interned=_PLAN_WIDE,
    ),
    "denoise": Verb(
        "video_dit",
        {**_IMAGINE, "noise_name": ("int64", "N 2")},
        _IMAGINE_OPTIONAL,
        {"latents": ("float32", "N V C Fgen H W"), **_STATUS},
        ("flow_steps",),
        interned=_PLAN_WIDE,
    ),
    "score": Verb(
        "value_dit",
        {"handles": ("int64", "N 2"), **_VALUE_NOISE},
        {"noise": ("float32", "N M T Cvalue")},
        {"values": ("float32", "N M T"), **_STATUS},
        ("flow_steps", "release"),
    ),
    "appraise": Verb(
        "value_dit",
        {"handles": ("int64", "N 2"), **_VALUE_NOISE},
        {"noise": ("float32", "N M T Cvalue")},
        _STATUS,
    ),
    "release": Verb("video_dit", {"handles": ("int64", "N 2")}, {}, _STATUS),
    "decode": Verb(
        "action_dit",
        {
            "handles": ("int64", "N 2"),
            "history": ("float32", "Caction"),
            "noise_key": ("int64", "2"),
            "noise_name": ("int64", "2"),
        },
        {"noise": ("float32", "T Caction")},
        {"actions": ("float32", "T Caction"), **_STATUS},
        ("flow_steps",),
    ),
}
"""The signature table. `score` and `decode` release the slots they read (`score` when `release` is 1); `appraise` runs
the value expert once at the noisiest timestep and leaves its features in the slot for `decode`. `release` is for slots
that nobody will read; the arena's owner takes it, for with the owner the slots are gone anyway. `noise_name` is
`(iteration, sample)`; `noise`, where given, stands instead of the named draw (parity tests)."""

MODELS = tuple(dict.fromkeys(verb.model for verb in VERBS.values()))
"""The hosted models, each with a runner of its own."""

DESCRIBE = "describe"
"""What every hosted model answers besides its verbs: who it is and that it works, as JSON bytes `ABOUT`."""
ABOUT = "about"
