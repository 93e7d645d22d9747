"""Exporters: OpenTelemetry's SDK and prometheus_client show what the books have, under the names of the catalogue."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

from backfill.metrics import PrometheusCollector, instrument, prometheus
from backfill.metrics.books import Count, Metrics, Values
from backfill.metrics.catalogue import ATTEMPTS, INSTRUMENTS, LOOP_LAG, RUN_TIME, Kind
from backfill.metrics.snapshot import Snapshot, Value
from contract.crate_names import names

from places import ROOT
from scraping import samples_of, total

PROGRAM = """
import json, sys
{before}
from backfill.metrics import process_metrics
from backfill.metrics.books import Count
from backfill.metrics.catalogue import ATTEMPTS
{asked}
process_metrics().add([Count(ATTEMPTS, ("a", "b", "completed"), 1)])
found = [name for name in sys.modules if name.startswith(("opentelemetry", "prometheus_client"))]
print(json.dumps([process_metrics().wanted, bool(found)]))
"""

FORKS = """
import json, os
from prometheus_client import CollectorRegistry
from backfill.metrics import PrometheusCollector, process_metrics
from backfill.metrics.books import Count
from backfill.metrics.catalogue import ATTEMPTS
registry, labels = CollectorRegistry(), dict(task="a", priority_band="b", outcome="completed")
registry.register(PrometheusCollector())
reading, writing = os.pipe()

def shown(number):
    process_metrics().add([Count(ATTEMPTS, tuple(labels.values()), number)])
    return registry.get_sample_value("backfill_job_attempts_total", labels)

found = [shown(3)]
if not os.fork():
    os.write(writing, json.dumps(shown(5)).encode())
    os._exit(0)
os.wait()
print(json.dumps([*found, json.loads(os.read(reading, 100))]))
"""

SDK = """
from opentelemetry.metrics import set_meter_provider
from opentelemetry.sdk.metrics import MeterProvider
set_meter_provider(MeterProvider())
"""


@pytest.fixture
def books(monkeypatch: pytest.MonkeyPatch) -> Metrics:
    """Books of this test's own, with something in each instrument."""
    own = Metrics()
    monkeypatch.setattr("backfill.metrics.books._metrics", own)
    for one in INSTRUMENTS:
        labels = tuple(f"a {label}" for label in one.labels)
        if one.kind is Kind.HISTOGRAM:
            own.add([Values(one, labels, [one.bounds[0] / 2, one.bounds[1]])])
        elif one.kind is Kind.COUNTER:
            own.add([Count(one, labels, 3)])
        elif one.kind is Kind.NEWEST:
            own.set(one, {labels: 5})
        else:
            own.watch(one, lambda labels=labels: {labels: 7.0})
    return own


def _exposed(text: str) -> set[str]:
    """The names of the families on a page of an exporter, as they stand on its TYPE lines."""
    return {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}


def test_the_crates_instruments_are_there() -> None:
    """Each metric of the Rust crate is in the catalogue under its name, and all others have OpenTelemetry's dots."""
    theirs = {name.rust for name in names() if name.rust.startswith("backfill_")}
    assert {one.name for one in INSTRUMENTS if "." not in one.name} == theirs
    assert len(theirs) == 17


