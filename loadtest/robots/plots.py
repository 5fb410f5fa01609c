"""The plots of a run: what a reader asks of it, a function each, journal in, inline SVG out.

Called by `page`; PLOTS lists them in the order in which they are shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from loadtest.robots import figures
from loadtest.robots.charts import COLOURS, Timeline, draw, legend, mark_phases, stack, svg
from loadtest.robots.journal import Ask, Journal
from loadtest.robots.results import batch

BLUE, ORANGE, GREEN, VIOLET, GREY, BROWN = COLOURS
MB = 1e6

OUTCOME_COLOURS = {
    "none": BLUE,
    "met": GREEN,
    "met_degraded": BROWN,
    "missed": ORANGE,
    "refused": GREY,
    "failed": VIOLET,
    "lost": "#000000",
}


def stages(journal: Journal) -> str:
    """Median and p99 of each stage of a receipt, of the whole in the service, and as the robot saw it."""
    rows = _stage_rows(_counted(journal))
    figure, axes = draw(height=0.5 + 0.26 * max(len(rows), 3))
    for index, (_, seconds) in enumerate(rows):
        p50, p99 = (figures.percentile(seconds, q) or 0.0 for q in (50, 99))
        axes.barh(index, p50 * 1e3, color=BLUE, height=0.6, label="p50" if not index else None)
        axes.plot([p50 * 1e3, p99 * 1e3], [index, index], color=GREY, lw=1.2, label="to p99" if not index else None)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.invert_yaxis()
    axes.set_xlabel("ms")
    legend(axes)
    return svg(figure, "latency by stage")


def latency(journal: Journal) -> str:
    """Percentiles of answered plans, by when they were answered."""
    timeline = Timeline.of(journal)
    figure, axes = draw()
    found = timeline.gathered((ask.ended, ask.seconds * 1e3) for ask in figures.answered(journal.asks))
    for q, colour in ((50, BLUE), (99, ORANGE)):
        shown = [(at, figures.percentile(v, q)) for at, v in zip(timeline.begins, found, strict=True) if v]
        axes.plot([at for at, _ in shown], [v or 0.0 for _, v in shown], color=colour, label=f"p{q}", lw=1.4)
    axes.set_ylabel("ms")
    mark_phases(axes, journal.spans, timeline.zero)
    legend(axes)
    return svg(figure, "latency over time")


def deadlines(journal: Journal) -> str:
    """What became of asks, by when they ended."""
    timeline = Timeline.of(journal)
    figure, axes = draw()
    ends: dict[str, list[float]] = {name: [] for name in OUTCOME_COLOURS}
    for ask in journal.asks:
        ends[ask.reply.deadline if ask.reply is not None else ask.outcome].append(ask.ended)
    layers = [(name, timeline.counts(ends[name]), colour) for name, colour in OUTCOME_COLOURS.items()]
    stack(axes, timeline, layers)
    axes.set_ylabel(f"asks in {timeline.width:.0f} s")
    mark_phases(axes, journal.spans, timeline.zero)
    legend(axes)
    return svg(figure, "deadline hits over time")


def rounds(journal: Journal) -> str:
    """Planning rounds of the plans answered."""
    timeline = Timeline.of(journal)
    figure, axes = draw()
    spent: dict[int, list[float]] = {}
    for ask in figures.answered(journal.asks):
        if ask.reply is not None:
            spent.setdefault(ask.reply.iterations_done, []).append(ask.ended)
    colours = {k: COLOURS[index % len(COLOURS)] for index, k in enumerate(sorted(spent))}
    stack(axes, timeline, [(f"K = {k}", timeline.counts(spent[k]), colours[k]) for k in sorted(spent)])
    axes.set_ylabel(f"plans in {timeline.width:.0f} s")
    mark_phases(axes, journal.spans, timeline.zero)
    legend(axes)
    return svg(figure, "K spent")


def batches(journal: Journal) -> str:
    """Groups that joined in a call, and what waits: once a second, from /metrics."""
    timeline = Timeline.of(journal)
    figure, axes = draw()
    at = [scrape.at - timeline.zero for scrape in journal.scrapes]
    pairs = zip(journal.scrapes, journal.scrapes[1:], strict=False)
    axes.plot(at, [scrape.queue_depth for scrape in journal.scrapes], color=GREY, lw=1, label="groups waiting")
    axes.plot(at, [scrape.in_flight for scrape in journal.scrapes], color=GREEN, lw=1, label="plans under way")
    axes.plot(at[1:], [batch(*pair) for pair in pairs], color=BLUE, lw=1.6, label="groups a call")
    mark_phases(axes, journal.spans, timeline.zero)
    legend(axes)
    return svg(figure, "batch sizes and queue depth")


def throughput(journal: Journal) -> str:
    """Asks and answers a second."""
    timeline = Timeline.of(journal)
    figure, axes = draw()
    for name, times, colour in (
        ("asked", [ask.sent for ask in journal.asks], GREY),
        ("answered", [ask.ended for ask in figures.answered(journal.asks)], BLUE),
    ):
        rate = [count / timeline.width for count in timeline.counts(times)]
        axes.step(timeline.begins, rate, where="post", color=colour, label=name, lw=1.4)
    axes.set_ylabel("1/s")
    mark_phases(axes, journal.spans, timeline.zero)
    legend(axes)
    return svg(figure, "throughput")


def against_robots(journal: Journal) -> str:
    """Answers a second of each phase, over its robots."""
    figure, axes = draw(width=5.4)
    spans = [span for span in journal.spans if not span.warm_up]
    for span in spans:
        done = [ask for ask in figures.answered(journal.of(span.name)) if ask.ended <= span.ended]
        robots, rate = sum(span.robots.values()), len(done) / (span.ended - span.began)
        axes.plot([robots], [rate], "o", color=BLUE)
        axes.annotate(span.name, (robots, rate), xytext=(4, 3), textcoords="offset points", fontsize=7)
    axes.set_xlabel("robots")
    axes.set_ylabel("answers a second")
    axes.set_ylim(bottom=0)
    return svg(figure, "throughput against robots")


def fairness(journal: Journal) -> str:
    """Answers of each robot in the phase that had most robots."""
    spans = [span for span in journal.spans if not span.warm_up] or journal.spans
    span = max(spans, key=lambda one: sum(one.robots.values()))
    asks = journal.of(span.name)
    shares = dict.fromkeys((ask.robot for ask in asks), 0) | Counter(ask.robot for ask in figures.answered(asks))
    groups = list(span.robots)
    names = sorted(shares)
    colour = {name: COLOURS[groups.index(name.rpartition("-")[0]) % len(COLOURS)] for name in names}
    figure, axes = draw()
    for index, name in enumerate(names):
        axes.bar(index, shares[name], color=colour[name], width=0.8)
    axes.set_xticks([])
    axes.set_ylabel("answers")
    axes.set_title(f"{span.name}: Jain's index {figures.jain(shares.values()) or 0.0:.3f}", fontsize=9, loc="left")
    return svg(figure, "fairness among robots")


def stalls(journal: Journal) -> str:
    """Seconds that robots stood still, by when their chunk ran out."""
    timeline = Timeline.of(journal)
    figure, axes = draw()
    groups = sorted({stall.group for stall in journal.stalls})
    layers: list[tuple[str, Sequence[float], str]] = []
    for index, name in enumerate(groups):
        mine = [(one.stall.at, one.stall.seconds) for one in journal.stalls if one.group == name]
        layers.append((name, [sum(found) for found in timeline.gathered(mine)], COLOURS[index % len(COLOURS)]))
    stack(axes, timeline, layers)
    axes.set_ylabel(f"s in {timeline.width:.0f} s")
    mark_phases(axes, journal.spans, timeline.zero)
    legend(axes)
    return svg(figure, "stalls that robots felt")


def memory(journal: Journal) -> str:
    """Resident memory of the service's processes."""
    timeline = Timeline.of(journal)
    figure, axes = draw()
    at = [one.at - timeline.zero for one in journal.memory]
    axes.plot(at, [one.value / MB for one in journal.memory], color=BLUE, lw=1.4)
    axes.set_ylabel("MB")
    mark_phases(axes, journal.spans, timeline.zero)
    return svg(figure, "resident memory of the service")


