"""Origin: whose address a request is counted under, and what came through a stranger."""

from ipaddress import ip_network

import pytest

from gateway.edge.origin import Origin, OriginConfig, lies_in

PEER = ("10.0.0.1", 1)
FORWARDED = [(b"x-forwarded-for", b"203.0.113.1")]


def trusting(*networks: str) -> Origin:
    return Origin(OriginConfig(trusted_proxies=tuple(ip_network(n) for n in networks)))


def test_nobody_is_trusted_by_default() -> None:
    assert trusting().address_of(PEER, FORWARDED) == "10.0.0.1"


def test_a_trusted_peer_names_its_client() -> None:
    assert trusting("10.0.0.0/8").address_of(PEER, FORWARDED) == "203.0.113.1"


def test_a_peer_outside_the_networks_is_the_client_itself() -> None:
    assert trusting("192.168.0.0/16").address_of(PEER, FORWARDED) == "10.0.0.1"


def test_an_ipv4_peer_seen_over_ipv6_is_the_same_peer() -> None:
    assert trusting("10.0.0.0/8").address_of(("::ffff:10.0.0.1", 1), FORWARDED) == "203.0.113.1"


def test_several_lines_are_one_list_read_from_its_end() -> None:
    lines = [(b"x-forwarded-for", b"6.6.6.6, 203.0.113.1"), (b"x-forwarded-for", b"10.0.0.2")]

    assert trusting("10.0.0.0/8").address_of(PEER, lines) == "203.0.113.1"


def test_without_a_peer_the_address_is_unknown() -> None:
    assert trusting("10.0.0.0/8").address_of(None, FORWARDED) == "unknown"


@pytest.mark.parametrize("header", [b"x-forwarded-for", b"forwarded", b"x-real-ip"])
def test_what_an_untrusted_proxy_passed_on_is_not_direct(header: bytes) -> None:
    headers = {header: b"127.0.0.1"}

    assert not trusting().is_direct(("127.0.0.1", 1), headers)
    assert trusting("127.0.0.1/32").is_direct(("127.0.0.1", 1), headers)


def test_what_came_without_a_proxy_is_direct() -> None:
    assert trusting().is_direct(("127.0.0.1", 1), {})


def test_garbage_lies_nowhere() -> None:
    assert not lies_in("garbage", (ip_network("0.0.0.0/0"),))
