"""Metrics as a Prometheus would read them; both parsers raise ValueError for bad text."""

from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families


def text_families(text: str) -> list[Metric]:
    """The families of the text format."""
    return list(text_string_to_metric_families(text))


def openmetrics_families(text: str) -> list[Metric]:
    """The families of OpenMetrics, by its stricter parser."""
    families = openmetrics_parser.text_string_to_metric_families(text)  # type: ignore[no-untyped-call]  # theirs
    return list(families)


def series_of(text: str, name: str) -> dict[tuple[str, ...], float]:
    """The samples of one name in the text format, by the values of their labels."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in text_families(text)
        for sample in family.samples
        if sample.name == name
    }
