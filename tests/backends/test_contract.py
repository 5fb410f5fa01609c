"""The contract of every backend: shapes by the signature table, independent groups, and the statuses of the arena."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from tests.backends.calls import M, N, action_inputs, example_inputs, guided_inputs, prefix_inputs, value_inputs
from tests.backends.rig import SLOTS, TIMEOUT_S, Subject
from wavserve.core import noise
from wavserve.core.errors import InvalidRequest
from wavserve.core.noise import Stream
from wavserve.core.spec import PolicySpec
from wavserve.core.types import Tensors
from wavserve.core.verbs import VERBS, GroupStatus

BEGUN_S = {"fake": 0.001, "local": 0.2, "triton": 0.2}
"""Seconds after which the model has begun a call."""


def assert_outputs(subject: Subject, verb: str, outputs: Tensors, groups: int, samples: int) -> None:
    """Checks names, dtypes and shapes against the signature table."""
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
        declared = [int(letter) if letter.isdigit() else sizes.get(letter) for letter in shape.split()]
        actual = outputs[name].shape
        assert actual[0] == groups, name
        assert len(actual) == 1 + len(declared), name
        pairs = zip(declared, actual[1:], strict=True)
        assert all(want in (None, have) for want, have in pairs), (name, declared, actual)


@pytest.mark.parametrize("verb", ["encode_images", "encode_text", "decode_video", "imagine", "denoise"])
@pytest.mark.parametrize("groups", [1, 2])
async def test_outputs_follow_the_signature_table(subject: Subject, verb: str, groups: int) -> None:
    outputs = await subject.run(verb, example_inputs(subject.spec, verb, groups))
    assert_outputs(subject, verb, outputs, groups, N if verb == "imagine" else 1)


async def test_outputs_on_handles_follow_the_signature_table(subject: Subject) -> None:
    handles = await subject.imagine(groups=2)
    scored = await subject.run("score", value_inputs(subject.spec, handles, flow_steps=2, release=0))
    assert_outputs(subject, "score", scored, 2, N)
    single = handles[:, :1]
    answered = await subject.run("value_features", value_inputs(subject.spec, single, 1))
    assert_outputs(subject, "value_features", answered, 2, 1)
    assert_outputs(subject, "decode", await subject.run("decode", action_inputs(subject.spec, single)), 2, 1)
    assert_outputs(subject, "release", await subject.run("release", {"handles": handles[:, 1:]}), 2, 1)
    assert await subject.used() == 0


@pytest.mark.parametrize(("verb", "groups"), [("encode_images", 9), ("decode_video", 3), ("denoise", 3)])
async def test_a_group_does_not_depend_on_its_neighbours(subject: Subject, verb: str, groups: int) -> None:
    """Nine groups have more images than a CPU encodes at a time."""
    inputs = example_inputs(subject.spec, verb, groups)
    together = await subject.run(verb, inputs)
    for g in range(groups):
        alone = await subject.run(verb, {name: tensor[g : g + 1] for name, tensor in inputs.items()})
        for name, tensor in alone.items():
            tolerance = 1 if tensor.dtype == np.uint8 else 1e-5
            np.testing.assert_allclose(together[name][g : g + 1].astype(float), tensor.astype(float), atol=tolerance)


async def test_scores_and_actions_do_not_depend_on_neighbours(subject: Subject) -> None:
    handles = await subject.imagine(groups=3, samples=1)
    scoring = value_inputs(subject.spec, handles, flow_steps=2, release=0)
    inspecting, acting = value_inputs(subject.spec, handles, 1), action_inputs(subject.spec, handles)
    scores = (await subject.run("score", scoring))["values"]
    alone = [(await subject.run("score", {n: t[g : g + 1] for n, t in scoring.items()}))["values"][0] for g in range(3)]
    np.testing.assert_allclose(scores, np.stack(alone), atol=1e-5)
    assert not np.allclose(scores[0], scores[1])
    await subject.run("value_features", inspecting)
    first = (await subject.run("decode", {n: t[:1] for n, t in acting.items()}))["actions"]
    rest = (await subject.run("decode", {n: t[1:] for n, t in acting.items()}))["actions"]
    handles = await subject.imagine(groups=3, samples=1)
    await subject.run("value_features", {**inspecting, "handles": handles})
    together = (await subject.run("decode", {**acting, "handles": handles}))["actions"]
    np.testing.assert_allclose(together, np.concatenate([first, rest]), atol=1e-5)


@pytest.mark.parametrize("make", [action_inputs, guided_inputs, prefix_inputs])
async def test_a_decode_follows_the_table_and_does_not_depend_on_its_neighbours(
    subject: Subject, make: Callable[[PolicySpec, np.ndarray], Tensors]
) -> None:
    answers = []
    for chosen in (slice(0, 3), slice(0, 1), slice(1, 3)):
        handles = await subject.imagine(groups=3, samples=1)
        await subject.run("value_features", value_inputs(subject.spec, handles, 1))
        inputs = {name: tensor[chosen] for name, tensor in make(subject.spec, handles).items()}
        answers.append(await subject.run("decode", inputs))
        assert_outputs(subject, "decode", answers[-1], len(inputs["handles"]), 1)
        rest = np.concatenate([handles[: chosen.start], handles[chosen.stop :]])
        if len(rest):
            await subject.run("release", {"handles": rest})
    together, first, others = (each["actions"] for each in answers)
    np.testing.assert_allclose(together, np.concatenate([first, others]), atol=1e-5)
    assert await subject.used() == 0


async def test_a_left_over_draws_the_actions_near(subject: Subject) -> None:
    actions = {}
    for name, make in (("free", action_inputs), ("guided", guided_inputs), ("after a prefix", prefix_inputs)):
        handles = await subject.imagine(groups=3, samples=1)
        await subject.run("value_features", value_inputs(subject.spec, handles, 1))
        actions[name] = (await subject.run("decode", make(subject.spec, handles)))["actions"]
    left_over = guided_inputs(subject.spec, handles)["left_over"]
    dim = left_over.shape[2]
    distance = {name: np.abs(each[:, :1, :dim] - left_over[:, :1]).mean() for name, each in actions.items()}
    assert distance["guided"] < 0.7 * distance["free"]
    np.testing.assert_array_equal(actions["after a prefix"][2, :2, :dim], left_over[2, :2])
    np.testing.assert_allclose(actions["after a prefix"][0], actions["free"][0], atol=1e-5)


async def test_every_backend_with_models_continues_the_same(reference: Subject, subject: Subject) -> None:
    if subject.kind == "fake":
        return
    for make in (guided_inputs, prefix_inputs):
        results = []
        for backend in (reference, subject):
            handles = await backend.imagine(groups=2, samples=1)
            await backend.run("value_features", value_inputs(backend.spec, handles, 1))
            results.append((await backend.run("decode", make(backend.spec, handles)))["actions"])
        np.testing.assert_allclose(results[1], results[0], atol=1e-5)


async def test_explicit_noise_replaces_the_named_draw(subject: Subject) -> None:
    inputs = example_inputs(subject.spec, "denoise")
    shape = (subject.spec.num_views, *inputs["mean"].shape[2:])
    explicit = noise.draw_many((0, 0), Stream.VIDEO, 0, [0], shape)[None]
    named = (await subject.run("denoise", inputs))["latents"]
    np.testing.assert_array_equal(named, (await subject.run("denoise", {**inputs, "noise": explicit}))["latents"])
    other = (await subject.run("denoise", {**inputs, "noise": explicit + 1}))["latents"]
    assert not np.allclose(named, other)


async def test_a_missing_text_fails_its_group_and_the_neighbour_is_served(subject: Subject) -> None:
    await subject.run("release", {"handles": await subject.imagine()})  # text 0 is cached now
    both = await subject.run("imagine", example_inputs(subject.spec, "imagine", 2, text=False))
    assert both["status"].tolist() == [GroupStatus.OK, GroupStatus.TEXT_MISS]
    missed = await subject.run("denoise", example_inputs(subject.spec, "denoise", 2, text=False))
    assert missed["status"].tolist() == [GroupStatus.OK, GroupStatus.TEXT_MISS]
    assert await subject.used() == N


async def test_the_most_recent_texts_stay_cached(subject: Subject) -> None:
    for seed in range(6):
        handles = (await subject.run("imagine", example_inputs(subject.spec, "imagine", seed=seed)))["handles"]
        await subject.run("release", {"handles": handles})
    cached = []
    for seed in range(6):
        outputs = await subject.run("denoise", example_inputs(subject.spec, "denoise", seed=seed, text=False))
        cached.append(outputs["status"][0] == GroupStatus.OK)
    assert cached == [False, False, True, True, True, True]


async def test_a_full_arena_fails_a_whole_group_and_the_neighbour_is_served(subject: Subject) -> None:
    held = await subject.imagine(samples=SLOTS - N)
    outputs = await subject.run("imagine", example_inputs(subject.spec, "imagine", 2))
    assert outputs["status"].tolist() == [GroupStatus.OK, GroupStatus.ARENA_FULL]
    assert await subject.used() == SLOTS
    await subject.run("release", {"handles": held})
    assert await subject.used() == N
    assert (await subject.imagine(samples=SLOTS - N)).shape == (1, SLOTS - N, 2)


async def test_score_releases_slots_only_when_its_parameter_says_so(subject: Subject) -> None:
    handles = await subject.imagine()
    for release in (0, 1):
        outputs = await subject.run("score", value_inputs(subject.spec, handles, flow_steps=1, release=release))
        assert await subject.used() == N * (1 - release)
        assert outputs["status"].tolist() == [GroupStatus.OK]


@pytest.mark.parametrize("verb", ["score", "value_features", "decode"])
async def test_a_stale_handle_fails_its_group_and_the_neighbour_is_served(subject: Subject, verb: str) -> None:
    stale = await subject.imagine(samples=1)
    await subject.run("release", {"handles": stale})
    good = await subject.imagine(samples=1)
    handles = np.concatenate([stale, good])
    if verb == "decode":
        await subject.run("value_features", value_inputs(subject.spec, good, 1))
        inputs = action_inputs(subject.spec, handles)
    else:
        params = {"flow_steps": 1, "release": 0} if verb == "score" else {}
        inputs = value_inputs(subject.spec, handles, 1, **params)
    assert (await subject.run(verb, inputs))["status"].tolist() == [GroupStatus.STALE_HANDLE, GroupStatus.OK]
    assert (await subject.run(verb, {**inputs, "handles": handles[::-1]}))["status"][1] == GroupStatus.STALE_HANDLE


async def test_a_second_release_does_not_free_the_slots_next_owner(subject: Subject) -> None:
    old = await subject.imagine(samples=SLOTS)
    await subject.run("release", {"handles": old})
    await subject.imagine(samples=SLOTS)
    await subject.run("release", {"handles": old})
    assert await subject.used() == SLOTS


@pytest.mark.parametrize("verb", ["encode_images", "encode_text", "decode_video", "denoise"])
async def test_every_backend_with_models_computes_the_same(reference: Subject, subject: Subject, verb: str) -> None:
    if subject.kind == "fake":
        return  # it has no models
    inputs = example_inputs(subject.spec, verb, 2)
    for name, expected in (await reference.run(verb, inputs)).items():
        tolerance = 1 if expected.dtype == np.uint8 else 1e-5
        actual = (await subject.run(verb, inputs))[name]
        np.testing.assert_allclose(actual.astype(float), expected.astype(float), atol=tolerance, err_msg=name)


async def test_every_backend_with_models_plans_the_same(reference: Subject, subject: Subject) -> None:
    if subject.kind == "fake":
        return
    results = []
    for backend in (reference, subject):
        handles = await backend.imagine(groups=2)
        values = (await backend.run("score", value_inputs(backend.spec, handles, flow_steps=4, release=0)))["values"]
        single = handles[:, :1]
        await backend.run("value_features", value_inputs(backend.spec, single, 1))
        actions = (await backend.run("decode", action_inputs(backend.spec, single)))["actions"]
        await backend.run("release", {"handles": handles[:, 1:]})
        results.append((values, actions))
    for ours, theirs in zip(results[0], results[1], strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-5)


async def test_a_typed_error_keeps_its_type_and_fields(subject: Subject) -> None:
    text = np.full((1, subject.spec.max_prompt_tokens + 1), ord("a"), np.uint8)
    with pytest.raises(InvalidRequest) as refused:
        await subject.run("encode_text", {"text": text})
    assert (refused.value.field, refused.value.expected) == (
        "instruction",
        f"at most {subject.spec.max_prompt_tokens} tokens",
    )
    await subject.run("encode_text", example_inputs(subject.spec, "encode_text"))


async def cancelled(subject: Subject, verb: str, inputs: Tensors) -> None:
    """Makes a call, and cancels it while the model computes it."""
    call = asyncio.ensure_future(subject.backend.run(verb, inputs))
    await asyncio.sleep(BEGUN_S[subject.kind])
    assert not call.done(), "the call ended before it could be cancelled"
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(call, TIMEOUT_S)


async def test_a_cancelled_call_stops_before_its_end(subject: Subject) -> None:
    """At its end the call would have released the slots."""
    handles = await subject.imagine()
    endless = value_inputs(subject.spec, handles, 16, flow_steps=3000, release=1)
    await cancelled(subject, "score", endless)
    await subject.run("release", {"handles": np.zeros((1, 0, 2), np.int64)})  # queues behind the cancelled call
    assert await subject.used() == N
    scored = await subject.run("score", value_inputs(subject.spec, handles, flow_steps=1, release=1))
    assert scored["status"].tolist() == [GroupStatus.OK]


async def test_a_cancelled_writer_spoils_no_features_and_frees_its_slots(subject: Subject) -> None:
    """Its slots are not reallocated while it may still write, and are free afterwards."""
    whole = {**example_inputs(subject.spec, "imagine"), "noise_name": np.array([[[0, n] for n in range(SLOTS)]])}
    undisturbed = await scores_of(subject, whole)
    late = {**whole, "memory": whole["memory"] + 1, "video_steps": np.full((1, 1), 3000, np.int32)}
    await cancelled(subject, "imagine", late)
    np.testing.assert_allclose(await scores_of(subject, whole), undisturbed, atol=1e-5)
    assert await subject.used() == 0


async def scores_of(subject: Subject, imagining: Tensors) -> np.ndarray:
    """Imagines samples in one call, and returns their values. All slots are free afterwards."""
    outputs = await subject.run("imagine", imagining)
    assert outputs["status"].tolist() == [GroupStatus.OK]
    scoring = value_inputs(subject.spec, outputs["handles"], flow_steps=2, release=1)
    return (await subject.run("score", scoring))["values"]
