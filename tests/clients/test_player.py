"""The action player, case by case: where a chunk begins, how it takes over, what is refused, how the robot holds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.clients.chunks import DT_S, chunk_of, line
from wavserve.clients.chunk_order import Refusal
from wavserve.clients.latency import LatencyWindow
from wavserve.clients.player import ActionPlayer
from wavserve.clients.player_config import PlayerConfig
from wavserve.core.errors import InvalidRequest

REPLACE = PlayerConfig(blend="replace")


def player_of(config: PlayerConfig = REPLACE, action_dim: int = 1) -> ActionPlayer:
    player = ActionPlayer(config, action_dim, DT_S)
    player.begin_epoch("s", 1)
    return player


def played(player: ActionPlayer, first: int, num_steps: int) -> list[float]:
    """The first dimension of each command; NaN where there is none."""
    commands = [player.command(step).action for step in range(first, first + num_steps)]
    return [math.nan if action is None else float(action[0]) for action in commands]


def test_the_first_chunk_begins_at_its_first_action_however_late_it_is() -> None:
    player = player_of()
    assert all(math.isnan(command) for command in played(player, 0, 200))
    offer = player.offer(chunk_of(line(5, 1, 10), first_step=0), 200)
    assert (offer.accepted, offer.index) == (True, 0)
    assert played(player, 200, 3) == [5, 6, 7]


def test_a_later_chunk_begins_after_the_actions_that_were_executed_meanwhile() -> None:
    player = player_of()
    player.offer(chunk_of(line(0, 1, 10)), 0)
    played(player, 0, 6)
    assert player.offer(chunk_of(line(100, 1, 10), first_step=2, sequence=1), 6).index == 4
    command = player.command(6)
    assert command.action is not None
    assert (command.action[0], command.index, command.chunk_id) == (104, 4, "1.1")


def test_steps_without_an_action_skip_nothing() -> None:
    """The robot waited: of the steps since the observation it executed two, whatever the clock says."""
    player = player_of()
    player.offer(chunk_of(line(0, 1, 4)), 0)
    played(player, 0, 2)
    first_of_observation = 2
    held = played(player, 2, 6)
    assert held[:2] == [2, 3]
    offer = player.offer(chunk_of(line(50, 1, 20), first_step=first_of_observation, sequence=1), 8)
    assert offer.index == 2
    assert played(player, 8, 1) == [52]


def test_after_a_pause_a_late_chunk_begins_at_its_first_action() -> None:
    """Its steps are over, but the robot has stood still since its observation."""
    player = player_of()
    player.offer(chunk_of(line(0, 1, 2)), 0)
    played(player, 0, 100)
    assert player.offer(chunk_of(line(9, 1, 5), first_step=40, sequence=1), 100).index == 0
    assert played(player, 100, 1) == [9]


def test_a_chunk_that_is_no_longer_valid_is_refused_where_the_robot_moved() -> None:
    player = player_of()
    player.offer(chunk_of(line(0, 1, 30)), 0)
    played(player, 0, 10)
    late = chunk_of(line(0, 1, 30), first_step=5, sequence=1, valid_until_step=10)
    assert player.offer(late, 10).refusal is Refusal.EXPIRED
    assert player.command(10).action == pytest.approx([10])


def refused(chunk_changes: dict[str, Any], actions: Any = None) -> Refusal | None:
    player = player_of()
    player.offer(chunk_of(line(0, 1, 10), sequence=4), 0)
    played(player, 0, 2)
    values = line(0, 1, 10) if actions is None else actions
    return player.offer(chunk_of(values, **({"first_step": 1, "sequence": 5} | chunk_changes)), 2).refusal


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"session_id": "t"}, Refusal.OTHER_SESSION),
        ({"epoch": 0}, Refusal.OTHER_EPOCH),
        ({"epoch": 2}, Refusal.OTHER_EPOCH),
        ({"sequence": 3}, Refusal.OLDER),
        ({"sequence": 4}, Refusal.DUPLICATE),
        ({"sequence": 4, "chunk_id": "other"}, Refusal.OLDER),
        ({"first_step": 3}, Refusal.AHEAD),
        ({"dt_ns": 20_000_000}, Refusal.RATE),
    ],
)
def test_a_chunk_of_another_time_is_refused(changes: dict[str, Any], reason: Refusal | None) -> None:
    assert refused(changes) is reason


def test_actions_that_cannot_be_executed_are_refused() -> None:
    assert refused({}, line(0, 1, 10, action_dim=2)) is Refusal.DIMENSION
    assert refused({}, line(0, 1, 10)[:, 0]) is Refusal.DIMENSION
    assert refused({}, line(math.inf, 0, 10)) is Refusal.NOT_FINITE
    assert refused({}, line(0, 1, 1)) is Refusal.EXPIRED


def test_no_chunk_from_before_a_reset_is_executed() -> None:
    player = player_of(PlayerConfig(blend="replace", stop_steps=0))
    player.offer(chunk_of(line(0, 1, 10)), 0)
    played(player, 0, 3)
    player.begin_epoch("s", 2)
    assert player.offer(chunk_of(line(0, 1, 10), first_step=2, sequence=1), 3).refusal is Refusal.OTHER_EPOCH
    assert played(player, 3, 3) == [2, 2, 2]
    player.offer(chunk_of(line(7, 1, 10), first_step=3, sequence=0, epoch=2), 6)
    assert played(player, 6, 2) == [7, 8]


def test_a_session_that_goes_on_keeps_its_actions_for_the_robot_and_for_real_time_chunking() -> None:
    """Another gateway has taken the session over: an observation of the new epoch continues what is left."""
    player = player_of(PlayerConfig(blend="replace", stop_steps=0))
    player.offer(chunk_of(line(0, 1, 10)), 0)
    played(player, 0, 3)
    player.begin_epoch("s", 2, resumed=True)
    assert player.left_over(3)[:, 0].tolist() == [3, 4, 5, 6, 7, 8, 9]
    assert played(player, 3, 3) == [3, 4, 5]
    assert player.offer(chunk_of(line(0, 1, 10), first_step=4, sequence=1), 6).refusal is Refusal.OTHER_EPOCH
    assert player.offer(chunk_of(line(50, 1, 10), first_step=4, sequence=2, epoch=2), 6).index == 2
    assert played(player, 6, 2) == [52, 53]


def test_a_new_chunk_takes_over_evenly_and_grippers_at_once() -> None:
    player = player_of(PlayerConfig(blend_steps=3, blend_excluded=(1,)), action_dim=2)
    player.offer(chunk_of(line(0, 0, 20, action_dim=2)), 0)
    played(player, 0, 4)
    player.offer(chunk_of(line(8, 0, 20, action_dim=2), first_step=0, sequence=1), 4)
    commands = [player.command(step) for step in range(4, 9)]
    assert [c.action.tolist() for c in commands if c.action is not None] == [[2, 8], [4, 8], [6, 8], [8, 8], [8, 8]]
    assert [c.source for c in commands] == ["blend", "blend", "blend", "chunk", "chunk"]
    assert [c.seam_jump for c in commands] == [8, None, None, None, None]


def test_a_blend_goes_on_from_a_blend() -> None:
    """The third chunk takes over from what the robot would have done, which is not the second chunk."""
    player = player_of(PlayerConfig(blend_steps=3))
    for sequence, value in enumerate((0.0, 8.0, 0.0)):
        player.offer(chunk_of(line(value, 0, 20), first_step=0, sequence=sequence), sequence)
        player.command(sequence)
    second, third = 2.0, 4.0 * 3 / 4
    assert second < third == player.last_command


def test_a_blend_begins_after_the_actions_that_are_continued_bit_for_bit() -> None:
    player = player_of(PlayerConfig(blend_steps=3))
    player.offer(chunk_of(line(0, 0, 20)), 0)
    played(player, 0, 2)
    rows = np.concatenate([line(0, 0, 4), line(8, 0, 16)])
    player.offer(chunk_of(rows, first_step=0, sequence=1), 2)
    commands = [player.command(step) for step in range(2, 8)]
    assert [float(c.action[0]) for c in commands if c.action is not None] == [0, 0, 2, 4, 6, 8]
    assert commands[0].seam_jump == 8


def test_a_chunk_that_continues_all_present_actions_is_played_as_it_is() -> None:
    player = player_of(PlayerConfig(blend_steps=4))
    player.offer(chunk_of(line(0, 1, 6)), 0)
    played(player, 0, 3)
    player.offer(chunk_of(line(0, 1, 12), first_step=0, sequence=1), 3)
    assert played(player, 3, 9) == [3, 4, 5, 6, 7, 8, 9, 10, 11]


def test_an_average_takes_half_of_each_over_the_whole_overlap() -> None:
    player = player_of(PlayerConfig(blend="average"))
    player.offer(chunk_of(line(0, 0, 6)), 0)
    played(player, 0, 2)
    player.offer(chunk_of(line(8, 0, 8), first_step=0, sequence=1), 2)
    assert played(player, 2, 6) == [4, 4, 4, 4, 8, 8]


def test_a_hold_comes_to_rest_and_repeats_the_last_command() -> None:
    player = player_of(PlayerConfig(stop_steps=4, blend_excluded=(1,)), action_dim=2)
    player.offer(chunk_of(line(0, 4, 3, action_dim=2)), 0)
    commands = [player.command(step) for step in range(8)]
    assert [c.source for c in commands] == ["chunk"] * 3 + ["hold"] * 5
    assert [c.action[0] for c in commands if c.action is not None] == [0, 4, 8, 11, 13, 14, 14, 14]
    assert [c.action[1] for c in commands if c.action is not None] == [0, 4, 8, 8, 8, 8, 8, 8]
    assert [c.starved for c in commands] == [False] * 3 + [True] * 5


OFFSETS = PlayerConfig(blend="replace", stop_steps=4, hold=("zero",))


def test_a_hold_of_offsets_comes_to_rest_at_zero() -> None:
    """The robot's way per step falls as it does for positions."""
    player = player_of(OFFSETS)
    assert played(player, 0, 2) == [0, 0]
    player.offer(chunk_of(line(4, 0, 3), first_step=2), 2)
    assert played(player, 2, 9) == [4, 4, 4, 3, 2, 1, 0, 0, 0]


