"""Made-up runs: asks, answers and journals with whatever a test wants to be wrong about them."""

from __future__ import annotations

from typing import Any

from loadtest.robots.answers import Reply
from loadtest.robots.journal import Ask, Journal, Scrape, Span, Timed

LONE_S, CAPACITY = 0.4, 2.0
OVERLOAD = (100.0, 220.0)


def reply(**changes: Any) -> Reply:
    """A consistent answer to `observation()`."""
    fields: dict[str, Any] = {
        "session_id": "s",
        "sequence": 0,
        "first_control_step": 0,
        "num_steps": 16,
        "chunk_id": "c",
        "served_s": 0.39,
        "receipt_sequence": 0,
        "deadline": "met",
        "slack_s": 1.0,
        "iterations_done": 3,
        "iterations_asked": 3,
        "stopped": "done",
        "stage_s": {"encode": 0.02, "imagine": 0.1, "score": 0.2, "total": 0.38},
    }
    return Reply(**fields | changes)


def answered(sent: float, seconds: float = LONE_S, **changes: Any) -> Ask:
    """An ask that was answered with actions; its answer has an id of its own."""
    told = {"phase": "overload", "group": "grpc", "robot": "grpc-0", "sequence": 0, "deadline_s": 1.6, **changes}
    ours = told.pop("reply", None) or reply(chunk_id=f"{told['robot']}/{told['sequence']}", served_s=seconds - 0.01)
    return Ask(sent=sent, ended=sent + seconds, outcome="answered", reply=ours, **told)


def ended(outcome: str, sent: float, seconds: float, **changes: Any) -> Ask:
    """An ask that was not."""
    told = {"phase": "overload", "group": "grpc", "robot": "grpc-0", "sequence": 0, "deadline_s": 1.6, **changes}
    return Ask(sent=sent, ended=sent + seconds, outcome=outcome, **told)


def numbered(asks: list[Ask]) -> list[Ask]:
    """The same asks, each made by a robot of its own."""
    from dataclasses import replace

    told = []
    for number, ask in enumerate(asks):
        robot = f"{ask.group}-{number}"
        own = None if ask.reply is None else replace(ask.reply, chunk_id=robot)
        told.append(replace(ask, robot=robot, reply=own))
    return told


def overload_run() -> Journal:
    """A run in which every criterion is met: 2 plans/s of capacity, 6 asks/s for two minutes, a third answered."""
    journal = Journal()
    began, over = OVERLOAD
    journal.spans = [
        Span("capacity", 0.0, 50.0, {"saturating": 8}, measures="capacity"),
        Span("lone", 60.0, 80.0, {"lone": 1}, measures="lone"),
        Span("overload", began, over, {"grpc": 96}, judged=True, offered_per_s=6.0),
        Span("recovery", over, over + 15.0, {"lone": 1}),
    ]
    journal.asks = [answered(i / CAPACITY, 0.5, phase="capacity", deadline_s=None) for i in range(100)]
    journal.asks += [answered(60.0 + i, phase="lone", deadline_s=None) for i in range(20)]
    for i in range(720):
        at = began + i / 6
        journal.asks.append(answered(at, 1.0) if i % 3 == 0 else ended("refused", at, 0.008, retry_after_s=0.5))
    journal.asks += [answered(over + 0.5 + i * 0.5, phase="recovery", deadline_s=None) for i in range(20)]
    journal.asks = numbered(journal.asks)
    seconds = [float(s) for s in range(int(over) + 15)]
    journal.health = [Timed(s, 0.004) for s in seconds]
    journal.lags = [Timed(s, 0.001) for s in seconds]
    journal.memory = [Timed(s, 5e8 + (s % 2) * 1e5) for s in seconds]
    journal.scrapes = [Scrape(s, 2.0, 4.0, {"score": s}, {"score": 3 * s}, {"score": 24 * s}) for s in seconds]
    return journal
