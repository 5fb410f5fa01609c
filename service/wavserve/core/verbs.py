"""The verbs of the models: a table of their signatures, and the outcome of one group in a call.

Both sides of the backend seam share this table, so it knows neither a backend nor a model's code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from wavserve.core.errors import ArenaFull, BackendError, Cancelled, StaleHandle, TextMiss


class GroupStatus(IntEnum):
    """Outcome of one group in a call (output `status [G]` int32). A group's failure does not affect other groups."""

    OK = 0
    ARENA_FULL = 1
    STALE_HANDLE = 2
    TEXT_MISS = 3
    CANCELLED = 4


def error_of(status: int) -> BackendError | Cancelled | None:
    """The typed error of a group's status; None for OK."""
    match GroupStatus(status):
        case GroupStatus.OK:
            return None
        case GroupStatus.ARENA_FULL:
            return ArenaFull("the feature arena has too few free slots for this slice")
        case GroupStatus.STALE_HANDLE:
            return StaleHandle("the features behind a handle no longer exist")
        case GroupStatus.TEXT_MISS:
            return TextMiss("the instruction's keys and values are not cached")
        case GroupStatus.CANCELLED:
            return Cancelled("the call was cancelled")


@dataclass(frozen=True, slots=True)
class Verb:
    """One operation of a model. All tensors have a leading group axis G; the shapes below leave it out."""

    model: str
    inputs: dict[str, tuple[str, str]]
    """name -> (dtype, shape in the legend's letters)"""
    optional: dict[str, tuple[str, str]]
    outputs: dict[str, tuple[str, str]]
    params: tuple[str, ...] = ()
    """int32 inputs `[G, 1]`, equal for all groups of a call"""
    joinable: bool = True
    """whether groups of different plans may share a call"""
    cached: tuple[str, ...] = ()
    """inputs that the model's host keeps; a later call may send only their keys `NAME_key [G, 16]` (`tensor_cache`)"""
    steps_param: str = ""
    """the parameter that counts steps of equal cost"""
    allocates: bool = False
    """whether the output `handles` names arena slots that must be released"""
    frees: Literal["never", "if_asked", "always"] = "never"
    """whether the slots of the input `handles` are free after the call; if_asked: when parameter `release` is 1"""
    computes: bool = True
    """whether the call takes device time"""

    @property
    def takes_handles(self) -> bool:
        """Whether the verb takes handles: it frees their slots, or a later verb does."""
        return "handles" in self.inputs

    def frees_slots(self, params: Mapping[str, int]) -> bool:
        """Whether the slots are free once a call with these parameters has been answered."""
        return self.frees == "always" or (self.frees == "if_asked" and params.get("release") == 1)

    @property
    def fingerprint(self) -> str:
        """A hash of this row of the table. Two versions that differ in it cannot work together."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:12]


_IMAGINE = {
    "memory": ("float32", "V C P H W"),
    "mean": ("float32", "VorOne C Fgen H W"),
    "std": ("float32", "VorOne C Fgen H W"),
    "text_key": ("uint8", "32"),
    "noise_key": ("int64", "2"),
}
_PLAN_WIDE = ("memory", "mean", "std")  # the same for all slices of an iteration
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
    "encode_text": Verb(  # not joined: one prompt that is too long would fail the call for every group
        "encoder", {"text": ("uint8", "bytes")}, {}, {"embedding": ("float32", "prompt Ctext")}, joinable=False
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
        cached=_PLAN_WIDE,
        steps_param="video_steps",
        allocates=True,
    ),
    "denoise": Verb(
        "video_dit",
        {**_IMAGINE, "noise_name": ("int64", "N 2")},
        _IMAGINE_OPTIONAL,
        {"latents": ("float32", "N V C Fgen H W"), **_STATUS},
        ("flow_steps",),
        cached=_PLAN_WIDE,
        steps_param="flow_steps",
    ),
    "score": Verb(
        "value_dit",
        {"handles": ("int64", "N 2"), **_VALUE_NOISE},
        {"noise": ("float32", "N M T Cvalue")},
        {"values": ("float32", "N M T"), **_STATUS},
        ("flow_steps", "release"),
        steps_param="flow_steps",
        frees="if_asked",
    ),
    "value_features": Verb(
        "value_dit",
        {"handles": ("int64", "N 2"), **_VALUE_NOISE},
        {"noise": ("float32", "N M T Cvalue")},
        _STATUS,
    ),
    "release": Verb("video_dit", {"handles": ("int64", "N 2")}, {}, _STATUS, frees="always", computes=False),
    "decode": Verb(
        "action_dit",
        {
            "handles": ("int64", "N 2"),
            "history": ("float32", "Caction"),
            "noise_key": ("int64", "2"),
            "noise_name": ("int64", "2"),
        },
        {
            "noise": ("float32", "T Caction"),
            "left_over": ("float32", "T A"),
            "weights": ("float32", "T"),
            "max_weight": ("float32", "1"),
            "num_frozen": ("int64", "1"),
        },
        {"actions": ("float32", "T Caction"), **_STATUS},
        ("flow_steps",),
        steps_param="flow_steps",
        frees="always",
    ),
}
"""The signature table.

`value_features` runs the value expert once at the noisiest timestep and leaves its features in the slot for `decode`.
`release` frees slots that no later call reads. The arena's owner answers it, because slots do not outlive their owner.
`decode` with `left_over` continues a chunk: by guidance with `weights` and `max_weight`, or with the first `num_frozen`
steps as a clean prefix (`core/rtc`).
`noise_name` is `(iteration, sample)`. `noise`, where given, replaces the named draw (parity tests)."""

MODELS = tuple(dict.fromkeys(verb.model for verb in VERBS.values()))
"""The hosted models, each with a runner of its own."""

ARENA_OWNER = next(verb.model for verb in VERBS.values() if verb.allocates)
"""The model that makes the feature arena and alone allocates slots in it."""

DESCRIBE = "describe"
"""The request that every hosted model answers besides its verbs: its identity and whether it works."""
ABOUT = "about"
"""The output of DESCRIBE and of GOLDEN: JSON bytes, and safetensors bytes."""
GOLDEN = "golden"
"""The request for the golden plan that the policy's bundle has. ARENA_OWNER answers it."""


def fingerprints(model: str) -> dict[str, str]:
    """The fingerprint of each verb of a model. Gateway and model must have the same ones."""
    return {name: verb.fingerprint for name, verb in VERBS.items() if verb.model == model}
