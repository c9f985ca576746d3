"""In which dialect a request is answered, and what is told there of its limits."""

from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.edge.dialects import Dialects
from gateway.exchange import Allowance
from gateway.wire.anthropic import AnthropicDialect
from gateway.wire.openai import OpenAIConfig, OpenAIDialect

OPENAI, ANTHROPIC = OpenAIDialect(OpenAIConfig()), AnthropicDialect(OpenAIConfig())
NOW = datetime(2026, 3, 29, 23, 59, 0, 500_000, tzinfo=UTC)
VERSION = (b"anthropic-version", b"2023-06-01")


@pytest.mark.parametrize(
    ("path", "headers", "dialect"),
    [
        (b"/v1/messages", [], ANTHROPIC),
        (b"/v1/messages/count_tokens", [], ANTHROPIC),
        (b"/v1/messages/batches", [], ANTHROPIC),
        (b"/v1/models", [VERSION], ANTHROPIC),
        (b"/v1/models/a/b", [VERSION], ANTHROPIC),
        (b"/v1/models", [], OPENAI),
        (b"/v1/chat/completions", [VERSION], OPENAI),
        (b"/", [VERSION], OPENAI),
    ],
)
def test_the_path_decides_and_for_models_the_version_of_anthropics_clients(
    path: bytes, headers: list[tuple[bytes, bytes]], dialect: object
) -> None:
    scope: dict[str, Any] = {"raw_path": path, "headers": headers}

    assert Dialects(openai=OPENAI, anthropic=ANTHROPIC).of(scope) is dialect


def test_openai_is_told_how_long_and_anthropic_when() -> None:
    requests, tokens = Allowance(60, 12, 3.0), Allowance(1000, 0, 59.5)

    assert dict(OPENAI.limit_headers(requests, tokens, now=NOW.timestamp())) == {
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"12",
        b"x-ratelimit-reset-requests": b"3s",
        b"x-ratelimit-limit-tokens": b"1000",
        b"x-ratelimit-remaining-tokens": b"0",
        b"x-ratelimit-reset-tokens": b"1m0s",
    }
    assert dict(ANTHROPIC.limit_headers(requests, tokens, now=NOW.timestamp())) == {
        b"anthropic-ratelimit-requests-limit": b"60",
        b"anthropic-ratelimit-requests-remaining": b"12",
        b"anthropic-ratelimit-requests-reset": b"2026-03-29T23:59:04Z",
        b"anthropic-ratelimit-tokens-limit": b"1000",
        b"anthropic-ratelimit-tokens-remaining": b"0",
        b"anthropic-ratelimit-tokens-reset": b"2026-03-30T00:00:00Z",
    }


@pytest.mark.parametrize("dialect", [OPENAI, ANTHROPIC])
def test_who_has_no_limits_is_told_of_none(dialect: OpenAIDialect | AnthropicDialect) -> None:
    assert dialect.limit_headers(None, None, now=NOW.timestamp()) == []
    only_tokens = dialect.limit_headers(None, Allowance(5, 5, 1.0), now=NOW.timestamp())
    assert len(only_tokens) == 3
    assert all(b"tokens" in name for name, _ in only_tokens)
