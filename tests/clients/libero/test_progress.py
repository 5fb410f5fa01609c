"""What a user reads while an evaluation runs."""

from __future__ import annotations

from tests.clients.libero.examples import record_of
from wavserve.clients.libero.progress import Progress
from wavserve.core.errors import NotReady


def test_the_line_has_success_and_time_left() -> None:
    now, shown, logged = [100.0], list[str](), list[str]()
    progress = Progress((record_of(success=False),), 4, lambda: now[0], shown.append, logged.append)
    progress.tick()
    now[0] = 190.0
    progress.finished(record_of(state_index=1))
    progress.tick()
    assert shown == [
        "1/4 episodes, success 0.0%, unknown time left",
        "2/4 episodes, success 50.0%, 3 min 0 s left",
    ]
    assert logged == [f"{shown[1]}: off fake_reach task 0 state 1: success, 12 steps"]


def test_hours_are_told_and_an_end_leaves_none() -> None:
    now, shown = [0.0], list[str]()
    progress = Progress((), 101, lambda: now[0], shown.append, lambda line: None)
    now[0] = 75.0
    progress.finished(record_of())
    progress.tick()
    assert shown == ["1/101 episodes, success 100.0%, 2 h 5 min left"]


def test_an_episode_that_begins_anew_says_why_until_one_is_on_record() -> None:
    shown = list[str]()
    progress = Progress((), 2, lambda: 0.0, shown.append, lambda line: None)
    progress.waiting(NotReady("no service answers"), 5.0)
    progress.tick()
    progress.finished(record_of())
    progress.tick()
    assert shown[0].endswith("; an episode begins anew in 5 s: no service answers")
    assert shown[1] == "1/2 episodes, success 100.0%, 0 min 0 s left"
