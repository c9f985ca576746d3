"""What reserve.lua is asked about a call."""

from gateway.exchange import Principal, SharedLimits
from gateway.quota.ledger import TokenDemand
from gateway.quota.parcel import MICROSECONDS
from gateway.shared.dialling import Part

NO_LIMIT = -1


def question_of(
    principal: Principal, demand: TokenDemand, shared: SharedLimits | None, day: str
) -> list[Part]:
    """Key, day, quota, what is demanded, most at once, and the rate windows."""
    quota, most = principal.daily_token_quota, None if shared is None else shared.most
    windows = () if shared is None else shared.windows
    asked = demand.input_tokens + (demand.output_tokens or 0) * demand.choices
    question: list[Part] = [
        principal.key_id,
        day,
        NO_LIMIT if quota is None or demand.is_free else quota,
        demand.least_tokens,
        NO_LIMIT if demand.output_tokens is None else asked,
        NO_LIMIT if most is None else most,
        len(windows),
    ]
    for name, limit in windows:
        question += (name, limit.amount, round(limit.window_seconds * MICROSECONDS))
    return question
