"""The forms of openpi's observations, recognised by their keys, as observations in our types.

ALOHA has a map of images, LIBERO and DROID have keys that begin with `observation/`, and the authors of WAV send their
images as one array [views,H,W,3]. Another image is [H,W,3] or [3,H,W], of uint8. A key that no form has is refused.
Knows no wire.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from wavserve.core.errors import InvalidRequest, UnsupportedMedia, shown
from wavserve.core.messages import EncodedImage
from wavserve.edge.compat.session import RESET, ForeignObservation
from wavserve.edge.compat.tables import GRIPPER_KEY, PROMPT, STATE_KEYS, CompatConfig, Dialect, camera_of
from wavserve.wire import MAX_STATE_NUMBERS

_STATE, _IMAGES, _VIEWS, _STEPS = "state", "images", "obs", "execution_step"
_MAX_WAV_STEPS = 100
_CHANNELS = 3
_MAX_SHOWN_KEYS = 6

Tree = Mapping[str, Any]


def read(tree: object, config: CompatConfig) -> ForeignObservation:
    """The observation of a message. Raises InvalidRequest naming the key; Unsupported for a form without a table."""
    if not isinstance(tree, dict) or not tree:
        raise InvalidRequest("observation", "a map of openpi's keys", shown(tree))
    match _dialect(tree):
        case "aloha":
            return _aloha(tree, config)
        case "wav":
            return _wav(tree, config)
        case dialect:
            return _prefixed(tree, dialect, config)


def _dialect(tree: Tree) -> Dialect:
    if _IMAGES in tree:
        return "aloha"
    if _VIEWS in tree:
        return "wav"
    for dialect, keys in STATE_KEYS.items():
        if keys[0] in tree:
            return dialect
    prefixed = " or ".join(keys[0] for keys in STATE_KEYS.values())
    expected = f"the keys of ALOHA ({_IMAGES}), of LIBERO or DROID ({prefixed}), or of WAV ({_VIEWS})"
    raise InvalidRequest("observation", expected, _keys(tree))


def _aloha(tree: Tree, config: CompatConfig) -> ForeignObservation:
    table = config.table("aloha")
    _only(tree, (_IMAGES, _STATE, PROMPT))
    sent = tree[_IMAGES]
    if not isinstance(sent, dict):
        raise InvalidRequest(_IMAGES, "a map of cameras", shown(sent))
    images = [
        _image(camera, value, f"{_IMAGES}.{name}")
        for name, value in sent.items()
        if (camera := camera_of(table, name, f"{_IMAGES}.{name}", "aloha")) is not None
    ]
    return ForeignObservation(images=tuple(images), state=_state(tree, (_STATE,)), instruction=_prompt(tree))


def _prefixed(tree: Tree, dialect: Dialect, config: CompatConfig) -> ForeignObservation:
    table, states = config.table(dialect), STATE_KEYS[dialect]
    images = [
        _image(camera, value, name)
        for name, value in tree.items()
        if name not in (*states, PROMPT) and (camera := camera_of(table, name, name, dialect)) is not None
    ]
    if GRIPPER_KEY in states and (num := len(_numbers(tree, GRIPPER_KEY))) != 1:
        raise InvalidRequest(GRIPPER_KEY, "one number", f"{num} numbers")  # else it could stand in for a joint
    return ForeignObservation(images=tuple(images), state=_state(tree, states), instruction=_prompt(tree))


def _wav(tree: Tree, config: CompatConfig) -> ForeignObservation:
    table = config.table("wav")
    _only(tree, (_VIEWS, _STATE, PROMPT, _STEPS))
    views = tree[_VIEWS]
    # colours last: of [3,3,H,W] nobody can tell which are the views
    if not isinstance(views, np.ndarray) or views.ndim != 4 or views.shape[-1] != _CHANNELS:
        raise InvalidRequest(_VIEWS, "an array [views,H,W,3] of uint8", _shape(views))
    if len(views) > len(table):
        raise InvalidRequest(_VIEWS, f"at most {len(table)} views, as compat.wav says", f"{len(views)} views")
    images = [
        _image(camera, view, f"{_VIEWS}[{index}]")
        for index, view in enumerate(views)
        if (camera := camera_of(table, str(index), f"{_VIEWS}[{index}]", "wav")) is not None
    ]
    prompt, steps = _prompt(tree), _steps(tree)
    return ForeignObservation(
        images=tuple(images),
        state=_state(tree, (_STATE,)),
        instruction=None if prompt is None else prompt.replace(RESET, ""),
        executed_steps=steps,
        num_actions=steps,
        forget=prompt is not None and RESET in prompt,
    )


def _only(tree: Tree, known: Iterable[str]) -> None:
    if unknown := tree.keys() - set(known):
        name = min(unknown)
        raise InvalidRequest(shown(name)[1:-1], f"only {', '.join(known)} beside each other", "an unknown key")


def _prompt(tree: Tree) -> str | None:
    prompt = tree.get(PROMPT)
    if isinstance(prompt, str | None):
        return prompt or None
    raise InvalidRequest(PROMPT, "a text", shown(prompt))


def _steps(tree: Tree) -> int:
    """Steps since the previous observation, and actions that the client takes. Absent: 1, as in the authors' server."""
    steps = tree.get(_STEPS, 1)
    if not isinstance(steps, int) or isinstance(steps, bool) or not 1 <= steps <= _MAX_WAV_STEPS:
        raise InvalidRequest(_STEPS, f"1 to {_MAX_WAV_STEPS}", shown(steps))
    return steps


def _state(tree: Tree, keys: tuple[str, ...]) -> tuple[float, ...]:
    """The numbers of all keys, one after the other."""
    return tuple(number for key in keys for number in _numbers(tree, key))


def _numbers(tree: Tree, key: str) -> list[float]:
    if key not in tree:
        raise InvalidRequest(key, "numbers", f"no such key beside {_keys(tree)}")
    value = tree[key]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [float(value)]
    if isinstance(value, np.ndarray) and value.dtype == np.uint8:
        raise InvalidRequest(key, "numbers that are no pixels", _shape(value))
    if not isinstance(value, np.ndarray) or value.ndim > 1 or value.size > MAX_STATE_NUMBERS:
        raise InvalidRequest(key, f"an array of one dimension, of at most {MAX_STATE_NUMBERS} numbers", _shape(value))
    return [float(number) for number in np.atleast_1d(value)]


def _image(camera: str, value: object, field: str) -> EncodedImage:
    """A copy of the pixels, row by row."""
    if not isinstance(value, np.ndarray):
        raise InvalidRequest(field, "an array, packed as openpi's client packs it", shown(value))
    if value.dtype != np.uint8:
        raise UnsupportedMedia(field, "pixels of dtype |u1", value.dtype.str)
    if value.ndim != 3 or (value.shape[0] == _CHANNELS) == (value.shape[2] == _CHANNELS):
        raise InvalidRequest(field, "one image [H,W,3] or [3,H,W]", _shape(value))
    rows = value if value.shape[2] == _CHANNELS else value.transpose(1, 2, 0)
    height, width = rows.shape[:2]
    return EncodedImage(camera, "raw_rgb8", rows.tobytes(), height, width, _CHANNELS)


def _shape(value: object) -> str:
    return f"an array {list(value.shape)} of {value.dtype.str}" if isinstance(value, np.ndarray) else shown(value)


def _keys(tree: Tree) -> str:
    return ", ".join(shown(key) for key in list(tree)[:_MAX_SHOWN_KEYS])
