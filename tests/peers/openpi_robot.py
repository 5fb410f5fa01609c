"""A robot's program with the unmodified openpi-client, in an environment of its own, against the service at an address.

`test_openpi` runs this program: ADDRESS DIALECT SCENARIO. It ends with an AssertionError where something is not so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from websockets.exceptions import ConnectionClosed

NUM_STEPS, ACTION_HORIZON = 200, 10
TASK = "pick up the alphabet soup and place it in the basket"
PIPER_STATE = np.array([0.0, 1.5, -1.5, 0.0, 0.0, 0.0, 0.03] * 2)
LIBERO_STATE = np.array([-0.15, 0.0, 0.25, 3.14, 0.0, -0.09, 0.04, -0.04])
DRAW = np.random.default_rng(0)


def picture(*shape: int) -> np.ndarray:
    return DRAW.integers(0, 256, shape, np.uint8)


def aloha() -> dict:
    """As openpi's ALOHA environment: pixels [3,224,224], no prompt."""
    cameras = ("cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist")
    return {"state": PIPER_STATE, "images": {name: picture(3, 224, 224) for name in cameras}}


def libero() -> dict:
    """As openpi's LIBERO example."""
    return {
        "observation/image": picture(224, 224, 3),
        "observation/wrist_image": picture(224, 224, 3),
        "observation/state": LIBERO_STATE,
        "prompt": TASK,
    }


def wav() -> dict:
    """As the authors' websocket server reads it."""
    views = picture(3, 192, 256, 3)
    return {"obs": views, "state": PIPER_STATE.astype(np.float32), "prompt": TASK, "execution_step": ACTION_HORIZON}


DIALECTS: dict[str, tuple[Callable[[], dict], int]] = {"aloha": (aloha, 14), "libero": (libero, 7), "wav": (wav, 14)}


def connect(address: str, api_key: str | None = None) -> WebsocketClientPolicy:
    return WebsocketClientPolicy(address, api_key=api_key)


def broker(address: str, dialect: str) -> None:
    """200 steps with an ActionChunkBroker."""
    observe, action_dim = DIALECTS[dialect]
    policy = connect(address)
    metadata = policy.get_server_metadata()
    assert metadata["untrained"] is True, metadata
    assert metadata["executed_steps"] == ACTION_HORIZON, metadata
    assert len(metadata["action_names"]) == action_dim, metadata
    stepping = ActionChunkBroker(policy, ACTION_HORIZON)
    actions = [stepping.infer(observe())["actions"] for _ in range(NUM_STEPS)]
    assert all(action.shape == (action_dim,) and np.isfinite(action).all() for action in actions)
    assert len(np.unique(np.stack(actions), axis=0)) == NUM_STEPS


def errors(address: str, dialect: str) -> None:
    """A bad observation is a RuntimeError with a reason, and then the connection is closed. A new one works."""
    observe, _ = DIALECTS[dialect]
    policy = connect(address)
    text = refusal(policy, observe() | {"temperature": 0.5})
    assert "invalid-request" in text, text
    assert "Traceback" not in text, text
    assert "ConnectionClosed" in refusal(policy, observe())
    assert connect(address).infer(observe())["actions"].ndim == 2


def api_key(address: str, dialect: str) -> None:
    """A key is accepted, at the other path too."""
    observe, _ = DIALECTS[dialect]
    policy = connect(f"{address}/v1/realtime/robot/openpi", "secret")
    assert policy.infer(observe())["actions"].flags.writeable is False


def restart(address: str, dialect: str) -> None:
    """The service ends and starts again, between two lines of the test."""
    observe, _ = DIALECTS[dialect]
    policy = connect(address)
    policy.infer(observe())
    sys.stdout.write("connected\n")
    sys.stdout.flush()
    assert sys.stdin.readline() == "stopped\n"
    assert "ConnectionClosed" in refusal(policy, observe())
    try:
        connect(address)
    except ConnectionRefusedError:
        sys.stdout.write("refused\n")
    sys.stdout.flush()
    assert sys.stdin.readline() == "started\n"
    assert connect(address).infer(observe())["actions"].ndim == 2


def refusal(policy: WebsocketClientPolicy, observation: dict) -> str:
    """The name and the text of the error."""
    try:
        policy.infer(observation)
    except (RuntimeError, ConnectionClosed) as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError("expected an error")


if __name__ == "__main__":
    {"broker": broker, "errors": errors, "api_key": api_key, "restart": restart}[sys.argv[3]](*sys.argv[1:3])
