"""The policy by itself, in LeRobot's environment, against the service at the address in the first argument.

`test_lerobot` runs this program. It ends with an AssertionError where something is not so.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import torch
from fake_scene import CAMERAS, STATE, TASK, pictures
from lerobot.policies.rtc.configuration_rtc import RTCConfig

from lerobot_policy_wavserve.configuration_wavserve import WavserveConfig
from lerobot_policy_wavserve.modeling_wavserve import WavservePolicy
from wavserve.core.errors import ContractMismatch, InvalidRequest, NotReady, Unsupported

ADDRESS = sys.argv[1]


def policy(**changes: Any) -> WavservePolicy:
    fields = {"address": ADDRESS, "allow_untrained": True, "device": "cpu", "seed": 7, "planner": {"num_iterations": 0}}
    return WavservePolicy(WavserveConfig(**(fields | changes)))


def batch(step: int = 0, num_environments: int = 2) -> dict[str, Any]:
    seen = [pictures(index, step) for index in range(num_environments)]
    stacked = {name: torch.stack([torch.from_numpy(each[name]).permute(2, 0, 1) for each in seen]) for name in CAMERAS}
    return {
        "observation.state": torch.from_numpy(STATE).repeat(num_environments, 1),
        "task": [TASK] * num_environments,
        **{f"observation.images.{name}": stacked[name].float() / 255 for name in CAMERAS},
    }


def refusal(kind: type[Exception], call: Callable[[], object]) -> str:
    """The message of the error that the call raises."""
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError(f"expected a {kind.__name__}")


def check_steps_and_resets() -> None:
    acting, whole = policy(n_action_steps=3), policy()
    chunk = whole.predict_action_chunk(batch())
    assert chunk.shape == (2, 16, 7)
    actions = torch.stack([acting.select_action(batch(step)) for step in range(4)], dim=1)
    assert torch.allclose(actions[:, :3], chunk[:, :3], atol=1e-4)
    assert not torch.allclose(actions[:, 3], chunk[:, 3], atol=1e-4)
    assert "batch: expected 2 environments" in refusal(InvalidRequest, lambda: whole.select_action(batch(1, 1)))
    whole.reset()
    assert whole.select_action(batch(0, 1)).shape == (1, 7)
    acting.close()
    whole.close()


def check_tasks_in_parallel() -> None:
    shared, errors = policy(), []
    shared.select_action(batch())
    other = threading.Thread(
        target=lambda: errors.append(refusal(InvalidRequest, lambda: shared.select_action(batch())))
    )
    other.start()
    other.join()
    assert "env.max_parallel_tasks: expected 1" in errors[0]
    shared.close()


def check_real_time_chunking() -> None:
    for rtc in (RTCConfig(execution_horizon=8), None, RTCConfig(enabled=False)):
        acting = policy(rtc_config=rtc)
        first = acting.predict_action_chunk(batch(num_environments=1))
        left = torch.cat([first[0, 5:], torch.zeros(5, 7)])
        second = acting.predict_action_chunk(batch(5, num_environments=1), inference_delay=2, prev_chunk_left_over=left)
        assert torch.equal(second[0, :2], first[0, 5:7]) == (rtc is not None and rtc.enabled)
        acting.close()
    assert acting.supports_rtc()


def check_refusals() -> None:
    assert "untrained" in refusal(ContractMismatch, lambda: policy(allow_untrained=False).select_action(batch()))
    assert "n_action_steps" in refusal(ContractMismatch, lambda: policy(n_action_steps=17).select_action(batch()))
    named = policy(camera_map={"observation.images.agentview": "top", "observation.images.wrist": "wrist"})
    assert "['agentview', 'wrist'], got ['top', 'wrist']" in refusal(
        ContractMismatch, lambda: named.select_action(batch())
    )
    refusal(NotReady, lambda: policy(address="127.0.0.1:1").select_action(batch()))
    for field, value in [("transport", "pigeon"), ("address", "http://127.0.0.1:1"), ("n_action_steps", 0)]:
        assert field in refusal(InvalidRequest, lambda field=field, value=value: policy(**{field: value}))
    refusal(Unsupported, lambda: policy().forward(batch()))


check_steps_and_resets()
check_tasks_in_parallel()
check_real_time_chunking()
check_refusals()
sys.stdout.write("all as it should be\n")
