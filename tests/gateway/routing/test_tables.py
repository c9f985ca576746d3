"""The upstreams file: what can be said, and how every mistake in it is told at once."""

from pathlib import Path

import pytest

from gateway.exchange import Operation
from gateway.routing.definition import FleetDefinition, Kind, MessagesMode, UpstreamDefinition
from gateway.routing.secret import NO_SECRET, Secret
from gateway.routing.source import DefinitionsUnusable, UpstreamsFile

WHERE = '[[upstream]]\nname = "a"\nurl = "http://a:8000"\n'


def read(folder: Path, text: str, **environ: str) -> FleetDefinition:
    path = folder / "upstreams.toml"
    path.write_text(text)
    return UpstreamsFile(path, environ, Secret("sk-general"), {"general": "x"}).read()


def faults(folder: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(DefinitionsUnusable) as unusable:
        read(folder, text, **environ)
    prefix = f"{folder / 'upstreams.toml'}: "
    assert all(fault.startswith(prefix) for fault in unusable.value.faults)
    return [fault.removeprefix(prefix) for fault in unusable.value.faults]


def test_all_that_can_be_said_is_read(tmp_path: Path) -> None:
    fleet = read(
        tmp_path,
        """
        [[upstream]]
        name = "large"
        url = "https://gpu:8443/vllm/"
        kind = ["generate", "rerank"]
        models = ["x", "y"]
        weight = 3
        max_in_flight = 10
        connect_timeout_seconds = 1
        first_byte_timeout_seconds = 2.5
        idle_timeout_seconds = 3
        api_key_env = "LARGE_KEY"
        health_path = "/healthz"
        messages = "translate"

        [aliases]
        "gpt-4o" = "x"
        """,
        LARGE_KEY="sk-large",
    )
    assert fleet.upstreams == (
        UpstreamDefinition(
            name="large",
            url="https://gpu:8443/vllm",
            kinds=frozenset({Kind.GENERATE, Kind.RERANK}),
            models=frozenset({"x", "y"}),
            weight=3,
            max_in_flight=10,
            connect_timeout_seconds=1.0,
            first_byte_timeout_seconds=2.5,
            idle_timeout_seconds=3.0,
            api_key=Secret("sk-large"),
            health_path="/healthz",
            messages=MessagesMode.TRANSLATE,
        ),
    )
    assert fleet.aliases == {"general": "x", "gpt-4o": "x"}


def test_an_upstream_needs_no_more_than_its_place(tmp_path: Path) -> None:
    (upstream,) = read(tmp_path, '[[upstream]]\nurl = "http://a:8000"').upstreams
    assert upstream == UpstreamDefinition(
        name="a:8000", url="http://a:8000", api_key=Secret("sk-general")
    )


def test_an_upstream_can_be_sent_no_key_at_all(tmp_path: Path) -> None:
    (upstream,) = read(tmp_path, f'{WHERE}api_key = ""').upstreams
    assert upstream.api_key == NO_SECRET


MISTAKES = {
    "": "names no upstream: write at least one table [[upstream]]",
    '[[upstream]]\nname = "a"': "upstream 'a', url: is missing; write",
    '[[upstream]]\nurl = "a:8000"': "upstream 1, url: must be http://host:port or",
    f"{WHERE}wieght = 2": "upstream 'a', wieght: is no key of this file; did you mean weight?",
    f"{WHERE}[alias]": "alias: is no key of this file; did you mean aliases?",
    f"{WHERE}zzz = 2": "upstream 'a', zzz: is no key of this file; known are name, url,",
    f'{WHERE}kind = "chat"': "upstream 'a', kind: 'chat' is none of auto, generate, embed,",
    f"{WHERE}kind = 3": "upstream 'a', kind: must be a text in quotes",
    f"{WHERE}models = []": "upstream 'a', models: names none; leave it out",
    f"{WHERE}weight = 0": "upstream 'a', weight: must be a whole number from 1 to 100",
    f"{WHERE}weight = 101": "upstream 'a', weight: must be a whole number from 1 to 100",
    f"{WHERE}weight = true": "upstream 'a', weight: must be a whole number from 1 to 100",
    f"{WHERE}max_in_flight = 0": "upstream 'a', max_in_flight: must be a whole number from 1 up",
    f"{WHERE}idle_timeout_seconds = -1": "upstream 'a', idle_timeout_seconds: must be a number of",
    f"{WHERE}idle_timeout_seconds = inf": "upstream 'a', idle_timeout_seconds: must be a number",
    f'{WHERE}api_key_env = "GONE"': "upstream 'a', api_key_env: the environment has no variable",
    f'{WHERE}api_key = "a b"': "upstream 'a', api_key: must be a text of ASCII without spaces",
    f'{WHERE}health_path = "health"': "upstream 'a', health_path: must be a path like /health",
    f'{WHERE}messages = "yes"': "upstream 'a', messages: must be one of auto, native, translate",
    f"{WHERE}{WHERE.replace('http://a', 'http://b')}": "upstream 'a': two have this name",
    f'{WHERE}[[upstream]]\nurl = "http://a:8000"': "upstream 'a:8000', url: 'a' is there already",
    f'{WHERE}[aliases]\nx = ["y"]': '[aliases] "x": must be the name of a served model',
    f'{WHERE}[aliases]\nx = "y"\ny = "z"': '[aliases] "x": "y" is an alias itself',
    f"{WHERE}[[aliases]]": "[aliases]: write each as",
    "[upstream]": "upstream: write each upstream as a table [[upstream]]",
    "[[upstream": "is no TOML: ",
    '[[upstream]]\nurl = "http://me:hunter2@a"': "upstream 1, url: must hold no credentials; use",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_told_with_its_place_and_its_cure(tmp_path: Path, text: str) -> None:
    (fault,) = faults(tmp_path, text)
    assert fault.startswith(MISTAKES[text])
    assert "hunter2" not in fault


def test_upstreams_without_a_readable_url_have_no_name_in_common(tmp_path: Path) -> None:
    found = faults(tmp_path, '[[upstream]]\nurl = "a:8000"\n[[upstream]]\nurl = "b:8000"')

    assert [fault.partition(":")[0] for fault in found] == ["upstream 1, url", "upstream 2, url"]


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    found = faults(
        tmp_path, f'{WHERE}weight = 0\nkind = "x"\nzzz = 1\n[[upstream]]\n[aliases]\na = 1'
    )
    assert len(found) == 5


def test_two_keys_are_one_too_many_and_neither_is_shown(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, f'{WHERE}api_key = "sk-hidden"\napi_key_env = "K"', K="sk-other")
    assert "keep one of them" in fault
    assert "sk-" not in fault


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(DefinitionsUnusable, match="cannot be read"):
        UpstreamsFile(tmp_path).read()
    with pytest.raises(DefinitionsUnusable, match="is not UTF-8"):
        (tmp_path / "latin").write_bytes(b"\xff\xfe")
        UpstreamsFile(tmp_path / "latin").read()


def test_no_secret_shows_in_a_repr(tmp_path: Path) -> None:
    file = UpstreamsFile(tmp_path, {"K": "sk-hidden"}, Secret("sk-hidden"))
    assert "sk-hidden" not in repr(file)


# What follows from a definition


@pytest.mark.parametrize(
    ("kind", "can", "cannot"),
    [
        (Kind.GENERATE, Operation.CHAT, Operation.EMBEDDINGS),
        (Kind.EMBED, Operation.EMBEDDINGS, Operation.CHAT),
        (Kind.RERANK, Operation.SCORE, Operation.EMBEDDINGS),
        (Kind.TRANSCRIBE, Operation.TRANSCRIPTIONS, Operation.CHAT),
    ],
)
def test_a_kind_says_what_may_be_asked(kind: Kind, can: Operation, cannot: Operation) -> None:
    definition = UpstreamDefinition(name="a", url="http://a", kinds=frozenset({kind}))
    operations = definition.operations(speaks_messages=True)
    assert can in operations
    assert cannot not in operations


@pytest.mark.parametrize(
    ("mode", "found", "is_native"),
    [
        (MessagesMode.AUTO, True, True),
        (MessagesMode.AUTO, False, False),
        (MessagesMode.AUTO, None, False),
        (MessagesMode.NATIVE, None, True),
        (MessagesMode.TRANSLATE, True, False),
    ],
)
def test_who_speaks_anthropic_is_said_or_found_out(
    mode: MessagesMode, found: bool | None, is_native: bool
) -> None:
    definition = UpstreamDefinition(name="a", url="http://a", messages=mode)
    operations = definition.operations(speaks_messages=found)
    assert (Operation.MESSAGES in operations) is is_native
    assert definition.asks_for_messages is (mode is MessagesMode.AUTO)