def test_a_hold_of_mixed_commands_repeats_positions_alone() -> None:
    config = PlayerConfig(blend="replace", stop_steps=0, hold=("zero", "last"))
    player = player_of(config, action_dim=2)
    assert player.command(0).action is None
    player.offer(chunk_of(line(4, 1, 2, action_dim=2)), 1)
    commands = [player.command(step).action for step in range(1, 5)]
    assert [each.tolist() for each in commands if each is not None] == [[4, 4], [5, 5], [0, 5], [0, 5]]


def test_an_excluded_offset_stops_at_once() -> None:
    player = player_of(PlayerConfig(stop_steps=4, blend_excluded=(0,), hold=("zero",)))
    player.offer(chunk_of(line(4, 0, 2)), 0)
    assert played(player, 0, 4) == [4, 4, 0, 0]


def test_offsets_rise_from_zero_and_a_new_chunk_takes_over_from_the_stop() -> None:
    player = player_of(PlayerConfig(blend_steps=3, stop_steps=4, hold=("zero",)))
    player.offer(chunk_of(line(4, 0, 4)), 0)
    assert played(player, 0, 6) == [1, 2, 3, 4, 3, 2]
    player.offer(chunk_of(line(4, 0, 9), first_step=4, sequence=1), 6)
    command = player.command(6)
    assert command.seam_jump == 3  # 4, instead of the 1 that comes after the 2
    assert command.action == pytest.approx([1 + (4 - 1) / 4])
    assert played(player, 7, 2) == [0 + 4 / 2, 0 + 3]


