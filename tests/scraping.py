"""Reading what an exporter for Prometheus prints: by the parser of its own library, as a server would."""

from __future__ import annotations

import urllib.request

from prometheus_client.parser import text_string_to_metric_families

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
