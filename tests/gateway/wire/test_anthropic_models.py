"""Models and limits as Anthropic's clients read them."""

from datetime import UTC, datetime, timedelta, timezone

from gateway.exchange import ServedModel
from gateway.wire.anthropic_limits import Counted, Standing, limit_headers, rfc3339
from gateway.wire.anthropic_models import model_card, model_list


def test_models_are_listed_on_one_page() -> None:
    page = model_list([ServedModel("a", 2048), ServedModel("b/c")])
    assert (page["first_id"], page["last_id"], page["has_more"]) == ("a", "b/c", False)
    assert page["data"] == [model_card(ServedModel("a", 2048)), model_card(ServedModel("b/c"))]


def test_a_model_is_shown_by_its_name() -> None:
    card = model_card(ServedModel("a", 2048))
    assert (card["type"], card["id"], card["display_name"]) == ("model", "a", "a")
    assert card["created_at"] == "1970-01-01T00:00:00Z"
    assert card["max_input_tokens"] == 2048


def test_no_models_are_an_empty_page() -> None:
    page = model_list([])
    assert page == {"data": [], "has_more": False, "first_id": None, "last_id": None}


def test_limits_have_three_headers_each() -> None:
    noon = datetime(2026, 11, 21, 12, tzinfo=UTC)
    standings = [
        Standing(Counted.REQUESTS, 600, 599, noon),
        Standing(Counted.TOKENS, 1000, -5, noon),
    ]
    assert limit_headers(standings) == [
        (b"anthropic-ratelimit-requests-limit", b"600"),
        (b"anthropic-ratelimit-requests-remaining", b"599"),
        (b"anthropic-ratelimit-requests-reset", b"2026-11-21T12:00:00Z"),
        (b"anthropic-ratelimit-tokens-limit", b"1000"),
        (b"anthropic-ratelimit-tokens-remaining", b"0"),
        (b"anthropic-ratelimit-tokens-reset", b"2026-11-21T12:00:00Z"),
    ]


def test_a_reset_is_in_utc_and_never_early() -> None:
    berlin = timezone(timedelta(hours=1))
    moment = datetime(2026, 12, 31, 23, 59, 59, 1, tzinfo=berlin)
    assert rfc3339(moment) == b"2026-12-31T23:00:00Z"
