"""Observations as clients of openpi and of the authors' server send them, and a websocket to send them over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from websockets.sync.client import ClientConnection, connect

from tests.edge.fakes import INSTRUCTION, STATE_DIM, example_pixels
from wavserve.edge.compat.tables import CompatConfig, Dialect, Table
from wavserve.edge.websocket.packing import pack, unpack

EXECUTED_STEPS = 5
TABLES: dict[Dialect, Table] = {
    "aloha": {"cam_high": "agentview", "cam_left_wrist": "wrist", "cam_low": "none"},
    "libero": {"observation/image": "agentview", "observation/wrist_image": "wrist"},
    "droid": {"observation/exterior_image_1_left": "agentview", "observation/wrist_image_left": "wrist"},
    "wav": {"0": "agentview", "1": "wrist"},
    "predict": {"front_head": "agentview", "left_hand": "wrist", "right_hand": "none"},
}
CONFIG = CompatConfig(EXECUTED_STEPS, TABLES, allow_untrained=True)
PICTURES = {"agentview": example_pixels(seed=1), "wrist": example_pixels(seed=2)}
STATE = np.linspace(-0.5, 0.5, STATE_DIM)


def aloha(**changes: Any) -> dict[str, Any]:
    """Pixels are [3,H,W]."""
    high, wrist = (np.ascontiguousarray(picture.transpose(2, 0, 1)) for picture in PICTURES.values())
    images = {"cam_high": high, "cam_left_wrist": wrist}
    return {"state": STATE, "images": images, "prompt": INSTRUCTION} | changes


def libero(**changes: Any) -> dict[str, Any]:
    images = {"observation/image": PICTURES["agentview"], "observation/wrist_image": PICTURES["wrist"]}
    return {"observation/state": STATE, **images, "prompt": INSTRUCTION} | changes


def droid(**changes: Any) -> dict[str, Any]:
    images = {
        "observation/exterior_image_1_left": PICTURES["agentview"],
        "observation/wrist_image_left": PICTURES["wrist"],
    }
    state = {"observation/joint_position": STATE[:-1], "observation/gripper_position": STATE[-1:]}
    return {**images, **state, "prompt": INSTRUCTION} | changes


def wav(**changes: Any) -> dict[str, Any]:
    views = np.stack(list(PICTURES.values()))
    return {"obs": views, "state": STATE, "prompt": INSTRUCTION, "execution_step": 4} | changes


SENT = {"aloha": aloha, "libero": libero, "droid": droid, "wav": wav}


class Client:
    """What openpi's client does: it reads the metadata, then sends and reads in turn."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.metadata = unpack(bytes(connection.recv()), "metadata")

    def infer(self, observation: dict[str, Any]) -> Any:
        """The reply; the text of a failure."""
        return self.exchange(pack(observation))

    def exchange(self, message: bytes | str) -> Any:
        self.connection.send(message)
        reply = self.connection.recv(timeout=30)
        return reply if isinstance(reply, str) else unpack(reply, "reply")


@contextmanager
def connected(http: str, path: str = "/", headers: dict[str, str] | None = None) -> Iterator[Client]:
    address = http.replace("http://", "ws://") + path
    with connect(address, compression=None, max_size=None, close_timeout=5, additional_headers=headers) as connection:
        yield Client(connection)
