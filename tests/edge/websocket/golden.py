"""Bytes that the unmodified clients sent or read. Recorded from openpi-client 0.1.2."""

from __future__ import annotations

FLOAT32_1X2 = bytes.fromhex(
    "84c40b5f5f6e6461727261795f5fc3c40464617461c4080000803f00000040c4056474797065a33c6634c40573686170659102"
)
"""`np.array([1, 2], np.float32)`"""
NUMBER = bytes.fromhex("83c40d5f5f6e7067656e657269635f5fc3c40464617461cb3fe0000000000000c4056474797065a33c6634")
"""`np.float32(0.5)`"""
