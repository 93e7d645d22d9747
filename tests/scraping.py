"""Reading what an exporter for Prometheus prints, by its library's parser; and what dashboard and alerts ask."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from places import ROOT

MONITORING = ROOT / "monitoring"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(port: int, accept: str = "text/plain;version=0.0.4") -> str:
    """What `/metrics` of a port of this machine answers."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return str(answer.read().decode())


def samples_of(text: str) -> Samples:
    """The samples of a page by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of the samples of a name that have these labels, perhaps among others."""
    wanted = labels.items()
    return sum(value for (one, has), value in samples.items() if one == name and wanted <= dict(has).items())


def dashboard_queries() -> dict[str, list[dict[str, str]]]:
    """The targets of the panels of our dashboard, by the panel's title and its place among the others."""
    dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text(encoding="utf-8"))
    return {
        f"{place}: {panel['title']}": panel["targets"]
        for place, panel in enumerate(dashboard["panels"])
        if panel["type"] != "row"
    }


def alert_rules() -> list[dict[str, Any]]:
    """Our rules for alerts."""
    [group] = yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return list(group["rules"])
