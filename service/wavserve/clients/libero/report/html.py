"""A run as one HTML page that needs no network: success with intervals, curves, latencies, videos, every episode.

Small videos are inside the page, others are linked. Knows no simulator.
"""

from __future__ import annotations

import base64
import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from wavserve.clients.libero.cells import Cell
from wavserve.clients.libero.records import EpisodeRecord, Spread
from wavserve.clients.libero.report import curves
from wavserve.clients.libero.report.summary import Summary, cell_words, suite_title, time_words
from wavserve.clients.libero.report.table import (
    NOTE,
    UNTRAINED,
    difference_header,
    difference_lines,
    failure_lines,
    lacking_lines,
    success_header,
    success_lines,
)
from wavserve.clients.libero.report.video import EpisodeVideo
from wavserve.clients.pages import Bad, document, legend, table
from wavserve.clients.pages import Cell as TableCell

MAX_EMBEDDED_BYTES = 16_000_000
"""of all videos inside the page; further ones are linked"""
STYLE = (
    ".untrained { color: var(--bad); font-size: 1.15rem; font-weight: 700; }\n"
    "video { width: 100%; background: #000; border-radius: 4px; } summary { cursor: pointer; }\n"
    "body { max-width: 84rem; } table { font-size: .85rem; margin-bottom: 1rem; } .curves { max-width: 46rem; }\n"
    "td, th { font-variant-numeric: tabular-nums; white-space: nowrap; }\n"
) + curves.STYLE
_EPISODE_COLUMNS = (
    "suite",
    "task",
    "state",
    "seed",
    "success",
    "steps",
    "plans",
    "lost",
    "late",
    "unsafe",
    "holds",
    "latency ms p50 / max",
    "seam jump p50 / max",
    "wall s",
)


def html(summary: Summary, videos: Sequence[EpisodeVideo] = ()) -> str:
    """The whole page."""
    config = summary.run.config
    title = f"LIBERO: {config.policy}"
    parts = [f"<h1>{escape(title)}</h1>"]
    if config.untrained:
        parts.append(f"<p class=untrained>{UNTRAINED}</p>")
    parts += [
        f"<p>{_outline(summary)}</p>",
        "<h2>Success in %</h2>",
        table(success_header(summary), success_lines(summary)),
        *_differences(summary),
        f"<p>{NOTE}</p>",
        *_curves(summary),
        "<h2>Plans and time</h2>",
        table(("cell", *_TIME), (_time_line(summary, cell) for cell in summary.cells)),
        "<h2>Tasks</h2>",
        _tasks(summary),
        *_videos(videos),
        "<h2>Configuration</h2>",
        table((), _configuration(summary)),
        table(("cell", "planner", "time", "real-time chunking"), map(_cell_line, summary.cells)),
        "<h2>Episodes</h2>",
        *(_episodes(summary, cell) for cell in summary.cells),
    ]
    return document(title, parts, STYLE)


def _outline(summary: Summary) -> str:
    records, config = summary.run.records, summary.run.config
    lacking = "".join(f" {line}." for line in [*lacking_lines(summary), *failure_lines(summary)])
    return escape(
        f"Episodes: {len(records)}. Cells: {len(summary.cells)}. Successes: {sum(one.success for one in records)}."
        f"{lacking} Policy digest {config.policy_digest[:16]}, wavserve {config.versions.get('wavserve', '?')}."
    )


def _differences(summary: Summary) -> Iterable[str]:
    if differences := summary.differences():
        yield "<h2>Differences in points</h2>"
        yield table(difference_header(summary), difference_lines(summary, differences))


def _curves(summary: Summary) -> Iterable[str]:
    if drawn := curves.against_delay(summary):
        yield f"<h2>Success against delay</h2>{legend(curves.keys(drawn))}"
        drawing = curves.draw(drawn, "average success in %, by the mean latency of plans", "latency in ms")
        yield f"<div class=curves>{drawing}</div>"
    for option, lines in curves.against_options(summary).items():
        yield f"<h2>Success against {escape(option)}</h2>{legend(curves.keys(lines))}"
        yield f"<div class=curves>{curves.draw(lines, f'average success in %, by {option}', option)}</div>"


_TIME = (
    "plans",
    "lost",
    "late",
    "unsafe",
    "holds",
    "latency ms p50 / p90 / p99 / max",
    "plan ms (wall) p50 / p90 / p99 / max",
    "seam jump p50 / max",
    "steps to success",
)


