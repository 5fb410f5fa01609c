"""A run as Markdown, in the layout of the paper's table: a line a cell, a column a suite, and their average."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from wavserve.clients.libero.report.statistics import Estimate
from wavserve.clients.libero.report.summary import Difference, Summary, suite_title

UNTRAINED = "UNTRAINED: the policy's weights are random. Its success says nothing about a trained policy."
NOTE = (
    "Success in %, with the 95 % interval (Wilson) and the number of episodes. The average weighs suites equally. "
    "A difference is in points, over the episodes of both cells that began alike; its 95 % interval is Tango's score "
    "interval for pairs. Intervals take episodes as independent. The initial states of a task are alike, so the truth "
    "may lie further away."
)


def markdown(summary: Summary) -> str:
    """Success of each cell, and the differences between cells."""
    config = summary.run.config
    lines = [f"# LIBERO: {config.policy}", ""]
    if config.untrained:
        lines += [f"**{UNTRAINED}**", ""]
    versions = ", ".join(f"{name} {version}" for name, version in config.versions.items())
    plain = "" if config.antialiasing else "; pictures without anti-aliasing"
    shifted = f"; objects shifted by up to {config.shift * 100:g} cm" if config.shift else ""
    lines += [f"Policy digest `{config.policy_digest[:16]}`; {versions}{plain}{shifted}.", ""]
    lines += markdown_table(success_header(summary), success_lines(summary))
    if differences := summary.differences():
        lines += ["", *markdown_table(difference_header(summary), difference_lines(summary, differences))]
    lines += ["", NOTE]
    if told := [*lacking_lines(summary), *failure_lines(summary)]:
        lines += ["", *(f"- {line}" for line in told)]
    return "\n".join(lines) + "\n"


def lacking_lines(summary: Summary) -> list[str]:
    """Which cells have fewer episodes than the others, as in a run that was stopped."""
    missing = {cell.name: summary.num_missing(cell) for cell in summary.cells}
    return [f"{name} lacks {num} of {summary.num_starts} starts" for name, num in missing.items() if num]


def failure_lines(summary: Summary) -> list[str]:
    """Of each cell: what ended episodes before success and the limit, and how many."""
    counts = Counter((one.cell, one.failure) for one in summary.run.records if one.failure)
    return [f"{cell}: {num} failed, because {failure}" for (cell, failure), num in sorted(counts.items())]


def success_header(summary: Summary) -> list[str]:
    return ["cell", *map(suite_title, summary.suites), "average"]


def success_lines(summary: Summary) -> list[list[str]]:
    """Of each cell: its name, success by suite, the average."""
    return [
        [
            cell.name,
            *(rate_text(summary.rate(cell, suite)) for suite in summary.suites),
            rate_text(summary.average(cell)),
        ]
        for cell in summary.cells
    ]


def difference_header(summary: Summary) -> list[str]:
    return ["difference", *map(suite_title, summary.suites), "average"]


def difference_lines(summary: Summary, differences: Iterable[Difference]) -> list[list[str]]:
    """Of each pair of cells: their names, differences by suite, the average."""
    return [
        [
            f"{one.cell.name} minus {one.reference.name}",
            *(difference_text(one.suites[suite]) for suite in summary.suites),
            difference_text(one.average),
        ]
        for one in differences
    ]


def rate_text(rate: Estimate) -> str:
    """`91.7 (74.2 to 97.7), n 24`."""
    if math.isnan(rate.value):
        return "-"
    return f"{rate.value * 100:.1f} ({rate.low * 100:.1f} to {rate.high * 100:.1f}), n {rate.num}"


def difference_text(difference: Estimate) -> str:
    """`+4.2 (-9.1 to +18.3), n 24`."""
    if math.isnan(difference.value):
        return "-"
    low, high = difference.low * 100, difference.high * 100
    return f"{difference.value * 100:+.1f} ({low:+.1f} to {high:+.1f}), n {difference.num}"


def markdown_table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    rows = [header, ["---"] * len(header), *lines]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
