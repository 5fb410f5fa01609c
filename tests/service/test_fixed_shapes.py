"""A plan of fixed shapes has the same numbers alone and under load, bit for bit, through the real service."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from tests.service.rig import observation, start
from wavserve.bundle.bundle import Bundle
from wavserve.clients.plan_client import PlanClient
from wavserve.core.messages import Observation
from wavserve.core.types import Array

OPTIONS = {"num_iterations": 2, "num_video_samples": 6, "num_value_samples": 3}
FIXED = OPTIONS | {"fixed_shapes": True}
NUM_LOADING = 3


def test_a_plan_has_the_same_numbers_alone_and_under_load(tmp_path: Path, tiny: Bundle) -> None:
    service = start(tmp_path, "local", "--bundle", str(tiny.folder))
    try:
        sent = [observation(frame, options=FIXED) for frame in (0, 3)]
        with PlanClient(service.grpc) as robot:
            alone = [robot.plan(each) for each in sent]
            assert alone[0].receipt.config.fixed_shapes
        loaded = under_load(service.grpc, sent)
        for before, several in zip(alone, loaded, strict=True):
            for actions in several:
                assert actions.tobytes() == before.actions.tobytes()
    finally:
        assert service.stop() == 0


def under_load(target: str, sent: list[Observation]) -> list[list[Array]]:
    """The actions of each observation, planned three times while other robots plan without a pause."""
    done = threading.Event()
    num_beside = [0] * NUM_LOADING

    def load(i: int) -> None:
        with PlanClient(target) as robot:
            while not done.is_set():
                robot.plan(observation(i, options=FIXED if i % 2 else OPTIONS, seed=i))
                num_beside[i] += 1

    threads = [threading.Thread(target=load, args=(i,)) for i in range(NUM_LOADING)]
    for thread in threads:
        thread.start()
    try:
        with PlanClient(target) as robot:
            actions = [[robot.plan(each).actions for _ in range(3)] for each in sent]
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert min(num_beside) > 0
    return [[np.asarray(each) for each in several] for several in actions]
