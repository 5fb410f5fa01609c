"""openpi's protocol over a real websocket: metadata, failures, deadlines, the end of a connection."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.edge.fakes import ACTION_DIM, CHUNK, example_limits, example_spec
from tests.edge.robots import serving
from tests.edge.served import Served
from tests.edge.websocket.clients import CONFIG, Client, aloha, connected, libero
from tests.edge.websocket.policies import WholeChunks
from wavserve.core.errors import Overloaded
from wavserve.edge.compat.tables import CompatConfig
from wavserve.edge.websocket.packing import pack
from wavserve.system.telemetry import Metrics


def eventually(condition: Callable[[], object], seconds: float = 20) -> None:
    """Waits until a condition of another thread holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def closing_code(client: Client) -> int | None:
    with pytest.raises(ConnectionClosed) as closed:
        client.connection.recv(timeout=30)
    return closed.value.rcvd.code if closed.value.rcvd else None


@pytest.mark.parametrize("path", ["/", "/v1/realtime/robot/openpi"])
def test_the_first_frame_tells_the_policys_facts(path: str, served: Served) -> None:
    with connected(served.address.http, path) as client:
        metadata = client.metadata
    assert (metadata["policy"], metadata["untrained"], metadata["action_horizon"]) == ("example", True, CHUNK)
    assert (metadata["executed_steps"], len(metadata["action_names"])) == (CONFIG.executed_steps, ACTION_DIM)


def test_a_reply_has_one_array(openpi: Client) -> None:
    """openpi's ActionChunkBroker cuts every array by step."""
    reply = openpi.infer(libero())
    assert [key for key, value in reply.items() if hasattr(value, "shape")] == ["actions"]
    assert reply["actions"].shape == (CHUNK, ACTION_DIM)
    assert reply["server_timing"]["infer_ms"] >= 0
    assert reply["policy_timing"] == {"imagine_ms": 500.0, "score_ms": 250.0}


def test_any_other_path_is_no_websocket(served: Served) -> None:
    with pytest.raises(InvalidStatus, match="404"), connect(served.address.http.replace("http", "ws") + "/v1/other"):
        pass


def test_the_page_of_a_browser_opens_no_websocket(served: Served) -> None:
    address = served.address.http.replace("http", "ws")
    with pytest.raises(InvalidStatus, match="403"), connect(address, origin="https://example.org"):
        pass


def test_http_goes_on_at_the_same_port(openpi: Client, served: Served) -> None:
    assert httpx.get(f"{served.address.http}/healthz").status_code == 200
    assert httpx.get(served.address.http).status_code == 404
    assert openpi.infer(libero())["actions"].shape == (CHUNK, ACTION_DIM)


def test_a_failure_is_a_short_text_and_code_1011(openpi: Client, served: Served) -> None:
    served.policy.error = Overloaded("the limit of 3 plans is reached")
    text = openpi.infer(libero())
    assert text.startswith("overloaded: the limit of 3 plans is reached (urn:uuid:")
    assert closing_code(openpi) == 1011


def test_an_unexpected_failure_shows_no_traceback(openpi: Client, served: Served) -> None:
    served.policy.error = RuntimeError("secret")
    text = openpi.infer(libero())
    assert text.startswith("internal: ")
    assert "secret" not in text
    assert closing_code(openpi) == 1011


def test_a_refusal_before_the_message_was_read_reaches_the_client(openpi: Client, served: Served) -> None:
    served.policy.reserve_error = Overloaded("full")
    assert openpi.exchange(bytes(399_000)).startswith("overloaded: full")
    assert closing_code(openpi) == 1011


def test_a_cut_chunk_is_refused(openpi: Client, served: Served) -> None:
    assert isinstance(served.policy, WholeChunks)
    served.policy.cuts = True
    assert openpi.infer(libero()).startswith("unsafe-chunk: step 16 of the plan: velocity -1.75 of x2")


def test_random_weights_are_refused_unless_allowed() -> None:
    config = replace(CONFIG, allow_untrained=False)
    policy = WholeChunks()
    with serving(policy, example_limits(), Metrics(), compat=config) as address:
        with connected(address.http) as client:
            assert client.infer(libero()).startswith("contract-mismatch: policy: expected a trained policy")
        policy.spec = replace(example_spec(), untrained=False)
        with connected(address.http) as client:
            assert client.infer(libero())["untrained"] is False


def test_a_form_without_a_table_is_refused() -> None:
    config = CompatConfig(1, {"libero": CONFIG.tables["libero"]}, allow_untrained=True)
    with (
        serving(WholeChunks(), example_limits(), Metrics(), compat=config) as address,
        connected(address.http) as client,
    ):
        assert client.infer(aloha()).startswith("unsupported: compat.aloha does not name each camera")


