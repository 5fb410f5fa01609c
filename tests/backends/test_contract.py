"""What every backend owes: shapes by the signature table, groups that do not touch each other, the arena's answers."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from tests.backends.rig import SLOTS, Subject, seeded
from wavserve.core import noise
from wavserve.core.errors import InvalidRequest
from wavserve.core.noise import Stream
from wavserve.core.spec import PolicySpec
from wavserve.core.types import Tensors
from wavserve.core.verbs import VERBS, Status

N, M = 2, 3
BEGUN_S = {"fake": 0.001, "local": 0.2, "triton": 0.2}
"""When a call given up is at the model for sure."""


def example_inputs(spec: PolicySpec, verb: str, groups: int = 1, *, seed: int = 0, text: bool = True) -> Tensors:
    """Inputs of one call, by the signature table; every group differs."""
    video, latent, camera = spec.model.video, spec.latent, spec.cameras[0]
    frame = (video.in_channels, latent.num_future_frames, latent.height, latent.width)
    memory = (spec.num_views, video.in_channels, latent.num_memory_frames, latent.height, latent.width)
    key = np.array([[seed + g, 0] for g in range(groups)])
    match verb:
        case "encode_images":
            shape = (groups, spec.num_views, camera.height, camera.width, 3)
            return {"pixels": np.random.default_rng(seed).integers(0, 256, shape, np.uint8)}
        case "encode_text":
            return {"text": np.frombuffer(b"lift the cup", np.uint8)[None].repeat(groups, axis=0)}
        case "decode_video":
            return {"latents": seeded((groups, spec.num_views, *frame), seed)}
        case "imagine" | "denoise":
            inputs = {
                "memory": seeded((groups, *memory), seed),
                "mean": seeded((groups, 1, *frame), seed + 1) * 0.1,
                "std": np.ones((groups, 1, *frame), np.float32),
                "text_key": np.arange(groups, dtype=np.uint8)[:, None].repeat(32, axis=1) + np.uint8(seed),
                "noise_key": key,
                "noise_name": np.array([[[0, n] for n in range(N if verb == "imagine" else 1)]] * groups),
                "video_steps" if verb == "imagine" else "flow_steps": np.full((groups, 1), 1, np.int32),
            }
            return inputs | ({"embedding": seeded((groups, 5, video.caption_channels), seed)} if text else {})
        case _:
            raise AssertionError(verb)


def value_inputs(spec: PolicySpec, handles: np.ndarray, rows: int = M, **params: int) -> Tensors:
    groups, samples = handles.shape[:2]
    shape = (groups, spec.chunk, spec.model.value.in_channels)
    names = np.arange(groups * samples * rows).reshape(groups, samples, rows)
    return {
        "handles": handles,
        "mean": np.zeros(shape, np.float32),
        "std": np.ones(shape, np.float32),
        "noise_key": np.array([[7, 0]] * groups),
        "noise_name": np.stack([np.zeros_like(names), names], axis=-1),
    } | {name: np.full((groups, 1), value, np.int32) for name, value in params.items()}


def action_inputs(spec: PolicySpec, handles: np.ndarray) -> Tensors:
    groups = len(handles)
    return {
        "handles": handles,
        "history": seeded((groups, spec.model.action.in_channels), 3),
        "noise_key": np.array([[7, 0]] * groups),
        "noise_name": np.array([[-1, 0]] * groups),
        "flow_steps": np.full((groups, 1), 2, np.int32),
    }


def imagine(subject: Subject, groups: int = 1, samples: int = N) -> np.ndarray:
    inputs = example_inputs(subject.spec, "imagine", groups)
    inputs = {**inputs, "noise_name": np.array([[[0, n] for n in range(samples)]] * groups)}
    outputs = subject.run("imagine", inputs)
    assert outputs["status"].tolist() == [Status.OK] * groups
    return outputs["handles"]


def assert_outputs(subject: Subject, verb: str, outputs: Tensors, groups: int, samples: int) -> None:
    """Names, dtypes and shapes are the signature table's."""
    spec, latent, camera = subject.spec, subject.spec.latent, subject.spec.cameras[0]
    sizes = {
        "V": spec.num_views,
        "C": spec.model.video.in_channels,
        "H": latent.height,
        "W": latent.width,
        "Fgen": latent.num_future_frames,
        "frames": (latent.num_future_frames - 1) * latent.temporal_ratio + 1,
        "height": camera.height,
        "width": camera.width,
        "N": samples,
        "M": M,
        "T": spec.chunk,
        "Caction": spec.model.action.in_channels,
        "Ctext": spec.model.video.caption_channels,
    }
    table = VERBS[verb].outputs
    assert set(outputs) == set(table)
    for name, (dtype, shape) in table.items():
        assert outputs[name].dtype == dtype, name
        told = [int(letter) if letter.isdigit() else sizes.get(letter) for letter in shape.split()]
        actual = outputs[name].shape
        assert actual[0] == groups, name
        assert len(actual) == 1 + len(told), name
        assert all(want in (None, have) for want, have in zip(told, actual[1:], strict=True)), (name, told, actual)


