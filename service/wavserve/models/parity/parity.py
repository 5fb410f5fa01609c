"""Compares our models with every model-level fixture of a folder, on the plain path and on any fast path.

This module knows which function compares which fixture. It does not know the service's planner, which `app.parity`
compares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

from wavserve.models.parity import forwards, pipelines
from wavserve.models.parity.fixtures import Check, Fixture, read_fixture
from wavserve.models.parity.subject import Compared, Subject, compared, read_subject

__all__ = ["COMPARISONS", "Check", "check_models"]

COMPARISONS: Mapping[str, Callable[[Subject, Fixture], Iterator[Compared]]] = {
    "01_rope_schedule": forwards.tables,
    "02_video_forward": forwards.video_forward,
    "03_value_forward": forwards.value_forward,
    "04_action_forward": forwards.action_forward,
    "05_infer_action": pipelines.decode,
    "06_infer_video": pipelines.denoise,
    "08_plan_official": pipelines.plan_published,
    "09_plan_corrected": pipelines.plan_paper,
    "10_vae": pipelines.vae,
    "11_norm_eps": forwards.norms,
}
"""Fixture -> the function that compares it. Fixtures that are not in the folder are skipped."""


@torch.inference_mode()
def check_models(folder: Path) -> list[Check]:
    """Every check of every fixture in the folder. Raises BundleError when the folder cannot be read."""
    subject = read_subject(folder)
    checks = []
    for name, compare in COMPARISONS.items():
        fixture = read_fixture(folder, name)
        if fixture is not None:
            checks += [compared(name, *pair) for pair in compare(subject, fixture)]
    return checks
