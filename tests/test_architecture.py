"""The house rules that an import linter does not know: vendors, sizes, names, the environment."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "gateway").rglob("*.py"))
EXPORTER = sorted((ROOT / "exporter").rglob("*.py"))

# Each vendor, and the only rooms that may know it.
VENDORS = {
    "uvicorn": ("server", "protocol"),
    "starlette": ("edge", "app"),
    "typer": ("__main__", "commands"),
    "rich": ("commands",),
    "limits": ("ratelimit",),
    "aiosqlite": ("quota.journal",),
    "httptools": ("transport", "protocol"),
    "httpx2": ("transport", "app", "commands"),
    "orjson": ("wire", "telemetry"),
    "structlog": ("telemetry",),
    "prometheus_client": ("telemetry",),
    "opentelemetry": ("telemetry",),
    "grpc": ("telemetry",),
    "dotenv": ("__main__",),
    "redis": ("shared",),
    "hiredis": ("shared",),
}

# The same for the GPU exporter.
EXPORTER_VENDORS = {
    "pynvml": ("nvml",),
    "prometheus_client": ("exposition",),
    "starlette": ("pages",),
    "uvicorn": ("app",),
    "dotenv": ("__main__",),
}

LINES_MAX = 300
LONGER_WITH_REASON = {
    "gateway/app.py": "the composition root: long because it is the only one",
    "gateway/errors.py": "one tree, read as one",
    "gateway/exchange.py": "the vocabulary of all rooms, most of it docstrings of ports",
    "gateway/breaker.py": "one state machine with its transitions",
    "gateway/transport/connection.py": "one connection's states, which only make sense together",
}
BANNED_NAMES = {"utils", "util", "helpers", "common", "misc", "base", "core", "manager", "handlers"}


def room_of(path: Path) -> str:
    """`gateway/quota/journal.py` -> `quota.journal`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts[1:])


def imports_of(path: Path) -> Iterator[str]:
    """The top-level packages a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_vendor_is_known_in_its_rooms_alone(vendor: str) -> None:
    allowed = VENDORS[vendor]

    strangers = [
        room
        for path in SOURCES
        if vendor in imports_of(path)
        and not any((room := room_of(path)) == a or room.startswith(f"{a}.") for a in allowed)
    ]

    assert strangers == []


@pytest.mark.parametrize("vendor", EXPORTER_VENDORS)
def test_a_vendor_is_known_in_its_rooms_of_the_exporter_alone(vendor: str) -> None:
    allowed = EXPORTER_VENDORS[vendor]

    strangers = [
        room
        for path in EXPORTER
        if vendor in imports_of(path)
        and not any((room := room_of(path)) == a or room.startswith(f"{a}.") for a in allowed)
    ]

    assert strangers == []


def test_the_exporter_knows_no_other_vendor_and_no_gateway() -> None:
    stdlib = __import__("sys").stdlib_module_names
    found = {name for path in EXPORTER for name in imports_of(path)} - {"exporter"} - stdlib

    assert found <= set(EXPORTER_VENDORS)


def test_every_dependency_has_a_room() -> None:
    ours = {"gateway"}
    stdlib = __import__("sys").stdlib_module_names
    third_party = {name for path in SOURCES for name in imports_of(path)} - ours - stdlib

    assert third_party <= set(VENDORS)


def test_only_the_command_line_reads_the_environment() -> None:
    readers = []
    for path in SOURCES + EXPORTER:
        for node in ast.walk(ast.parse(path.read_text())):
            named = isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
            if named and isinstance(node.value, ast.Name) and node.value.id == "os":  # type: ignore[attr-defined]  # an Attribute, see above
                readers.append(room_of(path))

    assert set(readers) == {"__main__"}


@pytest.mark.parametrize("path", SOURCES + EXPORTER, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_short_and_named_for_what_it_is(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    lines = len(path.read_text().splitlines())

    assert path.stem not in BANNED_NAMES
    assert lines <= LINES_MAX or name in LONGER_WITH_REASON, f"{lines} lines"


@pytest.mark.parametrize("path", SOURCES + EXPORTER, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_says_in_one_sentence_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))

    assert docstring, "a module docstring is missing"
    assert docstring.partition("\n\n")[0].rstrip().endswith("."), "the sentence has no end"


def test_nobody_patches() -> None:
    patchers = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("*.py")
        if path != Path(__file__) and "mock" in imports_of_tests(path)
    ]

    assert patchers == []


def imports_of_tests(path: Path) -> set[str]:
    """The last words of what a test imports, so that `unittest.mock` is found."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.rpartition(".")[2] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module.rpartition(".")[2]} | {alias.name for alias in node.names}
    return found
