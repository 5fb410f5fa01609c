"""The plots of a run, one function each: event log in, inline SVG out. PLOTS lists them in the order of the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from loadtest.robots import figures
from loadtest.robots.charts import COLOURS, Timeline, legend, mark_phases, new_figure, stacked_bars, svg
from loadtest.robots.event_log import EventLog, RequestRecord
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


def stages(log: EventLog) -> str:
    """Median and p99 of each stage of a receipt, of the time in the service, and of the time that the robot waited."""
    rows = _stage_rows(_without_warm_up(log))
    figure, axes = new_figure(height=0.5 + 0.26 * max(len(rows), 3))
    for index, (_, seconds) in enumerate(rows):
        p50, p99 = (figures.percentile(seconds, q) or 0.0 for q in (50, 99))
        axes.barh(index, p50 * 1e3, color=BLUE, height=0.6, label="p50" if not index else None)
        axes.plot([p50 * 1e3, p99 * 1e3], [index, index], color=GREY, lw=1.2, label="to p99" if not index else None)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.invert_yaxis()
    axes.set_xlabel("ms")
    legend(axes)
    return svg(figure, "latency by stage")


def latency(log: EventLog) -> str:
    """Percentiles of answered plans, by the time of their answer."""
    timeline = Timeline.of(log)
    figure, axes = new_figure()
    bins = timeline.binned((request.ended, request.seconds * 1e3) for request in figures.answered(log.requests))
    for q, colour in ((50, BLUE), (99, ORANGE)):
        shown = [(at, figures.percentile(v, q)) for at, v in zip(timeline.begins, bins, strict=True) if v]
        axes.plot([at for at, _ in shown], [v or 0.0 for _, v in shown], color=colour, label=f"p{q}", lw=1.4)
    axes.set_ylabel("ms")
    mark_phases(axes, log.phases, timeline.zero)
    legend(axes)
    return svg(figure, "latency over time")


def deadlines(log: EventLog) -> str:
    """Requests by outcome, and by deadline result where they were answered, by the time of their end."""
    timeline = Timeline.of(log)
    figure, axes = new_figure()
    ends: dict[str, list[float]] = {name: [] for name in OUTCOME_COLOURS}
    for request in log.requests:
        ends[request.reply.deadline if request.reply is not None else request.outcome].append(request.ended)
    layers = [(name, timeline.counts(ends[name]), colour) for name, colour in OUTCOME_COLOURS.items()]
    stacked_bars(axes, timeline, layers)
    axes.set_ylabel(f"requests in {timeline.width:.0f} s")
    mark_phases(axes, log.phases, timeline.zero)
    legend(axes)
    return svg(figure, "deadline hits over time")


def iterations(log: EventLog) -> str:
    """Answered plans by their number of planning iterations."""
    timeline = Timeline.of(log)
    figure, axes = new_figure()
    spent: dict[int, list[float]] = {}
    for request in figures.answered(log.requests):
        if request.reply is not None:
            spent.setdefault(request.reply.iterations_done, []).append(request.ended)
    colours = {k: COLOURS[index % len(COLOURS)] for index, k in enumerate(sorted(spent))}
    stacked_bars(axes, timeline, [(f"K = {k}", timeline.counts(spent[k]), colours[k]) for k in sorted(spent)])
    axes.set_ylabel(f"plans in {timeline.width:.0f} s")
    mark_phases(axes, log.phases, timeline.zero)
    legend(axes)
    return svg(figure, "K spent")


def batches(log: EventLog) -> str:
    """Sample groups joined in a call, groups that wait, and plans in flight, from /metrics."""
    timeline = Timeline.of(log)
    figure, axes = new_figure()
    at = [scrape.at - timeline.zero for scrape in log.scrapes]
    pairs = zip(log.scrapes, log.scrapes[1:], strict=False)
    axes.plot(at, [scrape.queue_depth for scrape in log.scrapes], color=GREY, lw=1, label="groups waiting")
    axes.plot(at, [scrape.in_flight for scrape in log.scrapes], color=GREEN, lw=1, label="plans in flight")
    axes.plot(at[1:], [batch(*pair) for pair in pairs], color=BLUE, lw=1.6, label="groups per call")
    mark_phases(axes, log.phases, timeline.zero)
    legend(axes)
    return svg(figure, "batch sizes and queue depth")


def throughput(log: EventLog) -> str:
    """Requests and answers a second."""
    timeline = Timeline.of(log)
    figure, axes = new_figure()
    for name, times, colour in (
        ("requests", [request.sent for request in log.requests], GREY),
        ("answers", [request.ended for request in figures.answered(log.requests)], BLUE),
    ):
        rate = [count / timeline.width for count in timeline.counts(times)]
        axes.step(timeline.begins, rate, where="post", color=colour, label=name, lw=1.4)
    axes.set_ylabel("1/s")
    mark_phases(axes, log.phases, timeline.zero)
    legend(axes)
    return svg(figure, "throughput")


def against_robots(log: EventLog) -> str:
    """Answers a second of each phase, over its number of robots."""
    figure, axes = new_figure(width=5.4)
    for phase in (phase for phase in log.phases if not phase.warm_up):
        done = [one for one in figures.answered(log.requests_of(phase.name)) if one.ended <= phase.ended]
        robots, rate = sum(phase.robots.values()), len(done) / (phase.ended - phase.began)
        axes.plot([robots], [rate], "o", color=BLUE)
        axes.annotate(phase.name, (robots, rate), xytext=(4, 3), textcoords="offset points", fontsize=7)
    axes.set_xlabel("robots")
    axes.set_ylabel("answers a second")
    axes.set_ylim(bottom=0)
    return svg(figure, "throughput against robots")


def fairness(log: EventLog) -> str:
    """Answers of each robot in the phase with most robots."""
    phases = [phase for phase in log.phases if not phase.warm_up] or log.phases
    phase = max(phases, key=lambda one: sum(one.robots.values()))
    requests = log.requests_of(phase.name)
    answers = Counter(request.robot for request in figures.answered(requests))
    shares = dict.fromkeys((request.robot for request in requests), 0) | answers
    groups = list(phase.robots)
    names = sorted(shares)
    colour = {name: COLOURS[groups.index(name.rpartition("-")[0]) % len(COLOURS)] for name in names}
    figure, axes = new_figure()
    for index, name in enumerate(names):
        axes.bar(index, shares[name], color=colour[name], width=0.8)
    axes.set_xticks([])
    axes.set_ylabel("answers")
    axes.set_title(f"{phase.name}: Jain's index {figures.jain(shares.values()) or 0.0:.3f}", fontsize=9, loc="left")
    return svg(figure, "fairness among robots")


def stalls(log: EventLog) -> str:
    """Seconds that robots stood still, by the time at which their chunk ran out."""
    timeline = Timeline.of(log)
    figure, axes = new_figure()
    groups = sorted({stall.group for stall in log.stalls})
    layers: list[tuple[str, Sequence[float], str]] = []
    for index, name in enumerate(groups):
        own = [(one.stall.at, one.stall.seconds) for one in log.stalls if one.group == name]
        layers.append((name, [sum(seconds) for seconds in timeline.binned(own)], COLOURS[index % len(COLOURS)]))
    stacked_bars(axes, timeline, layers)
    axes.set_ylabel(f"s in {timeline.width:.0f} s")
    mark_phases(axes, log.phases, timeline.zero)
    legend(axes)
    return svg(figure, "stalls of robots")


def memory(log: EventLog) -> str:
    """Resident memory of the service's processes."""
    timeline = Timeline.of(log)
    figure, axes = new_figure()
    at = [reading.at - timeline.zero for reading in log.memory]
    axes.plot(at, [reading.value / MB for reading in log.memory], color=BLUE, lw=1.4)
    axes.set_ylabel("MB")
    mark_phases(axes, log.phases, timeline.zero)
    return svg(figure, "resident memory of the service")


