"""`wavserve parity FOLDER`: runs every fixture of a folder through every path and prints a table of errors.

Knows neither how a fixture runs nor its tolerance: `app.parity` does.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from wavserve.commands import output


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`wavserve parity`."""
    parity = commands.add_parser(
        "parity",
        help="compare the models with recorded fixtures",
        description="Run recorded fixtures through every path of the models and print the errors and tolerances.",
    )
    parity.add_argument("folder", type=Path, help="folder with the fixtures and their config.json")
    parity.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parity.set_defaults(run=_parity)


def _parity(args: argparse.Namespace) -> int:
    from wavserve.app.parity import run

    checks = run(args.folder)
    failed = sum(not _ok(check.error, check.tolerance) for check in checks)
    if args.json:
        output.write(output.as_json({"checks": checks, "failed": failed}))
    else:
        header = ("fixture", "path", "tensor", "max abs error", "tolerance", "ok")
        rows = [
            (
                c.fixture,
                c.path,
                c.tensor,
                f"{c.error:.2e}",
                f"{c.tolerance:.0e}",
                "ok" if _ok(c.error, c.tolerance) else "NO",
            )
            for c in checks
        ]
        output.write(output.table(header, rows))
        output.write(f"{len(checks)} checks, {failed} above tolerance")
    return 1 if failed or not checks else 0


def _ok(error: float, tolerance: float) -> bool:
    return error <= tolerance  # false when the error is NaN
