"""Keys that stand for rows a receiver has already."""

from __future__ import annotations

import numpy as np
import pytest

from wavserve.core.errors import TensorMiss
from wavserve.core.tensor_cache import Receiver, Sender


def test_keys_replace_rows_and_an_unknown_key_is_refused() -> None:
    sender, receiver = Sender(num_sent=4), Receiver(num_held=4)
    rows = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(2)}
    first, again = (sender.fold(rows, ("a",)) for _ in range(2))
    assert ("a" in first, "a" in again, "b" in again) == (True, False, True)
    np.testing.assert_array_equal(receiver.unfold(first, ("a",))["a"], rows["a"])
    whole = receiver.unfold(again, ("a",))
    np.testing.assert_array_equal(whole["a"], rows["a"])
    assert set(whole) == {"a", "b"}
    mixed = {"a": np.stack([rows["a"][1], rows["a"][1] + 9])}
    np.testing.assert_array_equal(receiver.unfold(sender.fold(mixed, ("a",)), ("a",))["a"], mixed["a"])
    with pytest.raises(TensorMiss, match="2 of 2"):
        Receiver().unfold(again, ("a",))
    sender.forget()
    assert "a" in sender.fold(rows, ("a",))


def test_equal_bytes_with_another_shape_have_another_key() -> None:
    sender = Sender()
    flat = sender.fold({"a": np.zeros((1, 4), np.float32)}, ("a",))
    square = sender.fold({"a": np.zeros((1, 2, 2), np.float32)}, ("a",))
    assert flat["a_key"].tobytes() != square["a_key"].tobytes()


def test_a_row_of_which_only_the_key_came_is_a_hit_or_a_miss() -> None:
    sender, receiver = Sender(), Receiver()
    rows = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}
    first, again = (sender.fold(rows, ("a",)) for _ in range(2))
    receiver.unfold(first, ("a",))  # it brought its rows: no lookup
    receiver.unfold(again, ("a",))
    assert (receiver.lookups.hit, receiver.lookups.miss) == (2, 0)
    other = Sender()
    unknown = [other.fold({"a": rows["a"] + 1}, ("a",)) for _ in range(2)][1]
    with pytest.raises(TensorMiss):
        receiver.unfold(unknown, ("a",))
    assert (receiver.lookups.hit, receiver.lookups.miss) == (2, 2)
