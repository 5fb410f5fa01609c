"""Every kind of bad input, through JSON, multipart and gRPC: code, field, expected and actual; no plan is made."""

# ruff: noqa: E501  # one case per line is easier to read
from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace

import pytest

from tests.edge.fakes import PICTURES, STATE_DIM, example_bytes, example_image, example_observation, example_pixels
from tests.edge.robots import Robot
from tests.edge.served import Served
from wavserve.core.errors import SequenceConflict, UnknownSession
from wavserve.core.messages import EncodedImage, Observation

AGENTVIEW, WRIST = example_image("agentview", "png"), example_image("wrist", "jpeg")
INVALID = ("invalid-request", 400, "INVALID_ARGUMENT")
MEDIA = ("unsupported-media", 415, "INVALID_ARGUMENT")
LARGE = ("too-large", 413, "RESOURCE_EXHAUSTED")
POLICY = ("unknown-policy", 404, "NOT_FOUND")


@dataclass(frozen=True)
class Case:
    name: str
    observation: Observation
    field: str
    expected: str
    actual: str
    kind: tuple[str, int, str] = INVALID


def with_wrist(wrist: EncodedImage) -> Observation:
    return example_observation(images=(AGENTVIEW, wrist))


def with_wrist_changed(**changes: object) -> Observation:
    return with_wrist(replace(WRIST, **changes))  # type: ignore[arg-type]


def with_state(index: int, value: float) -> Observation:
    return example_observation(state=tuple(value if i == index else 0.0 for i in range(STATE_DIM)))


def with_options(**options: object) -> Observation:
    return example_observation(options=options)