@pytest.mark.parametrize("verb", ["encode_images", "encode_text", "decode_video", "imagine", "denoise"])
@pytest.mark.parametrize("groups", [1, 2])
def test_outputs_follow_the_signature_table(subject: Subject, verb: str, groups: int) -> None:
    outputs = subject.run(verb, example_inputs(subject.spec, verb, groups))
    assert_outputs(subject, verb, outputs, groups, N if verb == "imagine" else 1)


def test_outputs_on_handles_follow_the_signature_table(subject: Subject) -> None:
    handles = imagine(subject, groups=2)
    scored = subject.run("score", value_inputs(subject.spec, handles, flow_steps=2, release=0))
    assert_outputs(subject, "score", scored, 2, N)
    single = handles[:, :1]
    assert_outputs(
        subject, "value_features", subject.run("value_features", value_inputs(subject.spec, single, 1)), 2, 1
    )
    assert_outputs(subject, "decode", subject.run("decode", action_inputs(subject.spec, single)), 2, 1)
    assert_outputs(subject, "release", subject.run("release", {"handles": handles[:, 1:]}), 2, 1)
    assert subject.used() == 0


@pytest.mark.parametrize(("verb", "groups"), [("encode_images", 9), ("decode_video", 3), ("denoise", 3)])
def test_a_group_does_not_depend_on_its_neighbours(subject: Subject, verb: str, groups: int) -> None:
    """Nine: more pictures than a CPU encodes at a time."""
    inputs = example_inputs(subject.spec, verb, groups)
    together = subject.run(verb, inputs)
    for g in range(groups):
        alone = subject.run(verb, {name: tensor[g : g + 1] for name, tensor in inputs.items()})
        for name, tensor in alone.items():
            tolerance = 1 if tensor.dtype == np.uint8 else 1e-5
            np.testing.assert_allclose(together[name][g : g + 1].astype(float), tensor.astype(float), atol=tolerance)


def test_scores_and_actions_do_not_depend_on_neighbours(subject: Subject) -> None:
    handles = imagine(subject, groups=3, samples=1)
    scoring = value_inputs(subject.spec, handles, flow_steps=2, release=0)
    appraising, acting = value_inputs(subject.spec, handles, 1), action_inputs(subject.spec, handles)
    scores = subject.run("score", scoring)["values"]
    alone = [subject.run("score", {n: t[g : g + 1] for n, t in scoring.items()})["values"][0] for g in range(3)]
    np.testing.assert_allclose(scores, np.stack(alone), atol=1e-5)
    assert not np.allclose(scores[0], scores[1])
    subject.run("value_features", appraising)
    first = subject.run("decode", {n: t[:1] for n, t in acting.items()})["actions"]
    rest = subject.run("decode", {n: t[1:] for n, t in acting.items()})["actions"]
    handles = imagine(subject, groups=3, samples=1)
    subject.run("value_features", {**appraising, "handles": handles})
    together = subject.run("decode", {**acting, "handles": handles})["actions"]
    np.testing.assert_allclose(together, np.concatenate([first, rest]), atol=1e-5)


