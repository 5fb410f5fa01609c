"""Writes the dashboards' JSON, which Grafana provisions: `make dashboards`. A test holds the files fresh."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, Row
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.timeseries import Panel as Timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef

from deploy.grafana.panels import BOARDS, Board, Panel

FOLDER = Path(__file__).parent / "dashboards"
_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")


def document(board: Board) -> str:
    """A dashboard as Grafana's JSON."""
    source = DatasourceVariable("datasource").label("Data source").type("prometheus")
    built = Dashboard(board.title).uid(f"wavserve-{board.name}").tags(["wavserve"]).refresh("10s").time("now-1h", "now")
    built = built.with_variable(source)
    ids = itertools.count(1)
    for title, panels in board.rows.items():
        built = built.with_row(Row(title).id(next(ids)))
        for panel in panels:
            built = built.with_panel(_graph(panel).id(next(ids)))
    return json.dumps(built.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def _graph(panel: Panel) -> Timeseries:
    graph = Timeseries().title(panel.title).description(panel.meaning).unit(panel.unit).datasource(_SOURCE)
    graph = graph.min(0) if panel.unit != "none" else graph  # "none": a number that may be negative
    for ref, (legend, query) in zip("ABCDE", panel.queries.items(), strict=False):
        graph = graph.with_target(Dataquery().expr(query).legend_format(legend).ref_id(ref).datasource(_SOURCE))
    return graph.span(8).height(8)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for board in BOARDS:
        (FOLDER / f"{board.name}.json").write_text(document(board), encoding="utf-8")


if __name__ == "__main__":
    main()
