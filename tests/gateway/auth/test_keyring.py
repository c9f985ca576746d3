"""KeyRing: who a token stands for, and why it does not."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.keyring import (
    KeyConflict,
    KeyDefaults,
    KeyEntry,
    KeyRing,
    digest_of,
    static_entries,
)
from gateway.errors import AuthenticationFailed
from gateway.exchange import Principal, RateLimit
from tests.fakes.clock import FakeClock

SECRET = "sk-correct-horse-battery-staple"
TEAM = Principal("team", "Team")


def ring_of(
    clock: FakeClock, *, expires_at: datetime | None = None, revoked_at: datetime | None = None
) -> KeyRing:
    return KeyRing([KeyEntry(digest_of(SECRET), TEAM, expires_at, revoked_at)], clock=clock)


def code_of(ring: KeyRing, token: bytes | str) -> str | None:
    with pytest.raises(AuthenticationFailed) as failed:
        ring.authenticate(token)
    assert SECRET not in failed.value.message
    return failed.value.code


@pytest.mark.parametrize("token", [SECRET, SECRET.encode()])
def test_the_right_secret_names_its_principal(token: bytes | str) -> None:
    assert ring_of(FakeClock()).authenticate(token) is TEAM


@given(st.binary(max_size=8192) | st.text(max_size=200))
def test_any_other_token_is_invalid_and_nothing_worse(token: bytes | str) -> None:
    assert code_of(ring_of(FakeClock()), token) == "invalid_api_key"


@pytest.mark.parametrize(
    "token", ["", "\ud800", b"\x00\xff", b"k" * 8192, SECRET + " ", SECRET[:-1]]
)
def test_a_hostile_token_is_invalid(token: bytes | str) -> None:
    assert code_of(ring_of(FakeClock()), token) == "invalid_api_key"


def test_an_empty_ring_lets_nobody_in() -> None:
    assert code_of(KeyRing(clock=FakeClock()), SECRET) == "invalid_api_key"


def test_a_key_expires_by_the_clock() -> None:
    clock = FakeClock()
    ring = ring_of(clock, expires_at=clock.now() + timedelta(seconds=10))
    assert ring.authenticate(SECRET) is TEAM
    clock.advance(10)
    assert code_of(ring, SECRET) == "api_key_expired"


def test_a_secret_in_its_grace_works_until_the_grace_is_over() -> None:
    clock = FakeClock()
    ring = ring_of(clock, revoked_at=clock.now() + timedelta(hours=1))
    assert ring.authenticate(SECRET) is TEAM
    clock.advance(3600)
    assert code_of(ring, SECRET) == "api_key_revoked"


def test_a_revoked_key_says_revoked_even_if_it_has_expired_too() -> None:
    clock = FakeClock()
    ring = ring_of(clock, expires_at=clock.now(), revoked_at=clock.now())
    assert code_of(ring, SECRET) == "api_key_revoked"


def test_a_static_key_gets_the_slug_of_its_name_and_the_defaults() -> None:
    defaults = KeyDefaults(1000, (RateLimit(60, 60.0),), 4)
    (entry,) = static_entries([("Team A (prod)", SECRET)], defaults=defaults)
    assert entry.digest == digest_of(SECRET)
    assert entry.principal == Principal(
        "team-a-prod",
        "Team A (prod)",
        daily_token_quota=1000,
        rate_limits=(RateLimit(60, 60.0),),
        max_concurrent=4,
    )


def test_a_nameless_key_gets_a_stable_id_that_is_no_plain_hash_of_it() -> None:
    (first,) = static_entries([(None, "weak")], defaults=KeyDefaults())
    (again,) = static_entries([(None, "weak")], defaults=KeyDefaults())
    key_id = first.principal.key_id
    assert key_id == again.principal.key_id
    assert key_id.startswith("key-")
    assert len(key_id) == 14
    assert key_id[4:] not in digest_of("weak").hex()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ([("a", "same"), ("b", "same")], "'a' and 'b' have the same secret"),
        ([("Team A", "one"), ("team-a", "two")], "two keys have the id 'team-a'"),
        ([("***", "one")], "needs a letter or digit"),
    ],
)
def test_keys_that_cannot_be_told_apart_are_refused(
    keys: list[tuple[str | None, str]], said: str
) -> None:
    with pytest.raises(KeyConflict, match=said) as refused:
        static_entries(keys, defaults=KeyDefaults())
    assert not any(secret in str(refused.value).split("'") for _, secret in keys)


def test_of_two_entries_with_one_secret_the_first_counts() -> None:
    other = Principal("other", "Other")
    digest = digest_of(SECRET)
    ring = KeyRing([KeyEntry(digest, TEAM), KeyEntry(digest, other)], clock=FakeClock())
    assert ring.authenticate(SECRET) is TEAM
    assert len(ring) == 1


def test_the_message_tells_when_a_key_expired() -> None:
    expired_at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    with pytest.raises(AuthenticationFailed, match="2026-01-02T03:04:05Z"):
        ring_of(FakeClock(), expires_at=expired_at).authenticate(SECRET)


def test_the_principals_are_those_who_can_still_come_in_once_each() -> None:
    clock = FakeClock()
    later, earlier = clock.now() + timedelta(hours=1), clock.now()
    gone, other = Principal("gone", "Gone"), Principal("other", "Other")
    ring = KeyRing(
        [
            KeyEntry(digest_of("new"), TEAM),
            KeyEntry(digest_of("old, in its grace"), TEAM, revoked_at=later),
            KeyEntry(digest_of("revoked"), gone, revoked_at=earlier),
            KeyEntry(digest_of("expired"), gone, expires_at=earlier),
            KeyEntry(digest_of("expires"), other, expires_at=later),
        ],
        clock=clock,
    )

    assert list(ring.principals()) == [TEAM, other]
    clock.advance(3600)
    assert list(ring.principals()) == [TEAM]
