"""The forms of openpi's observations, over a real websocket: what reaches the policy, and what is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.edge.fakes import CHUNK, INSTRUCTION
from tests.edge.served import Served
from tests.edge.websocket.clients import EXECUTED_STEPS, PICTURES, SENT, STATE, Client, aloha, droid, libero, wav
from tests.edge.websocket.policies import WholeChunks


@pytest.mark.parametrize("observation", SENT.values(), ids=SENT)
def test_the_policy_gets_what_the_client_sent(
    observation: Callable[..., dict[str, Any]], openpi: Client, served: Served
) -> None:
    reply = openpi.infer(observation())
    [request] = served.policy.requests
    for camera, picture in PICTURES.items():
        np.testing.assert_array_equal(request.images[camera], picture)
    np.testing.assert_array_equal(request.state, STATE.astype(np.float32))
    assert request.instruction == INSTRUCTION
    assert reply["actions"].dtype == np.float32


@pytest.mark.parametrize("observation", [aloha, libero, droid])
def test_both_orders_of_channels_are_read(
    observation: Callable[..., dict[str, Any]], openpi: Client, served: Served
) -> None:
    if observation is aloha:
        other = aloha(images={"cam_high": PICTURES["agentview"], "cam_left_wrist": PICTURES["wrist"]})
    else:
        other = {
            key: np.ascontiguousarray(value.transpose(2, 0, 1)) if np.ndim(value) == 3 else value
            for key, value in observation().items()
        }
    openpi.infer(other)
    [request] = served.policy.requests
    for camera, picture in PICTURES.items():
        np.testing.assert_array_equal(request.images[camera], picture)


def test_a_connection_is_a_session_that_counts_the_executed_steps(openpi: Client, served: Served) -> None:
    for _ in range(3):
        openpi.infer(libero())
    found = [
        (each.session_id, each.sequence, each.control_step, each.executed_steps) for each in served.policy.requests
    ]
    assert found == [
        (None, 0, 0, EXECUTED_STEPS),
        ("session-1", 1, EXECUTED_STEPS, EXECUTED_STEPS),
        ("session-1", 2, 2 * EXECUTED_STEPS, EXECUTED_STEPS),
    ]


def test_a_wav_client_says_how_many_steps_it_executed_and_gets_as_many(openpi: Client, served: Served) -> None:
    replies = [openpi.infer(wav(execution_step=steps)) for steps in (CHUNK, 4, 3)]
    assert [len(reply["actions"]) for reply in replies] == [CHUNK, 4, 3]
    assert [each.executed_steps for each in served.policy.requests] == [CHUNK, 4, 3]
    lonely = {key: value for key, value in wav().items() if key != "execution_step"}
    assert len(openpi.infer(lonely)["actions"]) == 1  # as in the authors' server


def test_a_wav_client_executes_no_more_than_it_got(openpi: Client, served: Served) -> None:
    openpi.infer(wav(execution_step=4))
    assert "execution_step: expected at most 4, the actions of the last answer" in openpi.infer(wav(execution_step=5))
    assert len(served.policy.requests) == 1


def test_a_wav_client_may_take_more_actions_after_a_reset(openpi: Client) -> None:
    openpi.infer(wav(execution_step=4))
    assert len(openpi.infer(wav(execution_step=5, prompt=f"<reset>{INSTRUCTION}"))["actions"]) == 5


def test_a_wav_client_resets_by_its_prompt(openpi: Client, served: Served) -> None:
    openpi.infer(wav())
    openpi.infer(wav(prompt=f"<reset>{INSTRUCTION}"))
    assert served.policy.resets == ["session-1"]
    assert [each.instruction for each in served.policy.requests] == [INSTRUCTION] * 2


def test_a_session_that_expired_begins_anew(openpi: Client, served: Served) -> None:
    openpi.infer(libero())
    assert isinstance(served.policy, WholeChunks)
    served.policy.forgotten.add("session-1")
    openpi.infer(libero())
    openpi.infer(libero())
    assert [each.session_id for each in served.policy.requests] == [None, None, "session-2"]


def without(key: str, **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in libero(**changes).items() if name != key}


GOOD = PICTURES["agentview"]
BAD: dict[str, tuple[Any, str]] = {
    "nothing": ({}, "observation: expected a map"),
    "a list": ([1], "observation: expected a map"),
    "unknown keys": ({"image": GOOD}, "observation: expected the keys of ALOHA"),
    "an unknown key": (libero(seed=1), "seed: expected one of observation/image"),
    "an unknown key of ALOHA": (aloha(seed=1), "seed: expected only images, state, prompt"),
    "an unknown key of WAV": (wav(seed=1), "seed: expected only obs, state"),
    "an unknown camera": (aloha(images={"cam_x": GOOD}), "images.cam_x: expected one of cam_high"),
    "no camera": (without("observation/wrist_image"), "images.wrist: expected one image of each camera"),
    "images as a list": (aloha(images=[GOOD]), "images: expected a map"),
    "no state": (without("observation/state", **{"observation/joint_position": STATE}), "observation/"),
    "no state of ALOHA": ({"images": aloha()["images"]}, "state: expected numbers"),
    "a short state": (libero(**{"observation/state": STATE[:3]}), "state: expected 8 numbers, got 3"),
    "a matrix as state": (libero(**{"observation/state": STATE.reshape(2, 4)}), "observation/state: expected an array"),
    "pixels as state": (
        libero(**{"observation/state": np.zeros(8, np.uint8)}),
        "observation/state: expected numbers that are no pixels",
    ),
    "a gripper that is a joint": (
        droid(**{"observation/joint_position": STATE[:-2], "observation/gripper_position": STATE[-2:]}),
        "observation/gripper_position: expected one number",
    ),
    "a reset of LIBERO": (
        libero(prompt=f"<reset>{INSTRUCTION}"),
        "prompt: expected an instruction; only the form with",
    ),
    "a reset of ALOHA": (aloha(prompt=f"<reset>{INSTRUCTION}"), "prompt: expected an instruction; only the form with"),
    "a reset inside a reset": (wav(prompt=f"<re<reset>set>{INSTRUCTION}"), "prompt: expected an instruction; only"),
    "a text as state": (libero(**{"observation/state": "x"}), "observation/state: expected an array"),
    "NaN": (libero(**{"observation/state": STATE * np.nan}), "state[0]: expected a finite float32"),
    "a state beyond float32": (libero(**{"observation/state": STATE * 1e99}), "state[0]: expected a finite float32"),
    "float pixels": (libero(**{"observation/image": GOOD.astype(np.float32)}), "observation/image: expected pixels"),
    "a picture of nine channels": (libero(**{"observation/image": np.zeros((9, 9, 9), np.uint8)}), "observation/image"),
    "a picture that could be both": (
        libero(**{"observation/image": np.zeros((3, 9, 3), np.uint8)}),
        "observation/imag",
    ),
    "a flat picture": (libero(**{"observation/image": np.zeros((9, 9), np.uint8)}), "observation/image: expected one"),
    "a picture of another size": (libero(**{"observation/image": GOOD[:9]}), "images.agentview.data: expected 128 x"),
    "a picture as a list": (libero(**{"observation/image": [[[1, 2, 3]]]}), "observation/image: expected an array"),
    "a prompt of numbers": (libero(prompt=3), "prompt: expected a text"),
    "no prompt": (without("prompt"), "prompt: expected an instruction, or compat.instruction"),
    "a blank prompt": (libero(prompt=" "), "instruction: expected text that is not blank"),
    "a long prompt": (libero(prompt="x" * 65), "instruction: expected at most 64 bytes"),
    "three views": (wav(obs=np.stack([GOOD] * 3)), "obs: expected at most 2 views"),
    "one view": (wav(obs=GOOD[None]), "images.wrist: expected one image"),
    "a view as a picture": (wav(obs=GOOD), "obs: expected an array [views,H,W,3]"),
    "views of three colours that may be three views": (
        wav(obs=np.zeros((3, 3, 128, 128), np.uint8)),
        "obs: expected an array [views,H,W,3]",
    ),
    "views with colours first": (wav(obs=np.zeros((2, 3, 128, 128), np.uint8)), "obs: expected an array [views,H,W,3]"),
    "a view with two axes of colours": (wav(obs=np.zeros((2, 3, 128, 3), np.uint8)), "obs[0]: expected one image"),
    "more steps than the horizon": (wav(execution_step=CHUNK + 1), "execution_step: expected at most 16, the policy's"),
    "no steps": (wav(execution_step=0), "execution_step: expected 1 to 100"),
    "101 steps": (wav(execution_step=101), "execution_step: expected 1 to 100"),
    "half a step": (wav(execution_step=0.5), "execution_step: expected 1 to 100"),
}


@pytest.mark.parametrize(("sent", "reason"), BAD.values(), ids=BAD)
def test_a_bad_observation_is_refused_by_name(sent: Any, reason: str, openpi: Client, served: Served) -> None:
    text = openpi.infer(sent)
    assert isinstance(text, str)
    assert reason in text
    assert "Traceback" not in text
    assert not served.policy.requests
