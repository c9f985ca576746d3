"""Decides what an exchange counts for, and counts it."""

from scripts.loadtest.exchange import Exchange
from scripts.loadtest.plan import Slo
from scripts.loadtest.tally import Tally


class Recorder:
    """Owns the tally of the while since the last `take`.

    A request due between `begin_at` and `end_at` is in the sample, whenever it ends; what ends
    between them counts as throughput, whenever it was due.
    """

    def __init__(self, *, begin_at: float, end_at: float, slo: Slo) -> None:
        self._begin_at = begin_at
        self._end_at = end_at
        self._slo = slo
        self._tally = Tally()

    def take(self) -> Tally:
        """What was counted since the last time."""
        tally, self._tally = self._tally, Tally()
        return tally

    def begin(self, exchange: Exchange) -> None:
        """A request is about to be sent."""
        exchange.is_sample = self._begin_at <= exchange.intended_at < self._end_at
        if exchange.is_sample:
            self._tally.begun += 1
            exchange.note_gap = self._note_gap

    def end(self, exchange: Exchange) -> None:
        """A request has its answer, or its failure."""
        tally = self._tally
        tokens = exchange.output_tokens or exchange.token_events
        tally.live_tokens += tokens
        if exchange.failure is None:
            tally.live_ok += 1
            if self._begin_at <= exchange.ended_at < self._end_at:
                tally.finished += 1
                tally.input_tokens += exchange.input_tokens
                tally.output_tokens += tokens
        if exchange.is_sample:
            self._add_to_sample(exchange, tally)

    def cut(self, exchange: Exchange) -> None:
        """The run is over before the request is."""
        if exchange.is_sample:
            self._tally.unfinished += 1

    def not_sent(self, due_at: float) -> None:
        """A request was due, and too many were outstanding already."""
        if self._begin_at <= due_at < self._end_at:
            self._tally.begun += 1
            self._tally.not_sent += 1

    def _add_to_sample(self, exchange: Exchange, tally: Tally) -> None:
        if exchange.sent_at:
            tally.send_lag.add(exchange.sent_at - exchange.intended_at)
        if exchange.failure is not None:
            tally.count_failure(exchange.failure)
            return
        tally.ok += 1
        if not exchange.input_tokens:
            tally.without_usage += 1
        tally.end_to_end.add(exchange.total_seconds)
        first = exchange.time_to_first_token
        each = exchange.time_per_output_token
        if first is not None:
            tally.time_to_first_token.add(first)
        if each is not None:
            tally.time_per_output_token.add(each)
        if self._slo.is_set and self._is_good(exchange.total_seconds, first, each):
            tally.good += 1

    def _is_good(self, total: float, first: float | None, each: float | None) -> bool:
        slo = self._slo
        if slo.ttft_seconds and (first is None or first > slo.ttft_seconds):
            return False
        if slo.tpot_seconds and each is not None and each > slo.tpot_seconds:
            return False
        return not slo.e2el_seconds or total <= slo.e2el_seconds

    def _note_gap(self, seconds: float) -> None:
        self._tally.inter_token.add(seconds)
