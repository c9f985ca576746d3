"""The dashboard's files: what they are sent with, what they must not hold, and their colours."""

import re
from html.parser import HTMLParser
from importlib import resources

import pytest

from gateway.edge.asgi import ASGIApp, Message
from gateway.edge.page import dashboard_routes
from gateway.edge.router import Router, not_found
from gateway.errors import NotFound
from gateway.exchange import Exchange

FILES = {
    entry.name: entry.read_text()
    for entry in resources.files("gateway.edge.dashboard").iterdir()
    if entry.is_file() and not entry.name.endswith(".py")
}
SCRIPTS = {name: text for name, text in FILES.items() if name.endswith(".js")}


def unguarded(app: ASGIApp) -> ASGIApp:
    return app


async def get(path: str, *headers: tuple[bytes, bytes]) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body of one answer."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    scope = {
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "headers": headers,
        "gateway.exchange": Exchange(
            request_id="1", method="GET", started_at=0.0, client_address="127.0.0.1"
        ),
    }
    await Router(dashboard_routes(guard=unguarded), elsewhere=not_found)(scope, receive, send)
    start, body = sent[0], sent[-1]  # One message or two: see asgi.respond.
    return start["status"], dict(start["headers"]), body["body"]


# Serving.


async def test_the_page_comes_with_a_policy_that_allows_only_its_own_files() -> None:
    status, headers, body = await get("/dashboard")

    policy = headers[b"content-security-policy"].decode().split("; ")
    allowed = {rule for rule in policy if not rule.endswith("'none'")}
    assert status == 200
    assert body.startswith(b"<!doctype html>")
    assert {"default-src 'none'", "base-uri 'none'", "form-action 'none'"} < set(policy)
    assert "frame-ancestors 'none'" in policy
    assert allowed == {
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "require-trusted-types-for 'script'",
    }
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert headers[b"referrer-policy"] == b"no-referrer"
    assert headers[b"cache-control"] == b"no-cache"


@pytest.mark.parametrize("name", FILES)
async def test_every_file_is_served_with_its_type_and_the_same_policy(name: str) -> None:
    page = await get("/dashboard")
    status, headers, body = await get(f"/dashboard/{name}")

    types = {
        "html": b"text/html",
        "css": b"text/css",
        "js": b"text/javascript",
        "svg": b"image/svg+xml",
    }
    assert status == 200
    assert body.decode() == FILES[name]
    assert headers[b"content-type"].partition(b";")[0] == types[name.rpartition(".")[2]]
    assert headers[b"content-security-policy"] == page[1][b"content-security-policy"]


async def test_a_file_that_the_browser_has_is_not_sent_again() -> None:
    _, headers, _ = await get("/dashboard")
    tag = headers[b"etag"]

    again = await get("/dashboard", (b"if-none-match", tag))
    weakened = await get("/dashboard", (b"if-none-match", b'"other", W/' + tag))
    changed = await get("/dashboard", (b"if-none-match", b'"other"'))

    assert (again[0], again[2]) == (304, b"")
    assert again[1][b"etag"] == tag
    assert weakened[0] == 304
    assert changed[0] == 200


async def test_a_slash_too_many_leads_back_under_any_prefix() -> None:
    status, headers, _ = await get("/dashboard/")

    assert (status, headers[b"location"]) == (308, b"../dashboard")


@pytest.mark.parametrize(
    "name", ["other.js", "__init__.py", "../page.py", "%2e%2e/page.py", "main.js/", "MAIN.JS"]
)
async def test_no_other_name_leads_to_a_file(name: str) -> None:
    with pytest.raises(NotFound):
        await get(f"/dashboard/{name}")


# What the files hold.


class Tags(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


TAGS = Tags(FILES["page.html"]).found


def test_the_page_has_nothing_inline_that_its_policy_would_have_to_allow() -> None:
    for tag, attributes in TAGS:
        assert tag != "style"
        assert tag != "script" or attributes.get("src")
        assert not [name for name in attributes if name.startswith("on") or name == "style"]


def test_every_address_in_the_page_is_relative_and_a_file_of_ours() -> None:
    addresses = [a.get("src") or a.get("href") for _, a in TAGS if "src" in a or "href" in a]

    assert {f"dashboard/{name}" for name in FILES if name != "page.html"} == set(addresses)


def test_the_input_of_the_key_is_never_kept_or_sent_by_the_browser() -> None:
    (key,) = [attributes for tag, attributes in TAGS if tag == "input"]

    assert (key["type"], key["autocomplete"], key["spellcheck"]) == ("password", "off", "false")
    assert "name" not in key


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_stores_interprets_or_prints_anything(name: str) -> None:
    forbidden = re.compile(
        r"localStorage|sessionStorage|indexedDB|document\.cookie|caches\.|pushState|replaceState|innerHTML|"
        r"outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|console\.|https?://(?!www\.w3\.org/2000/svg)"
    )

    assert forbidden.findall(SCRIPTS[name]) == []


# Colours: WCAG 2.2, 1.4.3 and 1.4.11.


def palettes() -> dict[str, dict[str, str]]:
    """The colours of both schemes by their names; dark ones replace light ones."""
    light, dark = (
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))
        for block in re.findall(r":root \{(.*?)\}", FILES["style.css"], re.DOTALL)
    )
    assert light.keys() == dark.keys()
    return {"light": light, "dark": dark}


def luminance(colour: str) -> float:
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


TEXT = [
    ("ink", "paper"), ("ink", "card"), ("ink", "alarm-paper"),
    ("quiet", "paper"), ("quiet", "card"), ("quiet", "alarm-paper"),
    ("alarm", "paper"), ("alarm", "card"),
    ("accent", "card"), ("accent", "alarm-paper"), ("on-accent", "accent"),
]  # fmt: skip
SHAPES = [
    ("accent", "card"), ("accent", "line"), ("accent", "paper"), ("accent-light", "card"),
    ("alarm", "paper"), ("alarm", "alarm-paper"), ("edge", "paper"), ("edge", "card"),
]  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("front", "back", "least"),
    [*((*pair, 4.5) for pair in TEXT), *((*pair, 3.0) for pair in SHAPES)],
)
def test_what_is_to_be_read_or_seen_stands_out(
    scheme: str, front: str, back: str, least: float
) -> None:
    colours = palettes()[scheme]

    assert contrast(colours[front], colours[back]) >= least
