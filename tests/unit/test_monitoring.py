"""The files in monitoring/: dashboard and alerts ask for what is there, and each alert has its place in the runbook."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from backfill.metrics.catalogue import INSTRUMENTS, Instrument, Kind

from places import ROOT
from scraping import MONITORING, alert_rules, dashboard_queries

EXPORTED = {
    name: one
    for one in INSTRUMENTS
    for name in (
        [f"{one.exported}{suffix}" for suffix in ("_bucket", "_sum", "_count")]
        if one.kind is Kind.HISTOGRAM
        else [one.exported]
    )
}
SERVERS = {"job", "instance"}
"""Labels that Prometheus itself gives each series."""
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
RUNBOOK = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")


def asked() -> Iterator[tuple[str, str, str]]:
    """Each expression, with whose it is and the text in which its labels are shown."""
    for title, targets in dashboard_queries().items():
        for target in targets:
            yield title, target["expr"], target["legendFormat"]
    for rule in alert_rules():
        yield rule["alert"], rule["expr"], json.dumps(rule["annotations"])


def wrong_in(expression: str, shown: str) -> list[str]:
    """What an expression asks for that no exporter prints."""
    names = re.findall(r"\bbackfill_\w+", expression)
    wrong = [name for name in names if name not in EXPORTED]
    if wrong or not names:
        return wrong or ["no metric"]
    labels = {label for name in names for label in labels_of(name, EXPORTED[name])}
    for name, inside in re.findall(r"\b(backfill_\w+)\{([^}]*)\}", expression):
        for label, values in re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', inside):
            if label not in labels_of(name, EXPORTED[name]):
                wrong.append(f"{name} has no label {label}")
            elif values and not values.startswith("$"):
                row = next(line for line in PAGE.splitlines() if re.match(rf"\| .*`{label}`.* \| `", line))
                wrong += [f"{label}={value}" for value in values.split("|") if f"`{value}`" not in row]
    grouped = {label for some in re.findall(r"\bby \(([^)]*)\)", expression) for label in some.split(", ")}
    wrong += [f"by ({label})" for label in grouped - labels]
    wrong += [
        f"{{{{{label}}}}}" for label in re.findall(r"\{\{ ?(?:\$labels\.)?(\w+) ?\}\}", shown) if label not in grouped
    ]
    return wrong


def labels_of(name: str, instrument: Instrument) -> set[str]:
    """The labels of a series by its printed name."""
    return {*instrument.labels, *SERVERS, *(["le"] if name.endswith("_bucket") else [])}


def test_they_ask_for_what_is_there() -> None:
    """Names, labels and their values are those that exporters print; labels that are shown are those grouped by."""
    found = {(whose, expression): wrong_in(expression, shown) for whose, expression, shown in asked()}
    assert {key: wrong for key, wrong in found.items() if wrong} == {}
    assert len(found) > 40


@pytest.mark.parametrize(
    ("expression", "shown", "wrong"),
    [
        ("sum(backfill_jobs_enqueued)", "", ["backfill_jobs_enqueued"]),
        ("sum(backfill_claim_size)", "", ["backfill_claim_size"]),
        ('backfill_dlq_size{lane="x"}', "", ["backfill_dlq_size has no label lane"]),
        ('backfill_queue_depth{state="due|done"}', "", ["state=done"]),
        ("sum by (lane) (backfill_dlq_size)", "", ["by (lane)"]),
        ("sum by (task) (backfill_dlq_size)", "{{task}} {{ $labels.reason }}", ["{{reason}}"]),
        ("vector(1)", "", ["no metric"]),
    ],
)
def test_what_is_not_there_is_found(expression: str, shown: str, wrong: list[str]) -> None:
    """Names without their suffix, labels of other metrics, values that do not exist, and labels that are not kept."""
    assert wrong_in(expression, shown) == wrong


def test_the_dashboard_can_be_imported() -> None:
    """Panels have ids and places of their own, and each asks the source of data that the reader chooses."""
    dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text(encoding="utf-8"))
    assert dashboard["uid"] == "backfill"
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set[tuple[int, int]]()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"].endswith(".")
            assert {one["datasource"]["uid"] for one in [panel, *panel["targets"]]} == {"${datasource}"}
            assert [one["refId"] for one in panel["targets"]] == sorted({one["refId"] for one in panel["targets"]})
    variables = {one["name"]: one for one in dashboard["templating"]["list"]}
    assert variables.keys() == {"datasource", "job", "task"}
    for name in ("job", "task"):
        [(metric, label)] = re.findall(r"^label_values\((\w+), (\w+)\)$", variables[name]["definition"])
        assert label == name
        assert label in labels_of(metric, EXPORTED[metric])


def test_each_alert_has_its_place_in_the_runbook() -> None:
    """The page has a heading for each alert, in their order, and no other alert; it shows the bounds of the rules."""
    rules = alert_rules()
    headings = re.findall(r"^## (Backfill\w+)$", RUNBOOK, re.MULTILINE)
    assert headings == [rule["alert"] for rule in rules]
    sections = dict(zip(headings, re.split(r"^## Backfill\w+$", RUNBOOK, flags=re.MULTILINE)[1:], strict=True))
    for rule in rules:
        assert rule["annotations"]["runbook"] == f"docs/alerts.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert f"**{rule['labels']['severity'].capitalize()}.**" in sections[rule["alert"]]
        for what in ("means", "Look", "Do"):
            assert what in sections[rule["alert"]], rule["alert"]
