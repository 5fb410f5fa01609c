"""The steps before and after the policy: names, a batch dimension, the device. None normalises: the service does.

LeRobot finds the function by its name.
"""

from __future__ import annotations

from typing import Any

from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    DeviceProcessorStep,
    PolicyAction,
    PolicyProcessorPipeline,
    RenameObservationsProcessorStep,
    make_policy_processor_pipelines,
)

from lerobot_policy_wavserve.configuration_wavserve import WavserveConfig

Pipelines = tuple[
    PolicyProcessorPipeline[dict[str, Any], dict[str, Any]], PolicyProcessorPipeline[PolicyAction, PolicyAction]
]


def make_wavserve_pre_post_processors(config: WavserveConfig, dataset_stats: Any = None) -> Pipelines:
    """`dataset_stats` are not used: the policy has its own statistics."""
    pipelines: Pipelines = make_policy_processor_pipelines(
        input_steps=[
            RenameObservationsProcessorStep(rename_map={}),
            AddBatchDimensionProcessorStep(),
            DeviceProcessorStep(device=config.device),
        ],
        output_steps=[DeviceProcessorStep(device="cpu")],
    )
    return pipelines
