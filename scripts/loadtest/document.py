"""The result as JSON, for programs; its shape is versioned.

version            1; a field may be added under the same number, none changes its meaning
started_at         when the window began, ISO 8601 in UTC
url, plan          the target, and everything about the load but the key
window_seconds     length of what was measured; `interrupted` if Ctrl-C cut it short
requests           begun in the window: {begun, ok, failed, refused, unfinished, not_sent}
error_ratio        (failed + refused + not_sent) / (these + ok); `fine`: the exit code is 0
throughput         per second, of what ended in the window:
                   {requests, input_tokens, output_tokens}
goodput            {slo: {ttft_seconds, tpot_seconds, e2el_seconds}, requests,
                   requests_per_second, ratio}; null without limits; a limit of 0 is none
latency_seconds    {time_to_first_token, inter_token, time_per_output_token, end_to_end}, each
                   {count, mean, p50, p90, p95, p99, max}, null where nothing was measured
errors             [{label, count, refusal, message}], the most frequent first
timeline           {width_seconds, slots: [{seconds, ok, failed, refused, output_tokens, in_flight,
                   time_to_first_token: {p50, p95, p99}, inter_token: {..},
                       end_to_end: {..}}]}
generator          the load generator itself: {workers, cpu_ratio, starved_ratio,
                   loop_lag_seconds: {p50, p99, max}, send_lag_seconds: {..}}
warnings           sentences; not empty if the numbers may not be the server's
percentile_error_ratio   how far a percentile may be from the exact one
"""

from dataclasses import asdict
from typing import Final

import orjson

from scripts.loadtest.histogram import ERROR_BOUND, Histogram
from scripts.loadtest.summary import Summary

VERSION: Final = 1
_NOT_SHOWN: Final = frozenset({"api_key", "start_at", "worker"})


def document(summary: Summary) -> bytes:
    """The JSON text."""
    outcome, tally = summary.outcome, summary.tally
    plan = asdict(summary.plan)
    return orjson.dumps(
        {
            "version": VERSION,
            "started_at": outcome.started_at,
            "url": outcome.url,
            "plan": {name: plan[name] for name in plan if name not in _NOT_SHOWN},
            "window_seconds": outcome.seconds,
            "interrupted": outcome.is_interrupted,
            "requests": {
                "begun": tally.begun,
                "ok": tally.ok,
                "failed": tally.failed,
                "refused": tally.refused,
                "unfinished": tally.unfinished,
                "not_sent": tally.not_sent,
            },
            "error_ratio": summary.error_ratio,
            "fine": summary.is_fine,
            "throughput": {
                "requests": summary.requests_per_second,
                "input_tokens": summary.input_tokens_per_second,
                "output_tokens": summary.output_tokens_per_second,
            },
            "goodput": _goodput(summary),
            "latency_seconds": {each.name: asdict(each.percentiles) for each in summary.latencies},
            "errors": [
                {
                    "label": label,
                    "count": failure.count,
                    "refusal": failure.is_refusal,
                    "message": failure.message,
                }
                for label, failure in summary.failures
            ],
            "timeline": _timeline(summary),
            "generator": _generator(summary),
            "warnings": summary.warnings(),
            "percentile_error_ratio": ERROR_BOUND,
        },
        option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE,
    )


def _goodput(summary: Summary) -> dict[str, object] | None:
    if not summary.plan.slo.is_set:
        return None
    return {
        "slo": asdict(summary.plan.slo),
        "requests": summary.tally.good,
        "requests_per_second": summary.goodput_per_second,
        "ratio": summary.goodput_ratio,
    }


def _timeline(summary: Summary) -> dict[str, object]:
    timeline = summary.outcome.timeline
    return {
        "width_seconds": timeline.width_seconds,
        "slots": [
            {
                "seconds": seconds,
                "ok": slot.ok,
                "failed": slot.failed,
                "refused": slot.refused,
                "output_tokens": slot.output_tokens,
                "in_flight": slot.in_flight,
                "time_to_first_token": _quantiles(slot.time_to_first_token, 0.5, 0.95, 0.99),
                "inter_token": _quantiles(slot.inter_token, 0.5, 0.95, 0.99),
                "end_to_end": _quantiles(slot.end_to_end, 0.5, 0.95, 0.99),
            }
            for seconds, slot in timeline.slots()
        ],
    }


def _generator(summary: Summary) -> dict[str, object]:
    health = summary.outcome.health
    return {
        "workers": summary.plan.workers,
        "cpu_ratio": health.cpu_ratio,
        "starved_ratio": health.starved_ratio,
        "loop_lag_seconds": _lag(health.loop_lag),
        "send_lag_seconds": _lag(summary.tally.send_lag),
    }


def _lag(histogram: Histogram) -> dict[str, float | None]:
    return _quantiles(histogram, 0.5, 0.99) | {"max": histogram.largest}


def _quantiles(histogram: Histogram, *ratios: float) -> dict[str, float | None]:
    return {f"p{ratio * 100:.0f}": histogram.quantile(ratio) for ratio in ratios}
