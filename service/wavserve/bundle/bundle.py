"""A policy bundle on disk: its layout, its spec, its digest. Free of torch.

    policy.json                                        PolicySpec, and "format": 2
    transformer/diffusion_pytorch_model.safetensors    or shards beside `...safetensors.index.json`, official key names
    vae/ text_encoder/ tokenizer/                      diffusers and transformers layout
    golden.safetensors                                 the golden plan; optional, and not part of the digest

Weights are safetensors only. A pickle in the folder is an error, so that nobody can load it by mistake.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from wavserve.bundle import golden
from wavserve.bundle.checks import check_spec, entry_error
from wavserve.bundle.declared import check_declared
from wavserve.bundle.files import digest_files, files_below, read_header, read_json, refuse_pickles
from wavserve.bundle.golden import Golden
from wavserve.core.errors import BundleError
from wavserve.core.spec import LimitsSpec, PolicySpec, RtcSpec

FORMAT = 2
FORMATS = (1, FORMAT)
"""Format 1 declares nothing for motion: no embodiment, orientation, limits or real-time chunking."""
POLICY = "policy.json"
T = TypeVar("T")

TRANSFORMER, VAE, TEXT_ENCODER, TOKENIZER = PARTS = ("transformer", "vae", "text_encoder", "tokenizer")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A complete bundle: every part is present and its configs agree with the spec."""

    folder: Path
    spec: PolicySpec
    golden: Golden | None = field(repr=False)
    """the plan that a server checks before it is ready"""


def load_spec(folder: Path) -> PolicySpec:
    """The checked spec of a bundle. Raises BundleError naming the path in `policy.json`, expected and actual."""
    if not (folder / POLICY).is_file():
        found = f"a folder without {POLICY}" if folder.is_dir() else "a file" if folder.exists() else "nothing there"
        raise BundleError(f"{folder}: expected the folder of a policy bundle, got {found}")
    return parse(read_json(folder / POLICY))


def parse(document: dict[str, Any]) -> PolicySpec:
    """The checked spec of a `policy.json`'s content, from disk or from a model's host. Raises as `load_spec` does."""
    document = dict(document)
    stated = document.pop("format", "nothing")
    if type(stated) is not int or stated not in FORMATS:
        raise entry_error("format", " or ".join(map(str, FORMATS)), stated)
    check_declared(document, stated)
    spec = validated(TypeAdapter(PolicySpec), document, POLICY)
    if stated == 1:
        spec = replace(spec, rtc=RtcSpec(execution_horizon=min(RtcSpec().execution_horizon, spec.chunk)))
    check_spec(spec)
    return spec


def load_limits(path: Path) -> LimitsSpec:
    """Limits from a JSON file, as `action.limits` of `policy.json` has them. Raises BundleError naming the entry."""
    return validated(TypeAdapter(LimitsSpec), read_json(path), path.name)


def save_spec(folder: Path, spec: PolicySpec) -> None:
    """Writes `policy.json`. Raises BundleError for a spec that `load_spec` would refuse."""
    check_spec(spec)
    text = json.dumps(document(spec), indent=2)
    (folder / POLICY).write_text(text + "\n", encoding="utf-8")


def document(spec: PolicySpec) -> dict[str, Any]:
    """The content of `policy.json`, which `parse` reads."""
    return {"format": FORMAT, **spec_as_dict(spec)}


def spec_as_dict(spec: PolicySpec) -> dict[str, Any]:
    """The spec as plain JSON data."""
    plain: dict[str, Any] = TypeAdapter(PolicySpec).dump_python(spec, mode="json")
    return plain


def load(folder: Path) -> Bundle:
    """Opens a bundle without loading its weights.

    Checks the spec, that every part is present, that the VAE, the text encoder and the golden plan agree with the spec,
    and that there are no pickles. Raises BundleError naming the file.
    """
    spec = load_spec(folder)
    refuse_pickles(folder)
    for part in PARTS:
        files = files_below(folder / part)
        if part != TOKENIZER and not any(path.suffix == ".safetensors" for path in files):
            raise BundleError(f"{folder / part}: expected safetensors weights, got none")
    _check_vae(folder / VAE / "config.json", spec)
    _check_text(folder / TEXT_ENCODER / "config.json", spec)
    return Bundle(folder, spec, golden.read(folder, spec))


def digest(folder: Path) -> str:
    """sha256 (hex) over the name, length and bytes of `policy.json` and of every file of the four parts.

    It includes the configs and the tokeniser, because they change the results as much as the weights do.
    """
    parts = [path for part in PARTS for path in files_below(folder / part)]
    return digest_files(folder, [folder / POLICY, *parts])


def inspect(folder: Path) -> dict[str, Any]:
    """A bundle's summary for people: spec, digest, and the files, bytes, parameters and dtypes of each part."""
    bundle = load(folder)
    return {
        "name": bundle.spec.name,
        "untrained": bundle.spec.untrained,
        "notes": bundle.spec.notes,
        "digest": digest(folder),
        "golden_digest": "" if bundle.golden is None else bundle.golden.digest,
        "parts": {part: _part_summary(folder / part) for part in PARTS},
        "spec": spec_as_dict(bundle.spec),
    }


def validated(adapter: TypeAdapter[T], document: dict[str, Any], file: str) -> T:
    """A document's content, strictly. Raises BundleError naming every wrong entry of the file."""
    try:
        # pydantic's strict mode accepts a list for a tuple only in JSON text; it never accepts a text for a number
        return adapter.validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        raise _entries_error(error, file) from error


def _entries_error(error: ValidationError, file: str) -> BundleError:
    lines = []
    for entry in error.errors(include_url=False):
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in entry["loc"]).lstrip(".")
        actual = "nothing" if entry["type"] == "missing" else repr(entry["input"])[:80]
        expected = entry.get("ctx", {}).get("expected") or _EXPECTED.get(entry["type"], entry["msg"])
        lines.append(f"{path}: expected {expected}, got {actual}")
    return BundleError(f"{file}: " + "; ".join(lines))


_EXPECTED = {
    "missing": "a value",
    "unexpected_keyword_argument": "no such key",
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dataclass_type": "an object",
}
"""The expected value in our words, by pydantic's error type."""


def _part_summary(folder: Path) -> dict[str, Any]:
    files = files_below(folder)
    tensors = [info for path in files if path.suffix == ".safetensors" for info in read_header(path).values()]
    return {
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files),
        "parameters": sum(math.prod(info.shape) for info in tensors),
        "dtypes": sorted({info.dtype for info in tensors}),
    }


def _check_vae(path: Path, spec: PolicySpec) -> None:
    config = read_json(path)
    try:
        halvings = sum(config["spatio_temporal_scaling"])
        actual_values = {
            "latent_channels": config["latent_channels"],
            "spatial ratio": config["patch_size"] << halvings,
            "temporal ratio": config["patch_size_t"] << halvings,
        }
    except (KeyError, TypeError) as error:
        raise BundleError(f"{path}: expected the config of an AutoencoderKLLTXVideo: {error!r}") from error
    latent = spec.latent
    expected_values = (spec.model.video.in_channels, latent.spatial_ratio, latent.temporal_ratio)
    for (name, actual), expected in zip(actual_values.items(), expected_values, strict=True):
        if actual != expected:
            raise BundleError(f"{path}: {name}: expected {expected} as policy.json says, got {actual}")


def _check_text(path: Path, spec: PolicySpec) -> None:
    actual, expected = read_json(path).get("d_model"), spec.model.video.caption_channels
    if actual != expected:
        raise BundleError(f"{path}: d_model: expected {expected} (model.video.caption_channels), got {actual}")
