"""Which gateway a robot's client asks: its preferred one, the next after a failure, and when it comes back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from tests.clock import ManualClock
from wavserve.clients.calls import Call
from wavserve.clients.gateways import LATELY_S, Round, Route, moves_on, parse_targets
from wavserve.clients.peers import Attempts
from wavserve.clients.reconnect import Backoff, Search
from wavserve.core.errors import (
    ClientClosed,
    ContractMismatch,
    DeadlineExceeded,
    InvalidRequest,
    ModelDown,
    NotReady,
    OutcomeUnknown,
    Overloaded,
    RobotBusy,
    SequenceConflict,
    StaleEpoch,
    StoreUnavailable,
    Unreachable,
    UnsafeChunk,
    WavserveError,
)
from wavserve.core.rendezvous import ranked

THREE = ("a:1", "b:1", "c:1")


def sent_by_a_server(error: WavserveError) -> WavserveError:
    error.error_id = "urn:uuid:1"
    return error


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ("a:1", ("a:1",)),
        ("a:1,b:1", ("a:1", "b:1")),
        (" a:1, [::1]:8001 ", ("a:1", "[::1]:8001")),
        (["a:1", "b:1"], ("a:1", "b:1")),
        ("http://a:1,https://b:2/", ("http://a:1", "https://b:2")),
        ("dns:///robots:8001,unix:/tmp/s", ("dns:///robots:8001", "unix:/tmp/s")),
    ],
)
def test_addresses_are_a_text_with_commas_or_a_sequence(targets: str | list[str], expected: tuple[str, ...]) -> None:
    assert parse_targets(targets) == expected


@pytest.mark.parametrize(
    ("targets", "field", "expected", "actual"),
    [
        ("", "target", "HOST:PORT", "''"),
        ([], "target", "at least one address", "none"),
        ("a:1,", "target[1]", "HOST:PORT", "''"),
        ("a:1,b", "target[1]", "HOST:PORT", "'b'"),
        ("a:1;b:1", "target", "HOST:PORT", "'a:1;b:1'"),
        ("a:1,http://b:1", "target[1]", "HOST:PORT, as the first", "'http://b:1'"),
        ("http://a:1,b:1", "target[1]", "a URL, as the first", "'b:1'"),
        ("http://a:1,http://b:1/v1", "target[1]", "without a path", "'http://b:1/v1'"),
        ("a:1,a:1", "target[1]", "each address once", "'a:1'"),
        (["a:1", 8001], "target[1]", "an address as text", "8001"),
    ],
)
def test_a_wrong_address_is_refused_by_name(targets: str | list[str], field: str, expected: str, actual: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_targets(targets)
    assert (caught.value.field, caught.value.actual) == (field, actual)
    assert expected in caught.value.expected


@pytest.mark.parametrize("target", ["http://u:s3cret@h:8000", "u:s3cret@h:8001", "http://h/?token=s3cret"])
def test_a_wrong_address_is_refused_without_its_password(target: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_targets(target)
    assert "s3cret" not in str(caught.value)


def test_robots_spread_over_the_gateways_and_each_knows_its_own() -> None:
    preferred = [Route(f"arm-{i}", THREE).current for i in range(300)]
    assert min(Counter(preferred)[target] for target in THREE) > 60
    assert preferred == [Route(f"arm-{i}", THREE[::-1]).current for i in range(300)]


def test_a_client_stays_until_its_gateway_fails_and_then_prefers_by_rank() -> None:
    clock = ManualClock()
    route = Route("arm", THREE, clock)
    first, second, third = ranked("arm", THREE)
    assert route.current == first
    route.failed(first)
    assert route.current == second
    clock.now += LATELY_S / 2
    route.failed(second)
    assert route.current == third  # the first one failed lately as well
    clock.now += LATELY_S
    assert route.current == third  # nothing makes it move while the third one serves
    route.failed(third)
    assert route.current == first


def test_of_gateways_that_all_failed_lately_the_oldest_failure_is_next() -> None:
    clock = ManualClock()
    route = Route("arm", THREE, clock)
    order = []
    for _ in range(6):
        order.append(route.current)
        route.failed(route.current)
        clock.now += 1
    assert order[:3] == order[3:] == list(ranked("arm", THREE))


def test_a_failure_of_another_gateway_moves_nobody() -> None:
    route = Route("arm", THREE)
    first, second, _ = ranked("arm", THREE)
    route.failed(second)  # of a call that began before
    assert route.current == first


def test_a_round_tries_each_gateway_once_and_tells_what_each_one_met() -> None:
    search = Round(Route("arm", THREE))
    for reason in ("refused", "draining", "reset"):
        target = search.next()
        assert target is not None
        search.failed(target, NotReady(f"{target}: {reason}"))
    assert search.next() is None
    first, second, third = ranked("arm", THREE)
    assert str(search.verdict()) == f"{first}: refused; {second}: draining; {third}: reset"


def test_the_verdict_is_the_error_that_says_most() -> None:
    search = Round(Route("arm", THREE))
    for error in (OutcomeUnknown("perhaps"), NotReady("draining")):
        search.failed(search.next() or "", error)
    assert isinstance(search.verdict(), OutcomeUnknown)  # the plan may have been committed
    search.failed(search.next() or "", ContractMismatch("policy_digest", "a", "b"))
    verdict = search.verdict()
    assert isinstance(verdict, ContractMismatch)
    assert "perhaps" in str(verdict)


def test_that_a_gateway_did_not_answer_says_more_than_that_the_last_one_drains() -> None:
    """The first one may have committed the plan, and no answer of the second one says otherwise."""
    search = Round(Route("arm", ("a:1", "b:1")))
    search.failed(search.next() or "", NotReady("reset"))
    search.failed(search.next() or "", sent_by_a_server(ModelDown("draining")))
    verdict = search.verdict()
    assert isinstance(verdict, NotReady)
    assert verdict.error_id is None
    assert "reset" in str(verdict)
    assert "draining" in str(verdict)


def test_a_gateway_without_a_connection_has_not_been_asked() -> None:
    """It cannot have committed the plan, so it says no more than the one that drains."""
    search = Round(Route("arm", ("a:1", "b:1")))
    search.failed(search.next() or "", Unreachable("no service answers: Connection refused"))
    draining = sent_by_a_server(ModelDown("draining"))
    search.failed(search.next() or "", draining)
    assert search.verdict() is draining
    assert "refused" in str(draining)


def test_a_gateway_that_did_not_tell_its_policy_has_not_been_asked_for_a_plan() -> None:
    search = Round(Route("arm", ("a:1", "b:1")))
    search.failed(search.next() or "", DeadlineExceeded("no answer in time"), was_asked=False)
    refusal = sent_by_a_server(Overloaded("full"))
    assert search.refused("b:1", refusal) is refusal


def replaced(digest: str) -> ContractMismatch:
    return ContractMismatch("policy_digest", "one", digest)


def test_a_policy_that_all_gateways_replaced_is_told_as_such() -> None:
    search = Round(Route("arm", THREE))
    for _ in THREE:
        search.failed(search.next() or "", replaced("two"))
    verdict = search.verdict()
    assert isinstance(verdict, ContractMismatch)
    assert (verdict.field, verdict.expected) == ("policy_digest", "one")
    assert verdict.actual == "two at all 3 gateways: the policy was replaced, and needs a new client"


@pytest.mark.parametrize(
    "errors",
    [
        (replaced("two"), replaced("three"), replaced("two")),
        (replaced("two"), NotReady("starting"), replaced("two")),
        (replaced("two"), replaced("two")),
    ],
)
def test_a_policy_that_not_all_gateways_have_was_not_replaced(errors: tuple[WavserveError, ...]) -> None:
    search = Round(Route("arm", THREE))
    for error in errors:
        search.failed(search.next() or "", error)
    verdict = search.verdict()
    assert isinstance(verdict, ContractMismatch)
    assert "replaced" not in str(verdict)


def test_one_gateway_alone_keeps_its_error() -> None:
    search = Round(Route("arm", ("a:1",)))
    error = NotReady("a:1: refused")
    search.failed("a:1", error)
    assert search.verdict() is error
    assert str(error) == "a:1: refused"


@pytest.mark.parametrize(
    ("error", "moves"),
    [
        (NotReady("refused"), True),
        (sent_by_a_server(NotReady("draining")), True),
        (sent_by_a_server(StoreUnavailable("no redis")), True),
        (sent_by_a_server(OutcomeUnknown("perhaps")), True),
        (sent_by_a_server(ModelDown("restarting")), True),
        (DeadlineExceeded("nobody answered"), True),
        (WavserveError("HTTP status 404, without a problem document"), True),
        (ContractMismatch("policy_digest", "a", "b"), True),
        (sent_by_a_server(DeadlineExceeded("late")), False),
        (sent_by_a_server(UnsafeChunk("too fast")), False),
        (sent_by_a_server(WavserveError("a bug")), False),
        (SequenceConflict("sequence", "above 1", 1), False),
        (StaleEpoch("epoch", 2, 1), False),
        (InvalidRequest("state", "7 numbers", 6), False),
        (Overloaded("full"), False),
        (RobotBusy("busy"), False),
        (ClientClosed("closed"), False),
    ],
)
def test_only_what_lies_at_the_gateway_moves_a_robot(error: WavserveError, moves: bool) -> None:
    assert moves_on(error) == moves


def test_the_policy_is_compared_before_the_first_plan_and_after_a_failure() -> None:
    route = Route("arm", THREE)
    first, second, _ = ranked("arm", THREE)
    assert route.must_compare(first)
    route.compare(first, "one")
    assert not route.must_compare(first)
    with pytest.raises(ContractMismatch, match=r"policy_digest: expected one.*, got two"):
        route.compare(second, "two")
    assert route.must_compare(second)
    route.failed(first)
    assert route.must_compare(first)
    alone = Route("arm", ("a:1",))
    assert not alone.must_compare("a:1")
    for digest in ("one", "two"):
        alone.compare("a:1", digest)


# ------------------------------------------------------------------------------------------------------- single calls


@dataclass
class Asked:
    """A call on its way, and the clock that it goes by."""

    attempts: Attempts
    clock: ManualClock

    def after(self, seconds: float, error: WavserveError) -> None:
        self.clock.now += seconds
        self.attempts.failed(error)


def asked(deadline_ms: int | None = None, call_s: float | None = None, timeout_s: float | None = None) -> Asked:
    clock = ManualClock()
    call = Call("/Plan", b"", lambda raw: raw, deadline_ms, call_s)
    return Asked(Attempts(Route("arm", THREE, clock), call, timeout_s, clock), clock)


def test_a_call_goes_from_gateway_to_gateway() -> None:
    way = asked()
    targets = [way.attempts.target]
    for _ in range(2):
        way.after(1.0, NotReady("refused"))
        targets.append(way.attempts.target)
    assert tuple(targets) == ranked("arm", THREE)
    with pytest.raises(NotReady) as caught:
        way.after(1.0, NotReady("refused"))
    assert all(f"{target}: refused" in str(caught.value) for target in THREE)


def test_a_deadline_holds_across_gateways() -> None:
    """It counts from a receipt, so the next gateway gets what is left of it."""
    way = asked(deadline_ms=1000, call_s=1.5)
    assert (way.attempts.call.metadata, way.attempts.left_s) == ((("x-deadline-ms", "1000"),), 1.5)
    way.after(0.4, NotReady("refused"))
    assert way.attempts.call.metadata == (("x-deadline-ms", "600"),)
    assert way.attempts.left_s == pytest.approx(1.1)
    with pytest.raises(NotReady, match=r"refused; .*: draining"):
        way.after(0.6, NotReady("draining"))


def test_no_gateway_is_asked_after_the_callers_timeout() -> None:
    way = asked(timeout_s=2.0)
    with pytest.raises(DeadlineExceeded, match="no answer"):
        way.after(2.0, DeadlineExceeded("no answer"))


def test_a_gateway_that_stands_still_leaves_time_for_the_others() -> None:
    way = asked(call_s=9.0)  # of a reset, for example
    assert way.attempts.left_s == pytest.approx(3.0)
    way.after(3.0, DeadlineExceeded("no answer"))
    assert way.attempts.left_s == pytest.approx(3.0)


def test_what_lies_at_the_request_is_raised_at_once() -> None:
    way = asked()
    with pytest.raises(SequenceConflict):
        way.after(0.0, SequenceConflict("sequence", "above 1", 1))


@pytest.mark.parametrize("refusal", [Overloaded("full"), DeadlineExceeded("too late")])
def test_a_refusal_after_a_gateway_that_did_not_answer_leaves_the_outcome_unknown(refusal: WavserveError) -> None:
    """The first one may have committed the plan: a robot that takes the refusal for the whole would count wrongly."""
    way = asked()
    with pytest.raises(type(refusal)):
        way.after(0.0, sent_by_a_server(refusal))
    for known in (sent_by_a_server(NotReady("draining")), Unreachable("no service answers: refused")):
        way = asked()
        way.after(0.1, known)
        with pytest.raises(type(refusal)):
            way.after(0.0, sent_by_a_server(refusal))
    way = asked()
    way.after(0.1, NotReady("reset"))
    with pytest.raises(OutcomeUnknown, match=f"reset; .*: {refusal.message}"):
        way.after(0.0, sent_by_a_server(refusal))


# ------------------------------------------------------------------------------------------------------------ streams


def search_of(*targets: str, clock: ManualClock | None = None) -> Search:
    return Search(Route("arm", targets, clock or ManualClock()), Backoff(0.25, 5.0, lambda low, high: high))


def test_there_is_a_pause_only_after_all_gateways_failed() -> None:
    search = search_of(*THREE)
    pauses, targets = [], []
    for _ in range(9):
        targets.append(search.target)
        pauses.append(search.ended(NotReady("refused"), 0.0, had_session=True)[1])
    assert pauses == [0.0, 0.0, 0.25, 0.0, 0.0, 0.5, 0.0, 0.0, 1.0]
    assert set(targets[:3]) == set(targets[3:6]) == set(THREE)


def test_a_stream_that_lived_begins_another_round() -> None:
    search = search_of("a:1", "b:1")
    for _ in range(4):
        before = search.target
        assert search.ended(NotReady("the server ended the stream"), 60.0, had_session=True)[1] == 0.0
        assert search.target != before


def test_gateways_that_end_each_stream_at_once_are_not_asked_without_a_pause() -> None:
    search = search_of("a:1", "b:1")
    pauses = [search.ended(NotReady("cut"), 0.1, had_session=True)[1] for _ in range(6)]
    assert pauses == [0.0, 0.25, 0.0, 0.5, 0.0, 1.0]


def test_a_stream_is_with_its_gateway_however_long_the_search_took() -> None:
    """The failure of the first one is old by then, so its rank counts again. That moves no stream that is open."""
    clock = ManualClock()
    search = search_of(*THREE, clock=clock)
    first, _, third = ranked("arm", THREE)
    search.ended(NotReady("refused"), 0.0, had_session=True)
    clock.now += LATELY_S
    search.ended(NotReady("refused"), 0.0, had_session=True)
    assert search.target == third
    clock.now += 60.0
    error, _ = search.ended(NotReady("reset"), 60.0, had_session=True)
    assert str(error) == f"{third}: reset"
    assert search.target == first


def test_pauses_are_short_again_after_a_stream_has_lived() -> None:
    search = search_of("a:1", "b:1")
    pauses = [search.ended(NotReady("refused"), 0.0, had_session=True)[1] for _ in range(8)]
    assert pauses[-1] == 2.0
    assert search.ended(NotReady("reset"), 60.0, had_session=True)[1] == 0.0
    assert search.ended(NotReady("refused"), 0.0, had_session=True)[1] == 0.25


def test_another_policy_ends_the_search_only_when_no_other_gateway_serves() -> None:
    search = search_of("a:1", "b:1")
    other = ContractMismatch("policy_digest", "one", "two")
    assert search.ended(other, 0.0, had_session=True)[1] == 0.0
    error, pause_s = search.ended(NotReady("refused"), 0.0, had_session=True)
    assert error is other
    assert pause_s is None
    assert "expected one, got two" in str(error)
    assert "refused" in str(error)


def test_a_busy_robot_id_or_a_lost_session_is_no_reason_to_move() -> None:
    search = search_of("a:1", "b:1")
    before = search.target
    for error in (RobotBusy("busy"), StaleEpoch("epoch", 2, 1), Overloaded("full")):
        assert search.ended(error, 0.0, had_session=True)[1]
    assert search.target == before
