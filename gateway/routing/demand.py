"""What is wanted of an upstream, as far as the choice among them goes."""

from typing import NamedTuple

from gateway.exchange import InferenceCall, Operation


class RoutingDemand(NamedTuple):
    """One call's wish. `session` is what the client named to come back to the same replica by;
    `call` is for a scorer that looks at the prompt."""

    model: str
    operation: Operation
    session: bytes | None = None
    call: InferenceCall | None = None
