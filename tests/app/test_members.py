"""Names that are followed: what joins, what leaves, and what a look-up that fails must not do."""

from __future__ import annotations

import asyncio
import logging

import pytest

from wavserve.app.members import MAX_ADDRESSES, MISSING_ANSWERS, Members, follow
from wavserve.core.address import DnsName

Answer = tuple[str, ...] | OSError


class Scripted:
    """A `LookUp` with one answer after the other; the last one stays."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[DnsName] = []

    async def __call__(self, name: DnsName) -> frozenset[str]:
        self.asked.append(name)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, OSError):
            raise answer
        return frozenset(answer)


async def looked(*answers: Answer, name: str = "dns:///triton:8001") -> list[tuple[str, ...]]:
    """The members after each of these answers."""
    members, after = Members([name], "gateway-0", Scripted(*answers)), []
    for _ in answers:
        await members.look()
        after.append(members.now)
    return after


async def test_listed_addresses_stay_and_those_of_a_name_follow_it() -> None:
    members = Members(["a:1", "dns:///triton:8001", "10.0.0.2:8001"], "gateway-0", Scripted(("10.0.0.3", "10.0.0.2")))
    assert members.now == ("a:1", "10.0.0.2:8001")
    await members.look()
    assert members.now == ("a:1", "10.0.0.2:8001", "10.0.0.3:8001"), "each once"
    assert not members.are_fixed
    assert Members(["a:1"], "gateway-0").are_fixed


async def test_addresses_are_written_as_endpoints_are() -> None:
    assert await looked(("::1", "fd00::2")) == [("[::1]:8001", "[fd00::2]:8001")]
    assert await looked(("10.0.0.1", "fd00::2"), name="dns:///gateways") == [("10.0.0.1", "fd00::2")]


async def test_new_addresses_join_at_once_and_missing_ones_leave_after_some_answers() -> None:
    first, second = ("10.0.0.1", "10.0.0.2"), ("10.0.0.2", "10.0.0.3")
    *early, last = await looked(first, *[second] * MISSING_ANSWERS)
    assert early[1:] == [("10.0.0.1:8001", "10.0.0.2:8001", "10.0.0.3:8001")] * (MISSING_ANSWERS - 1)
    assert last == ("10.0.0.2:8001", "10.0.0.3:8001")


async def test_an_address_that_is_missing_now_and_then_stays() -> None:
    flapping = [("10.0.0.1", "10.0.0.2"), ("10.0.0.2",)] * 5
    assert set(await looked(*flapping)) == {("10.0.0.1:8001", "10.0.0.2:8001")}


@pytest.mark.parametrize("nothing", [(), OSError("no server answers")])
async def test_an_answer_without_addresses_changes_nothing_and_the_log_says_it_once(
    nothing: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    known = ("10.0.0.1",)
    with caplog.at_level(logging.INFO):
        after = await looked(known, *[nothing] * 5, known)
    assert set(after) == {("10.0.0.1:8001",)}
    warnings = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].startswith("dns:///triton:8001: ")
    assert warnings[0].endswith("known: 10.0.0.1:8001")
    assert caplog.records[-1].getMessage() == "dns:///triton:8001: is found; known: 10.0.0.1:8001"


async def test_nothing_between_two_answers_does_not_count_as_missing() -> None:
    after = await looked(("10.0.0.1", "10.0.0.2"), ("10.0.0.2",), (), OSError("down"), (), ("10.0.0.1", "10.0.0.2"))
    assert set(after) == {("10.0.0.1:8001", "10.0.0.2:8001")}


async def test_a_fleet_that_is_replaced_at_once_is_followed() -> None:
    old, new = ("10.0.0.1", "10.0.0.2"), ("10.0.1.1", "10.0.1.2")
    assert (await looked(old, *[new] * MISSING_ANSWERS))[-1] == ("10.0.1.1:8001", "10.0.1.2:8001")


async def test_hundreds_of_addresses_are_bounded_and_the_choice_is_stable_and_differs_between_gateways(
    caplog: pytest.LogCaptureFixture,
) -> None:
    many = tuple(f"10.0.{number // 100}.{number % 100}" for number in range(400))
    after = await looked(many, many[::-1], many)
    assert {len(each) for each in after} == {MAX_ADDRESSES}
    assert len(set(after)) == 1
    assert f"has 400 addresses, and {MAX_ADDRESSES} are used" in caplog.text
    assert len([each for each in caplog.records if each.levelno >= logging.WARNING]) == 1
    other = Members(["dns:///triton:8001"], "gateway-1", Scripted(many))
    await other.look()
    assert set(other.now) != set(after[0])


async def test_outcomes_are_counted() -> None:
    outcomes: list[str] = []
    members = Members(["dns:///a:1"], "me", Scripted(("10.0.0.1",), (), OSError("down")), outcomes.append)
    for _ in range(3):
        await members.look()
    assert outcomes == ["found", "empty", "failed"]


async def test_names_are_looked_up_again_and_again_and_soon_after_trouble() -> None:
    answers = Scripted(("10.0.0.1",), ("10.0.0.2",))
    members, trouble, seen = Members(["dns:///a:1"], "me", answers), asyncio.Event(), list[tuple[str, ...]]()
    following = asyncio.create_task(follow([members], 3600.0, trouble, lambda: seen.append(members.now)))
    try:
        async with asyncio.timeout(20):
            for number in (1, 2, 3):
                trouble.set()
                while len(seen) < number:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.01)
    finally:
        following.cancel()
    assert seen == [("10.0.0.1:1",), ("10.0.0.1:1", "10.0.0.2:1"), ("10.0.0.2:1",)]


async def test_what_cannot_be_taken_up_ends_no_discovery(caplog: pytest.LogCaptureFixture) -> None:
    calls = 0

    def fail() -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError("a bug")

    following = asyncio.create_task(follow([Members(["dns:///a:1"], "me", Scripted(()))], 0.01, asyncio.Event(), fail))
    async with asyncio.timeout(20):
        while calls < 3:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    assert not following.done()
    following.cancel()
    assert "could not be taken up" in caplog.text


async def test_a_look_up_that_meets_a_bug_ends_no_discovery(caplog: pytest.LogCaptureFixture) -> None:
    calls = 0

    async def fail(name: DnsName) -> frozenset[str]:
        nonlocal calls
        calls += 1
        raise RuntimeError("a bug")

    following = asyncio.create_task(follow([Members(["dns:///a:1"], "me", fail)], 0.01, asyncio.Event(), lambda: None))
    async with asyncio.timeout(20):
        while calls < 3:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    assert not following.done()
    following.cancel()
