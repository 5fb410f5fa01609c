"""The HTTP API of the authors' server: `POST /predict` with raw pixels, and `POST /reset`.

A robot's session has the name that its header `X-Session-Id` gives. A request without the header stands alone, because
two robots may share an address.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

import numpy as np
from starlette.datastructures import Headers

from wavserve.core.errors import InvalidRequest, SequenceConflict, UnsupportedMedia, WavserveError, shown
from wavserve.core.messages import EncodedImage
from wavserve.edge.compat.session import ForeignObservation, ForeignSession
from wavserve.edge.compat.tables import PREDICT_IMAGES, CompatConfig, camera_of
from wavserve.edge.frontend import Arrival, Frontend
from wavserve.edge.http import bounded_json
from wavserve.edge.http.headers import HeaderValue
from wavserve.edge.http.multipart import Part, parse_parts
from wavserve.edge.validate import check_session_id
from wavserve.wire import MAX_STATE_NUMBERS

SESSION_HEADER = "x-session-id"
MAX_NAMED_SESSIONS = 1_024
_SIZES = dict(zip(PREDICT_IMAGES, ((240, 424), (240, 320), (240, 320)), strict=True))
"""Height and width of each image, which the API does not carry."""
_STATE, _JSON, _INSTRUCTION = "state", "json", "instruction"
_PARTS = (*_SIZES, _STATE, _JSON)
_NUMBER = np.dtype("<f4")


class AuthorsApi:
    """Plans for the clients of the authors' server."""

    def __init__(self, frontend: Frontend, config: CompatConfig) -> None:
        self._frontend = frontend
        self._config = config
        self._sessions: OrderedDict[str, ForeignSession] = OrderedDict()  # the least recently used is the first
        self._busy: set[ForeignSession] = set()
        self._ending: set[asyncio.Task[None]] = set()

    async def predict(self, headers: Headers, media: HeaderValue, body: bytes, arrival: Arrival) -> bytes:
        """The whole chunk as float32, little-endian, row by row. Raises any child of WavserveError."""
        name = _name(headers)
        sent = await self._frontend.parse(partial(_read, media, self._config), body, arrival)
        with self._session(name) as session:  # a body that is refused opens none, and pushes no other one out
            try:
                chunk = await session.plan(sent, arrival)
            finally:
                if name is None:  # nobody can use it again, and the answer does not wait for its end
                    ending = asyncio.create_task(_end(session))
                    self._ending.add(ending)
                    ending.add_done_callback(self._ending.discard)
        actions: bytes = np.ascontiguousarray(chunk.actions, _NUMBER).tobytes()
        return actions

    async def reset(self, headers: Headers) -> None:
        """Forgets the memory of the session that the header names. Without one there is nothing to forget.

        A plan that is under way in it is not answered.
        """
        name = _name(headers)
        if name is not None and (session := self._sessions.pop(name, None)) is not None:
            await session.end()

    @contextmanager
    def _session(self, name: str | None) -> Iterator[ForeignSession]:
        """The session of a name, for one request at a time."""
        if name is None:
            yield ForeignSession(self._frontend, self._config)
            return
        session = self._sessions.get(name) or ForeignSession(self._frontend, self._config)
        if session in self._busy:
            raise SequenceConflict(SESSION_HEADER, "one request of a session at a time", "another one under way")
        self._busy.add(session)
        self._sessions[name] = session
        self._sessions.move_to_end(name)
        try:
            self._make_room()
            yield session
        finally:
            self._busy.discard(session)

    def _make_room(self) -> None:
        """Drops the session that was used least recently. The policy keeps its memory until it expires."""
        while len(self._sessions) > MAX_NAMED_SESSIONS:
            self._sessions.popitem(last=False)


async def _end(session: ForeignSession) -> None:
    with suppress(WavserveError):  # then it expires
        await session.end()


def _name(headers: Headers) -> str | None:
    names = headers.getlist(SESSION_HEADER)
    if len(names) > 1:
        raise InvalidRequest(SESSION_HEADER, "one such header", len(names))
    if names:
        check_session_id(names[0])
    return names[0] if names else None


def _read(media: HeaderValue, config: CompatConfig, body: bytes) -> ForeignObservation:
    if media.value != "multipart/form-data" or "boundary" not in media.parameters:
        actual = shown(media.value) if media.value else "none"
        raise UnsupportedMedia("content-type", "multipart/form-data with a boundary", actual)
    table = config.table("predict")
    parts: dict[str, Part] = {}
    for part in parse_parts(body, media.parameters["boundary"]):
        if part.name in parts or part.name not in _PARTS:
            raise InvalidRequest("body", f"each of the parts {', '.join(_PARTS)} once", shown(part.name))
        parts[part.name] = part
    for name in _PARTS:
        if name not in parts:
            raise InvalidRequest(name, "a part with this name", "none")
    images = (
        _image(camera, name, parts[name].data)
        for name in _SIZES
        if (camera := camera_of(table, name, name, "predict")) is not None
    )
    return ForeignObservation(
        images=tuple(images), state=_state(parts[_STATE].data), instruction=_instruction(parts[_JSON].data)
    )


def _image(camera: str, name: str, data: bytes) -> EncodedImage:
    height, width = _SIZES[name]
    if len(data) != height * width * 3:
        raise InvalidRequest(name, f"{height * width * 3} bytes ({height} x {width} x 3)", f"{len(data)} bytes")
    return EncodedImage(camera, "raw_rgb8", data, height, width, 3)


def _state(data: bytes) -> tuple[float, ...]:
    if len(data) % _NUMBER.itemsize or len(data) > MAX_STATE_NUMBERS * _NUMBER.itemsize:
        raise InvalidRequest(_STATE, f"{_NUMBER.itemsize} bytes for each number", f"{len(data)} bytes")
    return tuple(np.frombuffer(data, _NUMBER).tolist())


def _instruction(data: bytes) -> str | None:
    tree = bounded_json.parse(data, _JSON)
    if not isinstance(tree, dict) or tree.keys() != {_INSTRUCTION} or not isinstance(tree[_INSTRUCTION], str):
        raise InvalidRequest(_JSON, f'an object {{"{_INSTRUCTION}": a text}}', shown(tree))
    return tree[_INSTRUCTION] or None
