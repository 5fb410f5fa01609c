"""A reply is the same whether the service writes an integer as a number or, when it is large, as a text."""

from __future__ import annotations

from typing import Any

import pytest

from loadtest.robots.replies import from_json


def answer(first: object, received: object, sent: object) -> dict[str, Any]:
    receipt = {"sequence": first, "deadline": "met", "slack_ms": 5.0, "iterations_done": 1, "stopped": "done"}
    receipt |= {"planner": {"num_iterations": 1}, "stage_ms": {}}
    chunk = {"session_id": "s", "sequence": first, "first_control_step": first, "actions": [[0.0]], "chunk_id": "c"}
    return chunk | {"receipt": receipt, "server_recv_ns": received, "server_send_ns": sent}


@pytest.mark.parametrize(
    ("received", "sent"), [(2**53 - 2, 2**53 - 1), (2**53 - 1, str(2**53)), (str(2**53), str(2**53 + 1))]
)
def test_an_integer_may_be_a_text(received: object, sent: object) -> None:
    reply = from_json(answer(str(2**60), received, sent))
    assert (reply.served_s, reply.sequence, reply.receipt_sequence) == (1e-9, 2**60, 2**60)
    assert reply.first_control_step == 2**60
