"""What the dashboards show: titles, units and queries. `generate` makes Grafana's JSON of it.

The queries add up all gateways, or tell them apart by `instance`. `$__rate_interval` is Grafana's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

RATE = "$__rate_interval"


@dataclass(frozen=True, slots=True)
class Panel:
    """A graph. `queries`: legend -> expression. `unit`: as Grafana names it."""

    title: str
    unit: str
    meaning: str
    queries: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard. `rows`: title -> panels."""

    name: str
    title: str
    rows: Mapping[str, tuple[Panel, ...]]


def rate(metric: str, by: str = "", where: str = "") -> str:
    """Events per second."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{where}[{RATE}]))"


def quantile(q: float, metric: str, by: str = "", where: str = "") -> str:
    """A quantile of a histogram."""
    return f"histogram_quantile({q}, {rate(f'{metric}_bucket', f'le, {by}' if by else 'le', where)})"


def quantiles(metric: str, where: str = "") -> dict[str, str]:
    return {f"p{round(100 * q)}": quantile(q, metric, where=where) for q in (0.5, 0.9, 0.99)}


def mean(metric: str, by: str = "") -> str:
    return f"{rate(f'{metric}_sum', by)} / {rate(f'{metric}_count', by)}"


PLANNED = '{deadline=~"met|met_degraded|late|missed"}'
MET = '{deadline=~"met|met_degraded"}'

ROBOTS = Board(
    "robots",
    "WAV robots",
    {
        "Deadlines": (
            Panel(
                "Deadlines met",
                "percentunit",
                "Share of the admitted plans with a deadline that were answered in time.",
                {"met": f"{rate('wavserve_plans_total', where=MET)} / {rate('wavserve_plans_total', where=PLANNED)}"},
            ),
            Panel(
                "Plans", "ops", "Plans by deadline result.", {"{{deadline}}": rate("wavserve_plans_total", "deadline")}
            ),
            Panel(
                "Refused",
                "ops",
                "Requests refused before a plan was made, by reason.",
                {"{{reason}}": rate("wavserve_refused_plans_total", "reason")},
            ),
        ),
        "At the robots": (
            Panel("Robots", "short", "Robots with a living stream.", {"{{instance}}": "wavserve_robots"}),
            Panel(
                "Chunk age",
                "s",
                "From the capture of the images to the first action of the chunk.",
                quantiles("wavserve_control_chunk_age_seconds"),
            ),
            Panel(
                "Stalls",
                "ops",
                "Control steps without an action, and steps that a robot's own limits changed.",
                {
                    "starved": rate("wavserve_control_starved_steps_total"),
                    "clamped": rate("wavserve_control_clamped_steps_total"),
                },
            ),
            Panel(
                "Jump at a change of chunks",
                "percentunit",
                "In fractions of the action's range, as robots report it.",
                quantiles("wavserve_control_seam_jump"),
            ),
            Panel(
                "Holds",
                "ops",
                "Robots that began to hold, by reason.",
                {"{{reason}}": rate("wavserve_control_holds_total", "reason")},
            ),
            Panel(
                "Observations",
                "ops",
                "Observations on robots' streams, by what became of them.",
                {"{{outcome}}": rate("wavserve_control_observations_total", "outcome")},
            ),
        ),
        "Actions": (
            Panel(
                "Plans that break a limit",
                "ops",
                "By what became of the chunk, and by the limit.",
                {"{{outcome}} {{limit}}": rate("wavserve_gated_plans_total", "outcome, limit")},
            ),
            Panel(
                "Unusual states",
                "ops",
                "Planned states far outside the policy's statistics, by dimension.",
                {"{{dimension}}": rate("wavserve_unusual_states_total", "dimension")},
            ),
        ),
    },
)

LATENCY = Board(
    "latency",
    "WAV latency",
    {
        "Whole requests": (
            Panel("Requests", "s", "From receipt to end.", quantiles("wavserve_request_seconds", '{outcome="ok"}')),
            Panel(
                "Outcomes",
                "ops",
                "Requests ended, by edge and outcome.",
                {"{{edge}} {{outcome}}": rate("wavserve_requests_total", "edge, outcome")},
            ),
            Panel(
                "Plans",
                "s",
                "A plan from admission to its actions.",
                quantiles("wavserve_plan_stage_seconds", '{stage="total"}'),
            ),
        ),
        "By hop": (
            Panel(
                "Stages of a plan (p90)",
                "s",
                "Stages overlap, so their sum may exceed the whole plan.",
                {"{{stage}}": quantile(0.9, "wavserve_plan_stage_seconds", "stage")},
            ),
            Panel(
                "Queue",
                "s",
                "How long the oldest group has waited for a device.",
                {"{{instance}}": "wavserve_queue_age_seconds"},
            ),
            Panel(
                "Calls to the models (p90)",
                "s",
                "Time of a call as the gateway sees it.",
                {"{{verb}}": quantile(0.9, "wavserve_call_seconds", "verb")},
            ),
            Panel(
                "Session store (p99)",
                "s",
                "Time of a call to Redis. Empty where sessions are in the gateway's memory.",
                {"{{operation}}": quantile(0.99, "wavserve_session_store_seconds", "operation")},
            ),
            Panel(
                "Event loop",
                "s",
                "How late the gateway wakes a timer (p99).",
                {"{{instance}}": quantile(0.99, "wavserve_event_loop_lag_seconds", "instance")},
            ),
            Panel(
                "Traffic to Triton",
                "Bps",
                "Tensor bytes.",
                {"{{direction}}": rate("wavserve_wire_bytes_total", "direction")},
            ),
        ),
    },
)

MODELS = Board(
    "models",
    "WAV GPU and models",
    {
        "GPU": (
            Panel(
                "GPU memory",
                "bytes",
                "Of the whole GPU, as Triton reports it.",
                {
                    "used {{instance}}": "nv_gpu_memory_used_bytes",
                    "total {{instance}}": "nv_gpu_memory_total_bytes",
                },
            ),
            Panel("GPU utilisation", "percentunit", "As NVML tells it.", {"{{instance}}": "nv_gpu_utilization"}),
            Panel("GPU power", "watt", "As NVML tells it.", {"{{instance}}": "nv_gpu_power_usage"}),
        ),
        "Memory by model": (
            Panel(
                "Tensors on the GPU",
                "bytes",
                "Allocated by torch; the peak is since the process's start.",
                {
                    "{{model}}": "sum by (model) (wavserve_model_torch_allocated_bytes)",
                    "{{model}} reserved": "sum by (model) (wavserve_model_torch_reserved_bytes)",
                    "{{model}} peak": "sum by (model) (wavserve_model_torch_peak_bytes)",
                },
            ),
            Panel(
                "Weights and arena",
                "bytes",
                "What each process loaded, and the features of the arena.",
                {
                    "{{model}} weights": "sum by (model) (wavserve_model_weights_bytes)",
                    "{{model}} arena": "sum by (model) (wavserve_model_arena_bytes)",
                },
            ),
            Panel(
                "Resident memory",
                "bytes",
                "RAM of each process, shared pages included. It is no GPU memory.",
                {"{{model}}": "sum by (model) (wavserve_model_resident_bytes)"},
            ),
            Panel(
                "Arena slots",
                "short",
                "Slots of the feature arena.",
                {"used": "sum(wavserve_arena_slots_used)", "total": "sum(wavserve_arena_slots)"},
            ),
        ),
        "Calls": (
            Panel("Batch rows", "short", "Mean of a call.", {"{{verb}}": mean("wavserve_call_rows", "verb")}),
            Panel("Groups in a call", "short", "Mean of a call.", {"{{verb}}": mean("wavserve_call_groups", "verb")}),
            Panel("Calls", "ops", "Calls to the models.", {"{{verb}}": rate("wavserve_call_seconds_count", "verb")}),
            Panel(
                "Caches of the models",
                "ops",
                "Lookups in the caches of the models' processes. After a miss a tensor travels, or a text is computed.",
                {"{{model}} {{cache}} {{result}}": rate("wavserve_model_cache_lookups_total", "model, cache, result")},
            ),
        ),
        "Health": (
            Panel("Models up", "short", "1 while a model works.", {"{{device}} {{model}}": "wavserve_model_up"}),
            Panel(
                "Repairs",
                "short",
                "Reloads of a model and restarts of a server in the last hour.",
                {"{{device}} {{part}}": "sum by (device, part) (increase(wavserve_repairs_total[1h]))"},
            ),
        ),
    },
)

PLANNER = Board(
    "planner",
    "WAV planner",
    {
        "Planning": (
            Panel("Iterations", "short", "Mean of an answered plan.", {"iterations": mean("wavserve_plan_iterations")}),
            Panel(
                "Gain",
                "none",
                "Best score of the last iteration minus that of the first one. Above zero, planning is of use.",
                quantiles("wavserve_planning_gain"),
            ),
            Panel(
                "Spread of the elites",
                "none",
                "Mean std of the video Gaussian after its last refit. It begins near 1.",
                quantiles("wavserve_planning_std"),
            ),
        ),
        "Work": (
            Panel("Plans in flight", "short", "Admitted, not answered.", {"{{instance}}": "wavserve_plans_in_flight"}),
            Panel(
                "Work ahead",
                "s",
                "Device seconds that the plans in flight still need.",
                {"{{instance}}": "wavserve_remaining_device_seconds"},
            ),
            Panel("Queue", "short", "Groups that wait for a device.", {"{{instance}}": "wavserve_queue_depth"}),
            Panel(
                "Instruction cache",
                "ops",
                "Lookups of an instruction's embedding: in a gateway's process, then in Redis, which gateways share.",
                {"{{where}} {{result}}": rate("wavserve_cache_lookups_total", "where, result")},
            ),
            Panel("Sessions", "short", "Kept in each gateway.", {"{{instance}}": "wavserve_sessions"}),
            Panel(
                "Jump from a left-over",
                "percentunit",
                "In fractions of the action's range (p90), by mode of real-time chunking.",
                {"{{mode}}": quantile(0.9, "wavserve_seam_jump", "mode")},
            ),
            Panel(
                "Builds",
                "short",
                "Gateways by version and policy.",
                {"{{version}} {{policy}}": "count by (version, policy) (wavserve_build_info)"},
            ),
        ),
    },
)

BOARDS = (ROBOTS, LATENCY, MODELS, PLANNER)
