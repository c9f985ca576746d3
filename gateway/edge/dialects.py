"""Which dialect a request is answered in."""

from dataclasses import dataclass

from gateway.edge.asgi import Scope, header
from gateway.wire.dialect import Dialect

MESSAGES = b"/v1/messages"
MODELS = b"/v1/models"


@dataclass(frozen=True, slots=True)
class Dialects:
    """The dialects spoken here. The list of models is one path for both: Anthropic's clients name
    the version of their API with every request."""

    openai: Dialect
    anthropic: Dialect

    def of(self, scope: Scope) -> Dialect:
        path: bytes = scope["raw_path"]
        if path.startswith(MESSAGES):
            return self.anthropic
        if path.startswith(MODELS) and header(scope, b"anthropic-version") is not None:
            return self.anthropic
        return self.openai
