"""The arena across real processes: what each one sees, what each one may remove, and what a killed process leaves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from wavserve.core.errors import ArenaFull, BackendError, SettingsError
from wavserve.models.arena import slabs
from wavserve.models.arena.arena import SlotShape
from wavserve.models.arena.book import ArenaRole
from wavserve.models.arena.shared import ArenaConfig, AttachedArenas, SharedArena
from wavserve.system.processes import owned_name

pytestmark = pytest.mark.skipif(not slabs.SHM.is_dir(), reason="there is no /dev/shm")

SHAPE = SlotShape(num_layers=2, video_tokens=3, video_width=4, value_tokens=5, value_width=6)
PREFIX = owned_name("wavserve-test")
READER = """
import sys, time
import numpy as np, torch
from wavserve.models.arena.arena import SlotShape
from wavserve.models.arena.book import ArenaRole
from wavserve.models.arena.shared import ArenaConfig, AttachedArenas
config = ArenaConfig(sys.argv[1], SlotShape(2, 3, 4, 5, 6), 4, 60.0, torch.float32, torch.device("cpu"))
handles = np.array(eval(sys.argv[2]))
arena = AttachedArenas(config).of(handles)
with arena.book.pin(handles, ArenaRole[sys.argv[3]]):
    print(arena.book.current(handles), arena.read_video(1, handles[:, 0]).sum().item(), flush=True)
    arena.write_value(0, handles[:, 0], torch.full((len(handles), 5, 6), 2.0))
    sys.stdin.readline()
"""


def config(**changes: object) -> ArenaConfig:
    fields = {"prefix": PREFIX, "shape": SHAPE, "num_slots": 4, "lease_s": 60.0}
    return ArenaConfig(**{**fields, "dtype": torch.float32, "device": torch.device("cpu"), **changes})  # type: ignore[arg-type]


@pytest.fixture
def arena() -> Iterator[SharedArena]:
    owner = SharedArena.create(config())
    yield owner
    owner.close()


def reader(handles: np.ndarray, role: str = "VALUE") -> subprocess.Popen[str]:
    """A process that pins the slots, prints what it reads, writes value features, and exits after a line of input."""
    command = [sys.executable, "-c", READER, PREFIX, repr(handles.tolist()), role]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def filled(arena: SharedArena, count: int) -> np.ndarray:
    handles = arena.book.allocate(count)
    arena.write_video(1, handles[:, 0], torch.ones(count, 3, 4))
    arena.book.publish(handles)
    return handles


def test_a_reader_in_another_process_shares_bytes_and_book(arena: SharedArena) -> None:
    handles = filled(arena, 2)
    with reader(handles) as process:
        assert process.stdout is not None
        assert process.stdout.readline().split() == ["True", "24.0"]
        process.communicate("\n")
    assert arena.read_value(0, handles[:, 0]).sum().item() == 2.0 * 2 * 5 * 6


def test_the_pin_of_a_living_reader_holds_and_that_of_a_dead_one_does_not(arena: SharedArena) -> None:
    handles = filled(arena, 4)
    process = reader(handles)
    assert process.stdout is not None
    process.stdout.readline()
    arena.book.release(handles, ArenaRole.VIDEO)
    with pytest.raises(ArenaFull):
        arena.book.allocate(1)
    process.kill()
    process.communicate()
    again = arena.book.allocate(4)
    assert (again[:, 1] > handles[:, 1]).all()


def test_each_process_has_its_own_row_and_may_take_over_a_dead_process_s_row(arena: SharedArena) -> None:
    handles = filled(arena, 1)
    for _ in range(6):  # more than there are rows
        process = reader(handles)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("True")
        process.kill()
        process.communicate()


def test_the_slab_of_a_dead_owner_is_removed_when_the_next_is_created() -> None:
    make = (
        "import sys, os, torch; from wavserve.models.arena import slabs; slabs.create(sys.argv[1], 64, {}); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", make, PREFIX], check=False)
    [left] = slabs.SHM.glob(f"{PREFIX}-*")
    arena = SharedArena.create(config())
    assert not left.exists()
    assert slabs.clean(PREFIX) == []  # the slab of the living owner stays
    assert arena.slab.path.exists()
    arena.close()
    assert list(slabs.SHM.glob(f"{PREFIX}-*")) == []


def test_handles_of_another_slab_are_stale(arena: SharedArena) -> None:
    old = filled(arena, 2)
    arenas = AttachedArenas(config())
    assert arenas.of(old) is not None
    arena.close()
    following = SharedArena.create(config())
    new = filled(following, 2)
    attached = arenas.of(new)
    assert attached is not None
    assert attached.book.current(new)
    assert not attached.book.current(old)
    kept = arenas.of(old)  # the old slab no longer exists: the reader keeps the one it has, where the handle is stale
    assert kept is not None
    assert not kept.book.current(old)
    following.close()


def test_a_handle_of_a_slab_that_never_existed_has_no_arena() -> None:
    assert AttachedArenas(config()).of(np.array([[0, 5 << 32]])) is None


def test_a_reader_with_another_configuration_is_refused(arena: SharedArena) -> None:
    other = AttachedArenas(config(num_slots=5))
    with pytest.raises(BackendError, match=r"expected an arena of .*'num_slots': 5.*got .*'num_slots': 4"):
        other.of(filled(arena, 1))


def test_an_arena_that_does_not_fit_is_refused_before_it_is_created() -> None:
    with pytest.raises(SettingsError, match=r"arena.num_slots: expected a feature arena of at most \d+ MB"):
        SharedArena.create(config(num_slots=10**9))
    assert list(slabs.SHM.glob(f"{PREFIX}-*")) == []


def test_features_have_the_configured_dtype() -> None:
    arena = SharedArena.create(config(dtype=torch.bfloat16))
    handles = filled(arena, 1)
    read = AttachedArenas(config(dtype=torch.bfloat16)).of(handles)
    assert read is not None
    assert read.read_video(1, handles[:, 0]).dtype == torch.bfloat16
    arena.close()