def test_the_page_has_the_catalogue() -> None:
    """The table of docs/metrics.md has each instrument, with the name that exporters print, its labels and meaning."""
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `backfill_")]
    kinds = {Kind.COUNTER: "counter", Kind.HISTOGRAM: "histogram"}
    assert rows == [
        f"| `{one.exported}` | {kinds.get(one.kind, 'gauge')} | "
        f"{', '.join(f'`{label}`' for label in one.labels) or '-'} | {one.description} |"
        for one in INSTRUMENTS
    ]
    assert sorted({label for one in INSTRUMENTS for label in one.labels if f"`{label}`" not in text}) == []


def test_both_exporters_print_the_names_of_the_catalogue(books: Metrics) -> None:
    """The extra `prometheus` and OpenTelemetry's exporter print the same names, which are those of the catalogue."""
    ours = CollectorRegistry()
    ours.register(PrometheusCollector(books))
    expected = {one.exported for one in INSTRUMENTS}
    assert _exposed(generate_latest(ours).decode()) == expected
    reader = PrometheusMetricReader(disable_target_info=True)
    provider = MeterProvider([reader])
    try:
        instrument(provider)
        for one in INSTRUMENTS:
            if one.kind is Kind.HISTOGRAM:
                books.add([Values(one, tuple("x" for _ in one.labels), [one.bounds[0]])])
        theirs = _exposed(generate_latest(REGISTRY).decode())
    finally:
        provider.shutdown()
    assert expected <= theirs


def test_opentelemetry_reads_the_books(books: Metrics) -> None:
    """Counters and gauges are the books' own; histograms are samples, at most eight values a batch."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    try:
        instrument(provider)
        instrument(provider)
        assert books.wanted
        books.add([
            Count(ATTEMPTS, ("task", "bulk_default", "completed"), 500),
            Values(RUN_TIME, ("task", "bulk_default"), [0.002] * 500),
        ])  # fmt: skip
        data = reader.get_metrics_data()
        assert data is not None
        [scope] = data.resource_metrics[0].scope_metrics
        found = {one.name: one for one in scope.metrics}
    finally:
        provider.shutdown()
    assert {one.name for one in INSTRUMENTS if one.kind is not Kind.HISTOGRAM} <= found.keys()
    assert found[ATTEMPTS.name].unit == "{attempt}"
    points = {point.attributes["task"]: point for point in found[ATTEMPTS.name].data.data_points}
    assert points["task"].value == 500
    assert points["task"].attributes == {"task": "task", "priority_band": "bulk_default", "outcome": "completed"}
    assert [point.value for point in found[LOOP_LAG.name].data.data_points] == [7.0]
    [sampled] = found[RUN_TIME.name].data.data_points
    assert (sampled.count, tuple(sampled.explicit_bounds)) == (8, RUN_TIME.bounds)


def test_prometheus_shows_exact_histograms(books: Metrics) -> None:
    """Each value of a batch is in its bucket, and all are in the last one."""
    registry = CollectorRegistry()
    registry.register(PrometheusCollector(books))
    books.add([Values(RUN_TIME, ("task", "band"), [0.001, 0.002, 0.3, 9_999.0])])
    samples = samples_of(generate_latest(registry).decode())
    name, labels = "backfill_job_run_duration_seconds", {"task": "task"}
    bounds = {"0.001": 1, "0.0025": 2, "0.25": 2, "0.5": 3, "3600.0": 3, "+Inf": 4}
    assert {bound: total(samples, f"{name}_bucket", le=bound, **labels) for bound in bounds} == bounds
    assert total(samples, f"{name}_count", **labels) == 4
    assert total(samples, f"{name}_sum", **labels) == pytest.approx(9_999.303)


@pytest.mark.parametrize(
    ("before", "asked", "expected"),
    [
        ("", "", [False, False]),
        ("", "from backfill.metrics import instrument; instrument()", [False, True]),
        ("", "from backfill.metrics import PrometheusCollector; PrometheusCollector()", [True, False]),
        (
            SDK,
            "from backfill.metrics import instrument; instrument(); instrument()",
            [True, True],
        ),
    ],
    ids=["nobody", "the API without an SDK", "a collector", "an SDK"],
)
def test_nobody_pays_who_does_not_ask(before: str, asked: str, expected: list[bool]) -> None:
    """No library is imported before it is asked for. The API without an SDK has nothing counted or said."""
    program = PROGRAM.format(before=before, asked=asked)
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert (json.loads(ran.stdout), ran.stderr) == (expected, "")


def test_a_page_that_is_dear_is_shown_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """For as long as it may be, so that those who ask for it all the time do not keep the worker busy."""
    reads = list[int]()

    def read() -> Snapshot:
        reads.append(len(reads) + 1)
        return Snapshot({(ATTEMPTS.name, ("a", "b", "completed")): Value(reads[-1])})

    page = prometheus.page_of(read)
    assert page is not None

    def shown(accept: str = "") -> float:
        return total(samples_of(page(accept)[0].decode()), "backfill_job_attempts_total")

    made = len(reads)  # the registry has looked at the names
    assert [shown() - made, shown() - made] == [1, 2]
    monkeypatch.setattr(prometheus, "DEAR_SECONDS", -1.0)
    monkeypatch.setattr(prometheus, "KEPT_FOR", 1e9)
    assert [shown() - made, shown() - made] == [3, 3]
    assert shown("application/openmetrics-text; version=1.0.0") - made == 4
    assert shown() - made == 3


def test_a_forked_process_shows_its_own_counts() -> None:
    """By the collector that its parent has made, as servers do that fork their processes from a loaded program."""
    ran = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(ran.stdout) == [3.0, 5.0]