def test_a_measured_pose_is_no_offset() -> None:
    player = player_of(PlayerConfig(hold=("zero", "last"), max_step=(1.0, 1.0)), action_dim=2)
    player.hold_from([0.7, 0.7])
    assert player.last_command is not None
    assert player.last_command.tolist() == [0, 0.7]


def test_a_limited_offset_falls_as_fast_as_it_may() -> None:
    player = player_of(PlayerConfig(blend="replace", stop_steps=0, max_step=(2.0,), hold=("zero",)))
    player.offer(chunk_of(line(5, 0, 3)), 0)
    assert played(player, 0, 7) == [2, 4, 5, 3, 1, 0, 0]


def test_a_hold_goes_on_when_a_chunk_is_dropped_before_it_was_played() -> None:
    """Otherwise each such chunk would make the way to rest longer."""
    player = player_of(PlayerConfig(stop_steps=4))
    player.offer(chunk_of(line(0, 4, 3)), 0)
    assert played(player, 0, 4) == [0, 4, 8, 11]
    assert player.offer(chunk_of(line(0, 4, 3), first_step=4, sequence=1), 4).accepted
    player.begin_epoch("another", 1)
    assert played(player, 4, 3) == [13, 14, 14]
    assert player.is_at_rest


def test_every_hold_slows_down_anew() -> None:
    player = player_of(PlayerConfig(blend="replace", stop_steps=2))
    for sequence in (0, 1):
        start = 10 * sequence
        player.offer(chunk_of(line(0, 4, 3), first_step=start, sequence=sequence), start)
        assert played(player, start, 10)[2:6] == [8, 10, 10, 10]


def test_the_open_loop_is_bounded_when_the_next_chunk_is_overdue() -> None:
    player = player_of(PlayerConfig(blend="replace", max_open_loop_steps=5, stop_steps=0))
    player.offer(chunk_of(line(0, 1, 54)), 0)
    player.expect(10)
    player.expect(20)  # the earliest counts
    assert player.remaining(0) == 15
    assert played(player, 0, 18)[-4:] == [14, 14, 14, 14]
    player.offer(chunk_of(line(100, 1, 54), first_step=18, sequence=1), 18)
    assert player.remaining(18) == 54


