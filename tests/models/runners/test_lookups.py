"""A model's process counts what its caches had and had not."""

from __future__ import annotations

from tests.backends.calls import example_inputs
from wavserve.bundle.bundle import Bundle
from wavserve.models.runners.loading import RunnerConfig, load_runners, lookups_of
from wavserve.system.lookups import Lookups, NewLookups


def test_an_instructions_keys_and_values_are_a_miss_once_and_hits_from_then_on(tiny: Bundle) -> None:
    runners = load_runners(tiny, RunnerConfig("cpu", "float32", 1, 8, lease_s=1e9, max_texts=4)).runners
    caches = {name: dict(lookups_of(runner)) for name, runner in runners.items()}
    assert {name for name, each in caches.items() if each} == {"video_dit"}
    texts = caches["video_dit"]["text"]
    for _ in range(3):
        runners["video_dit"].run("denoise", example_inputs(tiny.spec, "denoise", 1))
    assert (texts.hit, texts.miss) == (2, 1)
    runners["video_dit"].run("denoise", example_inputs(tiny.spec, "denoise", 2, text=False))
    assert (texts.hit, texts.miss) == (3, 2)  # a miss, even where the call brings no text to compute it from


def test_what_is_new_is_told_once() -> None:
    caches = {"text": Lookups(hit=2), "tensors": Lookups()}
    new = NewLookups(caches)
    assert list(new.take()) == [("text", "hit", 2), ("text", "miss", 0), ("tensors", "hit", 0), ("tensors", "miss", 0)]
    caches["tensors"].add(False)
    assert [more for _, _, more in new.take()] == [0, 0, 0, 1]
