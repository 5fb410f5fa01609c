"""A program of LeRobot's environment: opens a data set, and writes what it reads: `lerobot_dataset.py FOLDER OUT`."""

from __future__ import annotations

import sys

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

folder, out = sys.argv[1:]
dataset = LeRobotDataset("local/demonstrations", root=folder, delta_timestamps={"action": [0.0, 0.05, 0.1]})
rows = [dataset[index] for index in range(len(dataset))]
arrays = {
    name.replace("/", "_"): np.stack([np.asarray(row[name]) for row in rows])
    for name in rows[0]
    if not isinstance(rows[0][name], str)
}
stats = {f"stats:{name}:mean": np.asarray(values["mean"]) for name, values in dataset.meta.stats.items()}
lengths = np.array([episode["length"] for episode in dataset.meta.episodes])
np.savez(out, tasks=[row["task"] for row in rows], lengths=lengths, fps=dataset.fps, **arrays, **stats)
