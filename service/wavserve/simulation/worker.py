"""The simulator's side of its process: makes one environment and answers the calls of the parent, in order.

Standard input is the socket to the parent. The process ends as soon as the parent closes it or dies, even in the middle
of a call, and it ends a call that takes too long. Knows no simulator.
"""

from __future__ import annotations

import faulthandler
import os
import queue
import socket
import threading
import traceback
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, BinaryIO

from wavserve.core.errors import SimulationError, WavserveError, error_name
from wavserve.core.remote_errors import facts_of
from wavserve.core.simulation import Environment, OpenEnvironment, PrivilegedEnvironment, Start, Variation
from wavserve.simulation.messages import Message, read, write


def serve(open_environment: OpenEnvironment) -> None:
    """Answers calls until the parent is gone. The first answer says whether the environment could be opened."""
    faulthandler.enable()
    connection = socket.socket(fileno=os.dup(0))
    calls: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection.makefile("rb"), calls), daemon=True).start()
    try:
        environment = open_environment()
    except Exception as error:  # noqa: BLE001  the simulator raises whatever it likes
        write(connection, _failed(error))
        return
    write(connection, Message({}))
    while True:
        call = calls.get()
        faulthandler.dump_traceback_later(call.facts["within_s"], exit=True)
        try:
            answer = _run(environment, call)
        except Exception as error:  # noqa: BLE001
            answer = _failed(error)
        faulthandler.cancel_dump_traceback_later()
        write(connection, answer)


def _receive(stream: BinaryIO, calls: queue.SimpleQueue[Message]) -> None:
    """On a thread of its own, because the simulator may be busy, or stand still, when the parent dies."""
    try:
        while (call := read(stream)) is not None:
            calls.put(call)
    finally:
        os._exit(0)  # the simulator's own clean-up may hang, and nobody needs it


def _failed(error: Exception) -> Message:
    if not isinstance(error, WavserveError):
        traceback.print_exception(error)
        error = SimulationError(f"the simulator failed: {type(error).__name__}: {error}")
    return Message({"error": error_name(type(error)), "message": error.message, **facts_of(error)})


def _run(environment: Environment, call: Message) -> Message:  # noqa: PLR0911  a row for each method
    facts, arrays = call.facts, call.arrays
    match facts["call"]:
        case "tasks":
            return Message({"tasks": [asdict(task) for task in environment.tasks(facts["suite"])]})
        case "reset":
            return Message({"task": asdict(environment.reset(_start(facts["start"])))})
        case "step":
            return Message({"solved": environment.step(arrays["action"])})
        case "images":
            return Message({}, environment.images())
        case "projections":
            return Message({}, environment.projections())
        case "state":
            return Message({}, {"state": environment.state()})
        case "sim_state":
            return Message({}, {"sim_state": environment.sim_state()})
        case "restore":
            environment.restore(arrays["sim_state"])
            return Message({})
        case "versions":
            return Message({"versions": environment.versions()})
        case "layout" if isinstance(environment, PrivilegedEnvironment):
            layout = environment.layout()
            facts = {name: getattr(layout, name) for name in ("relation", "object", "destination", "names")}
            return Message(facts, {"owners": layout.owners, "boxes": layout.boxes})
        case "poses" if isinstance(environment, PrivilegedEnvironment):
            poses = environment.poses()
            return Message({}, {each.name: getattr(poses, each.name) for each in fields(poses)})
    raise SimulationError(f"no such call: {facts['call']}")


def _start(facts: Mapping[str, Any]) -> Start:
    variation = facts["variation"]
    return Start(**{**facts, "variation": None if variation is None else Variation(**variation)})
