"""64-bit integers in JSON: exact for every library, in both directions."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.edge.bodies import GOOD, with_image
from tests.edge.robots import reply_of
from tests.edge.served import Served

SAFE = 2**53 - 1
JSON = {"content-type": "application/json"}


def plan(client: httpx.Client, body: dict[str, Any]) -> tuple[int | str, dict[str, Any]]:
    answer = reply_of(client.post("/v1/plan", content=json.dumps(body), headers=JSON))
    return answer.code, answer.content


@pytest.mark.parametrize("name", ["seed", "sequence"])
@pytest.mark.parametrize(
    ("sent", "value", "answered"),
    [
        (7, 7, 7),
        ("7", 7, 7),
        (SAFE, SAFE, SAFE),
        (str(SAFE + 2), SAFE + 2, str(SAFE + 2)),
        (str(2**63 - 1), 2**63 - 1, str(2**63 - 1)),
    ],
)
def test_a_number_comes_back_as_it_was_sent(
    name: str, sent: object, value: int, answered: object, client: httpx.Client, served: Served
) -> None:
    code, content = plan(client, GOOD | {name: sent})
    assert (code, content["receipt"][name]) == (200, answered)
    [request] = served.policy.requests
    assert getattr(request, name) == value


def test_every_answered_integer_is_exact_in_javascript(client: httpx.Client, served: Served) -> None:
    """JavaScript reads each number as a float64."""
    large = {"seed": str(2**63 - 1), "sequence": str(2**62 + 1), "control_step": str(2**61 + 1)}
    _, content = plan(client, with_image(captured_mono_ns=2**60 + 1) | large)
    assert content["captured_mono_ns"] == "1234" or content["captured_mono_ns"] == 1234
    numbers = list(integers(content))
    assert numbers
    assert all(abs(number) <= SAFE for number in numbers)
    assert content["first_control_step"] == str(2**61 + 1)


def test_a_number_that_may_have_been_rounded_is_refused(client: httpx.Client, served: Served) -> None:
    code, content = plan(client, GOOD | {"seed": SAFE + 1})
    assert (code, content["field"], content["actual"]) == (400, "seed", str(SAFE + 1))
    assert "decimal text" in content["expected"]
    assert served.policy.requests == []


def test_a_capture_time_may_be_a_number_of_any_size(client: httpx.Client, served: Served) -> None:
    images = [
        image | {"captured_mono_ns": ns} for image, ns in zip(GOOD["images"], (2**60 + 2, str(2**60 + 1)), strict=True)
    ]
    code, content = plan(client, GOOD | {"images": images})
    assert (code, content["captured_mono_ns"]) == (200, str(2**60 + 1))


def integers(tree: object) -> Any:
    if isinstance(tree, dict | list):
        for each in tree.values() if isinstance(tree, dict) else tree:
            yield from integers(each)
    elif isinstance(tree, int) and not isinstance(tree, bool):
        yield tree