def test_given_noise_stands_for_the_named_draw(subject: Subject) -> None:
    inputs = example_inputs(subject.spec, "denoise")
    shape = (subject.spec.num_views, *inputs["mean"].shape[2:])
    given = noise.draw_many((0, 0), Stream.VIDEO, 0, [0], shape)[None]
    named = subject.run("denoise", inputs)["latents"]
    np.testing.assert_array_equal(named, subject.run("denoise", {**inputs, "noise": given})["latents"])
    other = subject.run("denoise", {**inputs, "noise": given + 1})["latents"]
    assert not np.allclose(named, other)


def test_a_missed_text_is_told_and_its_neighbour_is_served(subject: Subject) -> None:
    subject.run("release", {"handles": imagine(subject)})  # text 0 is known now
    both = subject.run("imagine", example_inputs(subject.spec, "imagine", 2, text=False))
    assert both["status"].tolist() == [Status.OK, Status.TEXT_MISS]
    missed = subject.run("denoise", example_inputs(subject.spec, "denoise", 2, text=False))
    assert missed["status"].tolist() == [Status.OK, Status.TEXT_MISS]
    assert subject.used() == N


def test_the_texts_used_last_are_kept(subject: Subject) -> None:
    for seed in range(6):
        handles = subject.run("imagine", example_inputs(subject.spec, "imagine", seed=seed))["handles"]
        subject.run("release", {"handles": handles})
    known = [
        subject.run("denoise", example_inputs(subject.spec, "denoise", seed=seed, text=False))["status"][0] == Status.OK
        for seed in range(6)
    ]
    assert known == [False, False, True, True, True, True]


def test_a_full_arena_refuses_a_whole_group_and_serves_its_neighbour(subject: Subject) -> None:
    held = imagine(subject, samples=SLOTS - N)
    outputs = subject.run("imagine", example_inputs(subject.spec, "imagine", 2))
    assert outputs["status"].tolist() == [Status.OK, Status.ARENA_FULL]
    assert subject.used() == SLOTS
    subject.run("release", {"handles": held})
    assert subject.used() == N
    assert imagine(subject, samples=SLOTS - N).shape == (1, SLOTS - N, 2)


def test_scoring_releases_only_when_told_to(subject: Subject) -> None:
    handles = imagine(subject)
    for release in (0, 1):
        outputs = subject.run("score", value_inputs(subject.spec, handles, flow_steps=1, release=release))
        assert subject.used() == N * (1 - release)
        assert outputs["status"].tolist() == [Status.OK]


@pytest.mark.parametrize("verb", ["score", "value_features", "decode"])
def test_a_stale_handle_is_told_and_its_neighbour_is_served(subject: Subject, verb: str) -> None:
    stale = imagine(subject, samples=1)
    subject.run("release", {"handles": stale})
    good = imagine(subject, samples=1)
    handles = np.concatenate([stale, good])
    if verb == "decode":
        subject.run("value_features", value_inputs(subject.spec, good, 1))
        inputs = action_inputs(subject.spec, handles)
    else:
        params = {"flow_steps": 1, "release": 0} if verb == "score" else {}
        inputs = value_inputs(subject.spec, handles, 1, **params)
    assert subject.run(verb, inputs)["status"].tolist() == [Status.STALE_HANDLE, Status.OK]
    assert subject.run(verb, {**inputs, "handles": handles[::-1]})["status"][1] == Status.STALE_HANDLE


