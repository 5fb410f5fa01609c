"""W3C trace contexts, and what a process without traces does with them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from wavserve.core.tracing import NO_SPAN, Span, TraceContext, Tracer, current, span, within

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("03", True), ("02", False)])
def test_a_traceparent_is_read_and_written(flags: str, sampled: bool) -> None:
    context = TraceContext.parse([f"00-{TRACE}-{PARENT}-{flags}"])
    assert context == TraceContext(TRACE, PARENT, sampled)
    assert context.traceparent == f"00-{TRACE}-{PARENT}-{'01' if sampled else '00'}"


def test_a_traceparent_of_a_later_version_may_be_longer() -> None:
    assert TraceContext.parse([f"cc-{TRACE}-{PARENT}-01-what-comes-next"]) == TraceContext(TRACE, PARENT, True)


@pytest.mark.parametrize(
    "texts",
    [
        [],
        [""],
        ["no context"],
        [f"ff-{TRACE}-{PARENT}-01"],
        [f"00-{'0' * 32}-{PARENT}-01"],
        [f"00-{TRACE}-{'0' * 16}-01"],
        [f"00-{TRACE.upper()}-{PARENT}-01"],
        [f"00-{TRACE}-{PARENT}-01-more"],
        [f"00-{TRACE}-{PARENT}-01\n"],
        [f"00-{TRACE}-{PARENT}"],
        [f"00-{TRACE}-{PARENT}-01"] * 2,
    ],
)
def test_a_malformed_traceparent_counts_as_none(texts: list[str]) -> None:
    assert TraceContext.parse(texts) is None


def test_without_traces_a_span_costs_nothing_and_a_callers_context_passes_through() -> None:
    assert span("plan") is NO_SPAN
    assert current() is NO_SPAN
    begun = Tracer().begin("gateway.plan", TraceContext(TRACE, PARENT, True))
    with within(begun), span("plan") as inner:
        assert inner is begun, "nothing is made for a part of a span that nobody records"
        assert current().traceparent == f"00-{TRACE}-{PARENT}-01"
    assert current() is NO_SPAN
    assert NO_SPAN.traceparent == ""


def test_a_block_ends_its_span_with_its_failure() -> None:
    class Kept(Span):
        ended: list[BaseException | None] = []  # noqa: RUF012  # of one test

        def end(self, error: BaseException | None = None) -> None:
            self.ended.append(error)

    failure = ValueError("no")
    with pytest.raises(ValueError, match="no"), within(Kept()):
        raise failure
    with within(Kept()):
        pass
    assert Kept.ended == [failure, None]


def run(program: str) -> str:
    """What a Python of its own prints."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("program", "imported"),
    [
        ("import wavserve.clients.robot_client, wavserve.clients.plan_client", "opentelemetry"),
        # FastAPI needs its API, and redis imports what it finds of its metrics
        (
            "import wavserve.app.serve, wavserve.app.tracing\n"
            "from wavserve.app.settings import TracingSettings\n"
            "wavserve.app.tracing.open_tracer(TracingSettings())",
            "opentelemetry.exporter",
        ),
    ],
)
def test_opentelemetry_is_imported_only_where_traces_are_asked_for(program: str, imported: str) -> None:
    names = f"[name for name in sys.modules if name.startswith('{imported}') or name == 'wavserve.core.otel']"
    assert run(f"import sys\n{program}\nprint({names})") == "[]"


def test_a_missing_extra_is_named() -> None:
    program = (
        "import sys\n"
        "sys.modules['opentelemetry.sdk.resources'] = None\n"
        "from wavserve.app.settings import TracingSettings\n"
        "from wavserve.app.tracing import open_tracer\n"
        "from wavserve.core.errors import SettingsError\n"
        "try:\n"
        "    open_tracer(TracingSettings(endpoint='http://127.0.0.1:4318'))\n"
        "except SettingsError as error:\n"
        "    print(error)"
    )
    expected = "tracing.endpoint: expected the extra otel (pip install 'wavserve[otel]'), got no opentelemetry.sdk"
    assert run(program).startswith(expected)