Plot = Callable[[Journal], str]
PLOTS: dict[str, tuple[Plot, str]] = {
    "Latency by stage": (
        stages,
        "From receipts, without the warm-up. Slices of a plan run side by side: stages add up to more than its total.",
    ),
    "Latency over time": (latency, "As robots saw it; answered plans, by when they were answered."),
    "Deadline hits": (
        deadlines,
        "met_degraded: in time, with fewer rounds than asked for; none: there was no deadline; missed: told so (504).",
    ),
    "K spent": (rounds, "Planning rounds of the plans answered; with less time the planner spends fewer."),
    "Batch sizes and queue depth": (
        batches,
        "From /metrics, once a second: sample groups joined in one call of planning, on average, and what waits.",
    ),
    "Throughput": (throughput, "Of all robots together; retries are asks of their own."),
    "Throughput against robots": (against_robots, "Each phase but the warm-up."),
    "Fairness": (fairness, "Answers of each robot; colours are groups. 1 is even; 1/n: one robot has everything."),
    "Stalls": (
        stalls,
        "Seconds that robots stood still because the next chunk had not come, by when the last one ran out.",
    ),
    "Memory": (memory, "Resident memory of the service's process tree; memory that processes share counts in each."),
}


def _counted(journal: Journal) -> list[Ask]:
    warm_up = {span.name for span in journal.spans if span.warm_up}
    return [ask for ask in figures.answered(journal.asks) if ask.phase not in warm_up]


def _stage_rows(done: list[Ask]) -> list[tuple[str, list[float]]]:
    """Stage -> seconds of every plan that had it, stages in the order of their first appearance."""
    rows: dict[str, list[float]] = {}
    for ask in done:
        assert ask.reply is not None, "an answered ask has a reply"
        for stage, seconds in ask.reply.stage_s.items():
            rows.setdefault(stage, []).append(seconds)
    total = rows.pop("total", [])
    served = [ask.reply.served_s for ask in done if ask.reply is not None]
    whole = [("total", total), ("in the service", served), ("as the robot saw it", [ask.seconds for ask in done])]
    return [*rows.items(), *whole]