Plot = Callable[[EventLog], str]
PLOTS: dict[str, tuple[Plot, str]] = {
    "Latency by stage": (
        stages,
        "From receipts, without the warm-up. Slices of a plan run in parallel, so the stages add up to more than the "
        "total.",
    ),
    "Latency over time": (latency, "Answered plans, measured by the robots, by the time of their answer."),
    "Deadline hits": (
        deadlines,
        "met_degraded: in time, with fewer iterations than requested. none: there was no deadline. missed: the service "
        "reported a missed deadline (504).",
    ),
    "K spent": (iterations, "Planning iterations of the answered plans. With less time the planner runs fewer."),
    "Batch sizes and queue depth": (
        batches,
        "From /metrics, once a second: mean number of sample groups in one planning call, groups that wait, and plans "
        "in flight.",
    ),
    "Throughput": (throughput, "Of all robots together. A retry is a request of its own."),
    "Throughput against robots": (against_robots, "One point for each phase except the warm-up."),
    "Fairness": (
        fairness,
        "Answers of each robot; a colour is a group. Jain's index is 1 when all get the same, and 1/n when one of n "
        "gets everything.",
    ),
    "Stalls": (
        stalls,
        "Seconds that robots stood still because the next chunk had not arrived, by the time at which the last one ran "
        "out.",
    ),
    "Memory": (
        memory,
        "Resident memory of the service's process tree. Memory that processes share counts once for each of them.",
    ),
}


def _without_warm_up(log: EventLog) -> list[RequestRecord]:
    warm_up = {phase.name for phase in log.phases if phase.warm_up}
    return [request for request in figures.answered(log.requests) if request.phase not in warm_up]


def _stage_rows(done: list[RequestRecord]) -> list[tuple[str, list[float]]]:
    """Stage -> its seconds in every plan that had it. Stages are in order of first appearance, with totals last."""
    rows: dict[str, list[float]] = {}
    for request in done:
        assert request.reply is not None, "an answered request has a reply"
        for stage, seconds in request.reply.stage_s.items():
            rows.setdefault(stage, []).append(seconds)
    total = rows.pop("total", [])
    served = [request.reply.served_s for request in done if request.reply is not None]
    waited = [request.seconds for request in done]
    return [*rows.items(), ("total", total), ("in the service", served), ("as the robot saw it", waited)]
