"""One look at a server of this machine over HTTP: well or not, and the reason it gives."""

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass

PROBE_SECONDS = 5.0
# Whatever proxy the environment names, these servers are here.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Health:
    """`reason` is empty when all is well."""

    is_well: bool
    reason: str


def look(url: str, *, timeout_seconds: float = PROBE_SECONDS) -> Health:
    """Well is an answer below 400."""
    try:
        fetch(url, timeout_seconds=timeout_seconds)
    except urllib.error.HTTPError as answer:
        with answer:
            return Health(False, f"not ready ({answer.code}): {_reasons(answer)}")
    except (OSError, ValueError):
        return Health(False, "does not answer")
    return Health(True, "")


def fetch(url: str, *, timeout_seconds: float = PROBE_SECONDS) -> str:
    """The body. Raises OSError (HTTPError is one), or ValueError for what is no HTTP."""
    try:
        with _DIRECT.open(url, timeout=timeout_seconds) as answer:
            body: bytes = answer.read()
    except http.client.HTTPException as fault:
        raise ValueError(f"no HTTP: {fault!r}") from fault
    return body.decode(errors="replace")


def sum_of(exposition: str, metric: str, **labels: str) -> float | None:
    """The sum of a metric's samples that have these labels; None if there is none."""
    found = None
    for line in exposition.splitlines():
        sample, _, value = line.rpartition(" ")
        name, _, at = sample.partition("{")
        if name != metric:
            continue
        if labels.items() <= dict(_pairs(at)).items():
            found = (found or 0.0) + float(value)
    return found


def _pairs(labels: str) -> list[tuple[str, str]]:
    pairs = (pair.partition("=") for pair in labels.rstrip("}").split(","))
    return [(name, value.strip('"')) for name, _, value in pairs]


def _reasons(answer: urllib.error.HTTPError) -> str:
    """What its body says; a server that ends in the midst of it gives none."""
    try:
        return "; ".join(json.loads(answer.read())["reasons"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return "no reason given"