def test_the_settings_instruction_fills_in_for_a_missing_prompt() -> None:
    policy, config = WholeChunks(), replace(CONFIG, instruction="fold the shirt")
    with serving(policy, example_limits(), Metrics(), compat=config) as address, connected(address.http) as client:
        client.infer({key: value for key, value in aloha().items() if key != "prompt"})
    assert [each.instruction for each in policy.requests] == ["fold the shirt"]


@pytest.mark.parametrize(("message", "reason"), [("text", "a binary frame of msgpack"), (b"", "a whole msgpack value")])
def test_a_message_of_another_kind_is_refused(message: bytes | str, reason: str, openpi: Client) -> None:
    assert reason in openpi.exchange(message)


def test_a_message_may_come_in_fragments_with_pings_between(openpi: Client, served: Served) -> None:
    message = pack(libero())

    def fragments() -> object:
        for start in range(0, len(message), 5_000):
            openpi.connection.ping()
            yield message[start : start + 5_000]

    openpi.connection.send(fragments())
    assert isinstance(openpi.connection.recv(timeout=30), bytes)
    assert len(served.policy.requests) == 1


def test_a_message_that_is_too_large_ends_the_connection(openpi: Client) -> None:
    with pytest.raises(ConnectionClosed):
        openpi.exchange(bytes(example_limits().max_body_bytes + 1))
    assert openpi.connection.close_code == 1009


def test_pings_are_answered_while_a_plan_is_made(openpi: Client, served: Served) -> None:
    started = threading.Event()
    served.policy.hold, served.policy.started = True, started.set
    openpi.connection.send(pack(libero()))
    assert started.wait(20)
    assert openpi.connection.ping().wait(20)


def test_a_client_that_leaves_cancels_its_plan_and_ends_its_session(openpi: Client, served: Served) -> None:
    started, cancelled = threading.Event(), threading.Event()
    openpi.infer(libero())
    served.policy.hold, served.policy.started, served.policy.cancelled = True, started.set, cancelled.set
    openpi.connection.send(pack(libero()))
    assert started.wait(20)
    openpi.connection.close()
    assert cancelled.wait(20)
    eventually(lambda: served.policy.ended == ["session-1"])


def test_a_second_observation_before_the_answer_is_refused(openpi: Client, served: Served) -> None:
    started = threading.Event()
    served.policy.hold, served.policy.started = True, started.set
    openpi.connection.send(pack(libero()))
    assert started.wait(20)
    assert "one observation at a time" in openpi.exchange(pack(libero()))
    assert closing_code(openpi) == 1011


def test_two_connections_have_two_sessions(openpi: Client, served: Served) -> None:
    with connected(served.address.http) as other:
        for client in (openpi, other, openpi, other):
            client.infer(libero())
    assert [each.session_id for each in served.policy.requests] == [None, None, "session-1", "session-2"]


def test_a_deadline_in_the_handshake_counts_for_each_observation(served: Served) -> None:
    address = served.address.http.replace("http", "ws")
    with connect(address, additional_headers={"x-deadline-ms": "60000"}) as connection:
        client = Client(connection)
        for _ in range(2):
            client.infer(libero())
    first, second = served.policy.deadlines
    assert (first or 0) < (second or 0)
    with connect(address, additional_headers={"x-deadline-ms": "soon"}) as connection:
        assert "x-deadline-ms: expected a whole number" in Client(connection).infer(libero())


def test_the_api_key_is_accepted_and_ignored(served: Served) -> None:
    address = served.address.http.replace("http", "ws")
    with connect(address, additional_headers={"Authorization": "Api-Key secret"}) as connection:
        assert Client(connection).infer(libero())["actions"].shape == (CHUNK, ACTION_DIM)


def test_requests_are_counted_by_outcome(openpi: Client, served: Served) -> None:
    def counted(outcome: str) -> float:
        labels = {"edge": "websocket", "outcome": outcome}
        return served.metrics.registry.get_sample_value("wavserve_requests_total", labels) or 0.0

    before = counted("ok"), counted("invalid-request")
    openpi.infer(libero())
    openpi.infer({})
    eventually(lambda: (counted("ok"), counted("invalid-request")) == (before[0] + 1, before[1] + 1))


def test_a_stopping_service_ends_an_idle_connection() -> None:
    with ExitStack() as stack:
        service = ExitStack()
        address = service.enter_context(serving(WholeChunks(), example_limits(), Metrics(), compat=CONFIG))
        client = stack.enter_context(connected(address.http))
        client.infer(libero())
        service.close()
        assert closing_code(client) == 1012