def _time_line(summary: Summary, cell: Cell) -> list[str]:
    """Percentiles are those of the median episode, and the largest of all episodes."""
    records = summary.by_cell[cell.name]
    walls = [_wall_spread(record) for record in records]
    steps = [record.num_steps for record in records if record.success]
    return [
        cell.name,
        *(
            str(sum(getattr(record, f"num_{what}") for record in records))
            for what in ("plans", "lost", "late", "unsafe", "holds")
        ),
        _pooled([record.plan_latency_ms for record in records], "{:.0f} / {:.0f} / {:.0f} / {:.0f}"),
        _pooled(walls, "{:.0f} / {:.0f} / {:.0f} / {:.0f}"),
        _pooled([record.seam_jump for record in records], "{0:.1%} / {3:.1%}"),
        f"{statistics.median(steps):g}" if steps else "-",
    ]


def _wall_spread(record: EpisodeRecord) -> Spread | None:
    names = [f"plan_ms_{name}" for name in ("p50", "p90", "p99", "max")]
    return Spread(*(record.wall[name] for name in names)) if record.wall.keys() >= set(names) else None


def _pooled(spreads: Iterable[Spread | None], form: str) -> str:
    found = [dataclasses.astuple(spread) for spread in spreads if spread is not None]
    if not found:
        return "-"
    columns = list(zip(*found, strict=True))
    return form.format(*(statistics.median(column) for column in columns[:3]), max(columns[3]))


def _tasks(summary: Summary) -> str:
    lines = []
    for suite, task, name in summary.tasks():
        counts = (summary.task_counts(cell, suite, task) for cell in summary.cells)
        words = (f"{num_successes} of {num}" for num_successes, num in counts)
        lines.append([suite_title(suite), str(task), name.replace("_", " "), *words])
    return table(("suite", "task", "name", *(cell.name for cell in summary.cells)), lines)


def _videos(videos: Sequence[EpisodeVideo]) -> Iterable[str]:
    if not videos:
        return
    yield "<h2>Videos</h2><div class=grid>"
    left = MAX_EMBEDDED_BYTES
    for video in videos:
        left -= video.file.stat().st_size
        yield f"<figure>{_player(video, left >= 0)}<figcaption>{escape(video.words)}</figcaption></figure>"
    yield "</div>"


def _player(video: EpisodeVideo, is_embedded: bool) -> str:
    source = f"{video.file.parent.name}/{video.file.name}"
    if is_embedded:
        source = f"data:video/mp4;base64,{base64.b64encode(video.file.read_bytes()).decode('ascii')}"
    return f'<video controls muted playsinline aria-label="{escape(video.words)}" src="{escape(source)}"></video>'


def _configuration(summary: Summary) -> Iterable[tuple[str, str]]:
    config = summary.run.config
    for field in dataclasses.fields(config):
        if field.name != "cells":
            yield field.name.replace("_", " "), _words(getattr(config, field.name))
    services = sorted({record.versions.get("service", "") for record in summary.run.records} - {""})
    if services:
        yield "service", ", ".join(services)


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "all"
    return "the suite's" if value is None else str(value)


def _cell_line(cell: Cell) -> tuple[str, str, str, str]:
    return cell.name, cell_words(cell), time_words(cell), cell.rtc


def _episodes(summary: Summary, cell: Cell) -> str:
    records = sorted(summary.by_cell[cell.name], key=lambda one: one.key)
    words = f"{cell.name}: {sum(one.success for one in records)} of {len(records)}"
    return (
        f"<details><summary>{escape(words)}</summary>{table(_EPISODE_COLUMNS, map(_episode_line, records))}</details>"
    )


def _episode_line(record: EpisodeRecord) -> list[TableCell]:
    return [
        suite_title(record.suite),
        str(record.task),
        str(record.state_index),
        str(record.seed),
        "yes" if record.success else Bad(record.failure or "no"),
        str(record.num_steps),
        str(record.num_plans),
        str(record.num_lost),
        str(record.num_late),
        str(record.num_unsafe),
        str(record.num_holds),
        _pooled([record.plan_latency_ms], "{0:.0f} / {3:.0f}"),
        _pooled([record.seam_jump], "{0:.1%} / {3:.1%}"),
        f"{record.wall['episode_s']:.1f}" if "episode_s" in record.wall else "-",
    ]
