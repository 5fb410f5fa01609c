"""Makes a policy bundle from the authors' files: checkpoint, configuration, statistics and a folder of encoders.

Weights are checked by their headers and copied unchanged. They are never loaded or unpickled.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from wavserve.bundle import bundle
from wavserve.bundle.files import atomic_folder, files_below, refuse_pickles
from wavserve.models.golden import add_golden
from wavserve.models.weights import weights
from wavserve.models.weights.checkpoint import FILE, INDEX, files
from wavserve.models.weights.official import ImportOptions, read_spec

__all__ = ["ImportOptions", "import_policy"]


def import_policy(
    checkpoint: Path, config: Path, stats: Path, assets: Path, out: Path, options: ImportOptions
) -> bundle.Bundle:
    """Makes the bundle of the authors' policy at `out`.

    `checkpoint` is a safetensors file, an index of shards, or a folder with either. `assets` is a folder with `vae/`,
    `text_encoder/` and `tokenizer/`. Raises BundleError when `out` exists, or naming a key, tensor or file that is
    missing, unexpected or of the wrong shape.
    """
    spec = read_spec(config, stats, options)
    weights.check(checkpoint, spec.model)
    encoders = (bundle.VAE, bundle.TEXT_ENCODER, bundle.TOKENIZER)
    for part in encoders:
        refuse_pickles(assets / part)
    with atomic_folder(out) as partial:
        bundle.save_spec(partial, spec)  # first, because it checks the spec before gigabytes are copied
        for source, target in _weights(checkpoint, partial / bundle.TRANSFORMER):
            _copy(source, target)
        for part in encoders:
            for source in files_below(assets / part):
                _copy(source, partial / part / source.relative_to(assets / part))
        if options.with_golden:
            add_golden(partial)
        bundle.load(partial)
    return bundle.load(out)


def _weights(checkpoint: Path, folder: Path) -> Iterator[tuple[Path, Path]]:
    """Each file of the checkpoint with its path in the bundle. Shards keep the names that the index gives them."""
    index = checkpoint / INDEX if checkpoint.is_dir() else checkpoint
    if index.suffix == ".json" and index.is_file():
        yield index, folder / INDEX
        yield from ((shard, folder / shard.name) for shard in files(index))
    else:
        yield files(checkpoint)[0], folder / FILE


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
