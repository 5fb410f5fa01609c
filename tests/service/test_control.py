"""A robot's stream to the real service, and how it ends when the service stops."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx

from tests.service.rig import SECONDS, Server, observation, start
from wavserve.clients.plan_client import PlanClient
from wavserve.core.control import ClientMessage, ControlObservation, GoAway, Hello, Ping, Pong, Welcome
from wavserve.core.messages import ActionChunk
from wavserve.pb.wavserve_pb2_grpc import PlanServiceStub
from wavserve.wire.control import client_message
from wavserve.wire.control_answers import server_message_from

OPTIONS = {"num_iterations": 1, "num_video_samples": 4, "num_value_samples": 4}


class Robot:
    """A robot's stream with what the service's policy declares."""

    def __init__(self, server: Server, robot_id: str) -> None:
        with PlanClient(server.grpc) as client:
            info = client.policy()
        self._to_send: queue.Queue[ClientMessage] = queue.Queue()
        self._channel = grpc.insecure_channel(server.grpc)
        self.call: Any = PlanServiceStub(self._channel).Control(self._sent())
        self.send(
            Hello(
                robot_id=robot_id,
                embodiment=info.embodiment,
                policy=info.name,
                policy_digest=info.digest,
                state=info.state,
                action=info.action,
                control_hz=info.control_hz,
                cameras=info.cameras,
                instruction=observation().instruction,
            )
        )

    def send(self, message: ClientMessage) -> None:
        self._to_send.put(message)

    def receive(self) -> Any:
        return server_message_from(next(self.call))

    def close(self) -> None:
        self.call.cancel()
        self._channel.close()

    def _sent(self) -> Iterator[Any]:
        while True:
            yield client_message(self._to_send.get())


def seen(sequence: int, epoch: int, **changes: Any) -> ControlObservation:
    """The observation of one of the example's frames."""
    plain = observation(sequence)
    fields = {"images": plain.images, "state": plain.state, "seed": 7, "options": OPTIONS, **changes}
    return ControlObservation(instruction="", sequence=sequence, epoch=epoch, **fields)


def test_a_robot_drives_on_a_stream(server: Server) -> None:
    robot = Robot(server, "arm")
    welcome = robot.receive()
    assert isinstance(welcome, Welcome)
    for sequence in range(3):
        robot.send(seen(sequence, welcome.epoch))
        chunk = robot.receive()
        assert isinstance(chunk, ActionChunk)
        assert (chunk.sequence, chunk.epoch, chunk.fresh_memory) == (sequence, 1, sequence == 0)
    robot.close()


def test_a_signal_answers_what_runs_and_sends_robots_away(tmp_path: Path, server: Server) -> None:
    running = start(tmp_path, server.backend, "--bundle", str(server.bundle), "--set", "limits.drain_s=300")
    robot = Robot(running, "arm")
    welcome = robot.receive()
    robot.send(seen(0, welcome.epoch, options=SECONDS))
    while "wavserve_plans_in_flight 1.0" not in httpx.get(f"{running.http}/metrics").text:
        robot.send(Ping(1))
        assert isinstance(robot.receive(), Pong)  # and no answer yet
    stopping = threading.Thread(target=running.stop)
    stopping.start()
    received = [robot.receive() for _ in range(2)]
    assert {type(each) for each in received} == {GoAway, ActionChunk}
    assert next(robot.call, None) is None
    assert robot.call.code() is grpc.StatusCode.OK
    stopping.join()
    robot.close()
