"""Every test here runs on every backend: the fake, the models in this process, and the models in a real Triton."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.backends.rig import REPOSITORY, RunningTriton, Subject, fake, local, triton
from wavserve.backends.triton.server import why_not
from wavserve.bundle.bundle import Bundle


@pytest.fixture(scope="session")
def running_triton(tiny: Bundle) -> Iterator[RunningTriton]:
    if (obstacle := why_not(REPOSITORY)) is not None:
        pytest.skip(f"no real Triton on this machine: {obstacle}")
    with triton(tiny) as running:
        yield running


@pytest.fixture(scope="module")
def reference(tiny: Bundle) -> Iterator[Subject]:
    """The models in this process, to compare with."""
    with local(tiny) as made:
        yield made


@pytest.fixture(params=["fake", "local", "triton"])
def subject(request: pytest.FixtureRequest, tiny: Bundle) -> Iterator[Subject]:
    if request.param == "triton":
        yield request.getfixturevalue("running_triton").subject()
        return
    with {"fake": fake, "local": local}[request.param](tiny) as made:
        yield made
