"""Markup of the live page: a snapshot in pieces, each of which can be replaced alone. Jinja escapes every text.

Runs in a thread. Knows no request and no viewer.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from wavserve.core.messages import EncodedImage
from wavserve.core.spec import PolicySpec
from wavserve.edge.http.ui import drawings
from wavserve.edge.http.ui.live import Look
from wavserve.edge.http.ui.snapshot import Card, Snapshot
from wavserve.system.memory import MEMORY

_FOLDER = Path(__file__).parent / "templates"


class Page:
    """Renders snapshots. Drawings of a chunk are kept as long as the chunk is shown."""

    def __init__(self, spec: PolicySpec) -> None:
        loader = jinja2.FileSystemLoader(_FOLDER)
        self._env = jinja2.Environment(
            loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        self._env.filters |= {"seconds": seconds_words, "size": size_words, "number": number_words}
        self._env.globals |= {"memory_words": memory_words, "memory_meanings": MEMORY}
        self._pieces: Any = self._env.get_template("pieces.html").module
        self._spec = spec
        self._drawn: dict[str, Markup] = {}  # by card and chunk

    def look(self, snapshot: Snapshot) -> Look:
        """The snapshot in pieces."""
        pieces = self._pieces
        made = {
            "status": pieces.status(snapshot, datetime.now(UTC)),
            "robots-note": pieces.robots_note(snapshot),
            "devices": pieces.devices(snapshot),
            "store": pieces.store(snapshot),
            "refusals": pieces.refusals(snapshot),
        }
        drawn = {}
        for card in snapshot.cards:
            made[f"f-{card.key}"] = pieces.facts(card, snapshot)
            name = f"{card.key} {'' if card.plan is None else card.plan.chunk.chunk_id}"
            drawn[name] = made[f"p-{card.key}"] = self._drawn.get(name) or self._plan(card)
        self._drawn = drawn
        cards = [(card.key, card.name) for card in snapshot.cards]
        return Look(cards, {key: str(html).strip() for key, html in made.items()})

    def document(self, look: Look) -> str:
        """The whole page."""
        pieces = {key: Markup(html) for key, html in look.pieces.items()}  # made here
        return self._env.get_template("page.html").render(cards=look.cards, pieces=pieces)

    def frames(self, name: str, frames: Mapping[str, Sequence[EncodedImage]]) -> str:
        """Imagined frames, as a part of the page. `name`: of the robot."""
        urls = {camera: [_data_url(each) for each in images] for camera, images in frames.items()}
        return str(self._pieces.frames(name, urls))

    def refusal(self, name: str, why: str) -> str:
        """Why there are no frames, as a part of the page."""
        return str(self._pieces.no_frames(name, why))

    def alone(self, part: str) -> str:
        """A part as a document of its own, for a browser without scripts."""
        return self._env.get_template("alone.html").render(part=Markup(part))  # made here

    def _plan(self, card: Card) -> Markup:
        if card.plan is None:
            return Markup(self._pieces.no_plan())  # made here
        chunk = card.plan.chunk
        curve = drawings.score_curve(chunk.receipt.iterations)
        actions = drawings.action_drawings(chunk.actions, self._spec.action.vector)
        return Markup(self._pieces.plan(chunk, curve, actions))  # made here


def seconds_words(seconds: float) -> str:
    """A duration in the unit that fits it."""
    if not math.isfinite(seconds):
        return "unknown"
    if abs(seconds) < 0.9995:
        return f"{1e3 * seconds:.0f} ms"
    if abs(seconds) < 59.95:
        return f"{seconds:.1f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.0f} min" if minutes < 119.5 else f"{hours:.0f} h" if hours < 47.5 else f"{hours / 24:.0f} days"


def size_words(num_bytes: float) -> str:
    """Bytes in the unit that fits them."""
    if not math.isfinite(num_bytes):
        return "unknown"
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} GiB"


def number_words(value: float) -> str:
    return f"{value:.3g}"


def memory_words(name: str) -> str:
    """A key of `MEMORY` as a label."""
    return name.removeprefix("model_").removesuffix("_bytes").replace("_", " ").replace("torch", "GPU,")


def _data_url(image: EncodedImage) -> str:
    return f"data:image/{image.encoding};base64,{base64.b64encode(image.data).decode()}"
