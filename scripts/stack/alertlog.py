"""Alerts in the terminal: one line when one begins to fire and one when it is over."""

import json
import time

from scripts.supervision.probe import fetch

ASK_SECONDS = 3.0


class AlertLog:
    """What a Prometheus says fires, against what it said before; the Watchdog is left out."""

    def __init__(self, url: str) -> None:
        self._address = f"{url}/api/v1/alerts"
        self._firing: dict[str, dict[str, str]] = {}

    def changes(self) -> list[str]:
        """Lines for what has begun and what is over; none while Prometheus does not answer."""
        try:
            answer = json.loads(fetch(self._address, timeout_seconds=ASK_SECONDS))
            alerts = answer["data"]["alerts"]
        except (OSError, ValueError):
            return []
        now = {
            json.dumps(alert["labels"], sort_keys=True): alert["annotations"]
            for alert in alerts
            if alert["state"] == "firing" and alert["labels"].get("severity") != "none"
        }
        before, self._firing = self._firing, now
        began = [_line(key, now[key], is_over=False) for key in now if key not in before]
        return began + [_line(key, before[key], is_over=True) for key in before if key not in now]


def _line(key: str, annotations: dict[str, str], *, is_over: bool) -> str:
    labels = json.loads(key)
    # An operator's own rule may have no severity, no summary and no runbook.
    state = "over" if is_over else labels.get("severity", "fires")
    summary, runbook = annotations.get("summary"), annotations.get("runbook")
    told = f"{labels['alertname']}: {summary}" if summary else labels["alertname"]
    cure = f" ({runbook})" if runbook and not is_over else ""
    return f"{time.strftime('%H:%M:%S')}  {state:<9} {told}{cure}"