def test_releasing_twice_frees_nobody_elses_slot(subject: Subject) -> None:
    old = imagine(subject, samples=SLOTS)
    subject.run("release", {"handles": old})
    imagine(subject, samples=SLOTS)
    subject.run("release", {"handles": old})
    assert subject.used() == SLOTS


@pytest.mark.parametrize("verb", ["encode_images", "encode_text", "decode_video", "denoise"])
def test_every_backend_with_models_computes_the_same(reference: Subject, subject: Subject, verb: str) -> None:
    if subject.kind == "fake":
        return  # has no models
    inputs = example_inputs(subject.spec, verb, 2)
    for name, expected in reference.run(verb, inputs).items():
        tolerance = 1 if expected.dtype == np.uint8 else 1e-5
        np.testing.assert_allclose(
            subject.run(verb, inputs)[name].astype(float), expected.astype(float), atol=tolerance, err_msg=name
        )


def test_every_backend_with_models_plans_the_same(reference: Subject, subject: Subject) -> None:
    if subject.kind == "fake":
        return
    told = []
    for backend in (reference, subject):
        handles = imagine(backend, groups=2)
        values = backend.run("score", value_inputs(backend.spec, handles, flow_steps=4, release=0))["values"]
        single = handles[:, :1]
        backend.run("value_features", value_inputs(backend.spec, single, 1))
        actions = backend.run("decode", action_inputs(backend.spec, single))["actions"]
        backend.run("release", {"handles": handles[:, 1:]})
        told.append((values, actions))
    for ours, theirs in zip(told[0], told[1], strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_a_typed_error_stays_one(subject: Subject) -> None:
    text = np.full((1, subject.spec.max_prompt_tokens + 1), ord("a"), np.uint8)
    with pytest.raises(InvalidRequest) as refused:
        subject.run("encode_text", {"text": text})
    assert (refused.value.field, refused.value.expected) == (
        "instruction",
        f"at most {subject.spec.max_prompt_tokens} tokens",
    )
    subject.run("encode_text", example_inputs(subject.spec, "encode_text"))


async def cancelled(subject: Subject, verb: str, inputs: Tensors) -> None:
    """A call that its caller gives up while the model is at it."""
    call = asyncio.ensure_future(subject.backend.run(verb, inputs))
    await asyncio.sleep(BEGUN_S[subject.kind])
    assert not call.done(), "the call was to last longer"
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


def test_a_cancelled_call_stops_and_does_nothing_more(subject: Subject) -> None:
    """Had it gone on to its end, it would have released the slots."""
    handles = imagine(subject)
    endless = value_inputs(subject.spec, handles, 16, flow_steps=3000, release=1)
    subject.do(cancelled(subject, "score", endless))
    subject.run("release", {"handles": np.zeros((1, 0, 2), np.int64)})  # behind it, where calls queue
    assert subject.used() == N
    assert subject.run("score", value_inputs(subject.spec, handles, flow_steps=1, release=1))["status"].tolist() == [0]


def test_a_late_writer_spoils_nothing_and_keeps_nothing(subject: Subject) -> None:
    """Its slots are nobody else's while it may still write, and free afterwards."""
    whole = {**example_inputs(subject.spec, "imagine"), "noise_name": np.array([[[0, n] for n in range(SLOTS)]])}

    def score() -> np.ndarray:
        outputs = subject.run("imagine", whole)
        assert outputs["status"].tolist() == [Status.OK]
        inputs = value_inputs(subject.spec, outputs["handles"], flow_steps=2, release=1)
        return subject.run("score", inputs)["values"]

    undisturbed = score()
    late = {**whole, "memory": whole["memory"] + 1, "video_steps": np.full((1, 1), 3000, np.int32)}
    subject.do(cancelled(subject, "imagine", late))
    np.testing.assert_allclose(score(), undisturbed, atol=1e-5)
    assert subject.used() == 0