def test_a_command_keeps_the_limits_and_says_so() -> None:
    config = PlayerConfig(blend="replace", max_step=(2.0,), limits=((-1.0, 3.0),), stop_steps=0)
    player = player_of(config)
    player.hold_from([0.0])
    player.offer(chunk_of(line(10, 0, 10)), 0)
    commands = [player.command(step) for step in range(3)]
    assert [float(c.action[0]) for c in commands if c.action is not None] == [2, 3, 3]
    assert all(c.clamped == (0,) for c in commands)


def test_without_a_pose_a_step_cannot_be_limited() -> None:
    player = player_of(PlayerConfig(max_step=(1.0,)))
    assert player.offer(chunk_of(line(0, 1, 10)), 0).refusal is Refusal.NO_POSE
    assert player.command(0).action is None


def test_a_pose_outside_the_limits_moves_by_no_limit() -> None:
    player = player_of(PlayerConfig(limits=((-1.0, 1.0),)))
    player.hold_from([1.25])
    assert player.command(0).action == pytest.approx([1.25])


def test_a_new_pose_makes_earlier_observations_out_of_date() -> None:
    player = player_of()
    player.offer(chunk_of(line(0, 1, 10)), 0)
    played(player, 0, 3)
    player.hold_from([40.0])
    assert player.offer(chunk_of(line(3, 1, 10), first_step=2, sequence=1), 3).refusal is Refusal.OLDER
    assert played(player, 3, 2) == [40, 40]
    with pytest.raises(InvalidRequest, match="measured: expected 1 finite numbers"):
        player.hold_from([math.nan])


def test_the_next_observation_is_wanted_while_there_is_something_to_blend_with() -> None:
    player = player_of(PlayerConfig(blend_steps=8))
    player.offer(chunk_of(line(0, 1, 54)), 0)
    assert player.wants_next(0, None)
    assert not player.wants_next(0, 6)
    played(player, 0, 40)
    assert player.wants_next(40, 6)
    assert player.left_over(40)[:, 0].tolist() == list(range(40, 54))
    player.begin_epoch("s", 2)
    assert player.executed_steps == 40


def test_steps_count_commands() -> None:
    player = player_of()
    player.command(7)
    with pytest.raises(InvalidRequest, match="step: expected 8"):
        player.command(9)
    player.begin_epoch("s", 2)
    player.command(0)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"blend": "cosine"}, "blend"),
        ({"blend_steps": -1}, "blend_steps"),
        ({"blend_excluded": (1,)}, "blend_excluded"),
        ({"max_step": (0.0,)}, "max_step"),
        ({"max_step": (1.0, 1.0)}, "max_step"),
        ({"limits": ((1.0, 0.0),)}, "limits"),
        ({"action_range": (math.nan,)}, "action_range"),
        ({"hold": ("zero", "last")}, "hold"),
        ({"hold": ("stay",)}, "hold"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{field}: expected"):
        ActionPlayer(PlayerConfig(**changes), 1, DT_S)


def test_the_latency_is_a_percentile_without_the_cold_sample() -> None:
    window = LatencyWindow(max_samples=20)
    assert window.p95_s is None
    window.add(30.0)
    assert window.steps(DT_S) is None
    for latency_ms in range(1, 21):
        window.add(latency_ms / 1e3)
    assert window.p95_s == 0.019
    assert window.steps(0.005) == 4
    for _ in range(20):
        window.add(0.1)
    assert window.p95_s == 0.1
    with pytest.raises(InvalidRequest):
        window.add(math.nan)


def test_skipping_and_blending_make_the_seams_small() -> None:
    """A sine, chunks of 54 steps with noise, a new one every 27 steps, 9 steps of latency."""
    largest = {
        (skip, steps): _largest_step(skip, PlayerConfig(blend_steps=steps))
        for skip, steps in ((False, 0), (True, 0), (True, 8))
    }
    assert largest[True, 8] < 0.75 * largest[True, 0]
    assert largest[True, 0] < largest[False, 0]


def _largest_step(skip: bool, config: PlayerConfig) -> float:
    draw, player = np.random.default_rng(0), player_of(config)
    reference = lambda step: 30.0 * np.sin(step * 0.067)  # noqa: E731
    commands: list[float] = []
    pending: dict[int, Any] = {}
    for step in range(600):
        if step % 27 == 0:
            rows = reference(step + np.arange(54)) + draw.normal(0, 2) * (np.arange(54) > 0)
            sequence = step // 27
            pending[step + (9 if step else 0)] = (
                step if skip else step + 9,
                sequence,
                rows[:, None].astype(np.float32),
            )
        if step in pending:
            first, sequence, rows = pending.pop(step)
            assert player.offer(chunk_of(rows, first_step=first if step else 0, sequence=sequence), step).accepted
        action = player.command(step).action
        assert action is not None
        commands.append(float(action[0]))
    return float(np.abs(np.diff(commands)).max())