def bomb(height: int, width: int) -> bytes:
    """A PNG of a few bytes whose header states a huge size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


CMYK_JPEG, TURNED_JPEG = ((PICTURES / name).read_bytes() for name in ("jpeg_cmyk.jpg", "jpeg_exif_6.jpg"))
PNG_16, HALF_PNG = ((PICTURES / name).read_bytes() for name in ("png_rgb12in16.png", "png_half_the_rows.png"))
NOISY = example_bytes(example_pixels(384, 384), "raw_rgb8")

CASES = (
    Case("missing camera", example_observation(images=(AGENTVIEW,)), "images.wrist", "one image of each camera agentview, wrist", "no image"),
    Case("extra camera", example_observation(images=(AGENTVIEW, WRIST, example_image("top"))), "images.top", "one of the cameras agentview, wrist", "an unknown camera"),
    Case("camera twice", example_observation(images=(AGENTVIEW, WRIST, WRIST)), "images.wrist", "one image", "2 images"),
    Case("wrong size", with_wrist(example_image("wrist", "png", (128, 130))), "images.wrist.data", "128 x 128 (height x width)", "128 x 130"),
    Case("wrong raw size", with_wrist(example_image("wrist", "raw_bgr8", (64, 128))), "images.wrist.data", "128 x 128 (height x width)", "64 x 128"),
    Case("stated size differs", with_wrist_changed(height=127), "images.wrist.height", "128, as the jpeg header says", "127"),
    Case("raw without a size", with_wrist(replace(example_image("wrist", "raw_rgb8"), width=0)), "images.wrist.width", "the image's size, which raw encodings require", "0"),
    Case("raw too short", with_wrist(replace(example_image("wrist", "raw_rgb8"), data=b"\0" * 49151)), "images.wrist.data", "49152 bytes (128 x 128 x 3)", "49151 bytes"),
    Case("raw too long", with_wrist(replace(example_image("wrist", "raw_rgb8"), data=b"\0" * 49153)), "images.wrist.data", "49152 bytes (128 x 128 x 3)", "49153 bytes"),
    Case("four channels", with_wrist_changed(channels=4), "images.wrist.channels", "3", "4"),
    Case("unknown encoding", with_wrist_changed(encoding="webp"), "images.wrist.encoding", "one of raw_rgb8, raw_bgr8, jpeg, png", "*", MEDIA),
    Case("another encoding than declared", with_wrist_changed(encoding="png"), "images.wrist.data", "PNG data", f"JPEG data, {len(WRIST.data)} bytes"),
    Case("not an image", with_wrist_changed(data=b"hello"), "images.wrist.data", "JPEG data", "other data, 5 bytes"),
    Case("empty image", with_wrist_changed(data=b""), "images.wrist.data", "JPEG data", "other data, 0 bytes"),
    Case("truncated JPEG", with_wrist_changed(data=WRIST.data[:-400]), "images.wrist.data", "a complete JPEG", "broken data: *"),
    Case("truncated PNG", with_wrist(replace(AGENTVIEW, camera="wrist", data=AGENTVIEW.data[:-400])), "images.wrist.data", "a complete PNG", "broken data: *"),
    Case("truncated header", with_wrist_changed(data=WRIST.data[:30]), "images.wrist.data", "a complete JPEG", "broken data: it ends within a segment"),
    Case("CMYK image", with_wrist_changed(data=CMYK_JPEG), "images.wrist.data", "an RGB or gray image", "4 channels (CMYK)"),
    Case("16-bit image", with_wrist_changed(encoding="png", data=PNG_16), "images.wrist.data", "8 bits a channel", "16 bits a channel"),
    Case("turned image", with_wrist_changed(data=TURNED_JPEG), "images.wrist.data", "an upright image, orientation 1", "EXIF orientation 6"),
    Case("half of the rows", with_wrist_changed(encoding="png", data=HALF_PNG), "images.wrist.data", "a complete PNG", "broken data: 24640 bytes of rows, 49280 needed"),
    Case("decompression bomb", with_wrist_changed(encoding="png", data=bomb(60_000, 60_000)), "images.wrist.data", "at most 262144 pixels", "3600000000 pixels (60000 x 60000)", LARGE),
    Case("raw bomb", with_wrist(EncodedImage("wrist", "raw_rgb8", b"", 2**31, 2**31)), "images.wrist.data", "at most 262144 pixels", f"{2**62} pixels ({2**31} x {2**31})", LARGE),
    Case("oversized bytes", with_wrist(EncodedImage("wrist", "raw_rgb8", b"\0" * 250_001, 1, 1)), "images.wrist.data", "at most 250000 bytes", "250001 bytes", LARGE),
    Case("body over the limit", with_wrist(EncodedImage("wrist", "raw_rgb8", NOISY, 384, 384)), "body", "at most 400000 bytes", "* bytes", LARGE),
    Case("negative capture time", with_wrist_changed(captured_mono_ns=-1), "images.wrist.captured_mono_ns", f"0 to {2**63 - 1}", "-1"),
    Case("state too short", example_observation(state=(0.0,) * 7), "state", "8 numbers", "7 numbers"),
    Case("no state", example_observation(state=()), "state", "8 numbers", "0 numbers"),
    Case("NaN state", with_state(3, float("nan")), "state[3]", "a finite float32", "nan"),
    Case("absurd state", with_state(0, 2e38), "state[0]", "-1e+12 to 1e+12", "*e+38"),
    Case("infinite state", with_state(7, float("-inf")), "state[7]", "a finite float32", "-inf"),
    Case("empty instruction", example_observation(instruction=""), "instruction", "text that is not blank", "0 bytes of white space"),
    Case("blank instruction", example_observation(instruction=" \n\t"), "instruction", "text that is not blank", "3 bytes of white space"),
    Case("long instruction", example_observation(instruction="é" * 33), "instruction", "at most 64 bytes of UTF-8", "66 bytes", LARGE),
    Case("unknown policy", example_observation(policy="other"), "policy", "example", "'other'", POLICY),
    Case("long session id", example_observation(session_id="s" * 129), "session_id", "1 to 128 characters", "129 characters"),
    Case("sequence too large", example_observation(sequence=2**63), "sequence", f"0 to {2**63 - 1}", str(2**63)),
    Case("control step too large", example_observation(control_step=2**64 - 1), "control_step", f"0 to {2**63 - 1}", str(2**64 - 1)),
    Case("too many executed", example_observation(executed_steps=10_001), "executed_steps", "0 to 10000", "10001"),
    Case("seed too large", example_observation(seed=2**63), "seed", f"0 to {2**63 - 1}", str(2**63)),
    Case("deadline of 0 ms", example_observation(deadline_ms=0), "deadline_ms", f"1 to {2**32 - 1}", "0"),
    Case("too many chunks imagined", example_observation(imagine_chunks=5), "imagine_chunks", "0 to 4", "5"),
    Case("unknown option", with_options(temperature=1), "planner*", "*", "*unknown*"),
    Case("unknown mode", with_options(mode="best"), "planner.mode", "one of paper, published, off, mean, best_of_n, random_scores, fixed_shrink", "'best'"),
    Case("K out of bounds", with_options(num_iterations=11), "planner.num_iterations", "0 to 10", "11"),
    Case("N out of bounds", with_options(num_video_samples=65), "planner.num_video_samples", "1 to 64", "65"),
    Case("M out of bounds", with_options(num_value_samples=0), "planner.num_value_samples", "1 to 16", "0"),
    Case("smoothing out of bounds", with_options(smoothing=1.5), "planner.smoothing", "0.0 to 1.0", "1.5"),
    Case("NaN option", with_options(decay=float("nan")), "planner.decay", "a finite number", "nan"),
    Case("one video elite", with_options(num_video_samples=1), "planner.num_video_samples", "at least 2 (two elites are needed)", "1"),
    Case("one value elite", with_options(value_elite_fraction=0.01), "planner.value_elite_fraction", "at least 2 elites", "1"),
)  # fmt: skip


def matches(actual: str, pattern: str) -> bool:
    """Equal, where a star at either end of the pattern stands for any text."""
    start, end = pattern.startswith("*"), pattern.endswith("*") and len(pattern) > 1
    core = pattern.strip("*")
    if start and end:
        return core in actual
    return actual.endswith(core) if start else actual.startswith(core) if end else actual == core


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_refused(case: Case, robot: Robot, served: Served) -> None:
    reply = robot.plan(case.observation)
    name, http, rpc = case.kind
    assert (reply.name, reply.code) == (name, rpc if robot.kind == "grpc" else http), reply.content
    assert matches(reply.content["field"], case.field), reply.content
    assert matches(reply.content["expected"], case.expected), reply.content
    assert matches(reply.content["actual"], case.actual), reply.content
    assert all(reply.content[key] in reply.content["detail"] for key in ("field", "expected", "actual"))
    assert served.policy.requests == []


@pytest.mark.parametrize(
    ("error", "name", "http", "rpc"),
    [
        (UnknownSession("session_id", "a session", "'s'"), "unknown-session", 404, "NOT_FOUND"),
        (SequenceConflict("sequence", "more than 7", 7), "sequence-conflict", 409, "FAILED_PRECONDITION"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_both_edges_report_errors_of_the_policy(
    error: UnknownSession | SequenceConflict, name: str, http: int, rpc: str, robot: Robot, served: Served
) -> None:
    served.policy.error = error
    replies = [robot.plan(example_observation(session_id="s", sequence=7)), robot.reset("s")]
    for reply in replies:
        assert (reply.name, reply.code) == (name, rpc if robot.kind == "grpc" else http)
        assert {key: reply.content[key] for key in ("field", "expected", "actual")} == {
            "field": error.field,
            "expected": error.expected,
            "actual": error.actual,
        }
