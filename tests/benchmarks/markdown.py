"""The README's part on speed, written from a run: nobody types a figure."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from tests.benchmarks.goals import State, verdicts
from tests.benchmarks.growth import KINDS
from tests.benchmarks.peers.catalogue import PEERS
from tests.benchmarks.results import LINES, Line, Results
from tests.benchmarks.targets import DIRECT, GATEWAY, NGINX

README: Final = Path(__file__).resolve().parents[2] / "README.md"
BEGIN: Final = "<!-- benchmark: written by `python -m tests.benchmarks --update-readme` -->"
END: Final = "<!-- benchmark: end -->"


class NoPlace(Exception):
    """The text has no place for the table, or the run is not a whole one."""


def rendered(results: Results) -> str:
    """Tables, targets and what they hold for."""
    names = results.targets()
    parts = [
        "\n".join(_table(results, names)),
        "\n".join(_growth(results)),
        "\n".join(_goals(results)),
        _conditions(results, names),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def placed(text: str, part: str) -> str:
    """The text with the part between its two markers. Raises NoPlace if they are not there."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise NoPlace(f"README.md has lost the lines {BEGIN} and {END}")
    return f"{before}{begin}\n\n{part}\n{end}{after}"


def missing(results: Results) -> list[str]:
    """The measures that a README needs and this run does not have, and nginx and the gateway."""
    wanted = dict.fromkeys([line.measure for line in LINES] + list(KINDS))
    found = [name for name in wanted if name not in results.rounds]
    return found + [name for name in (DIRECT, NGINX, GATEWAY) if name not in results.targets()]


def update_readme(results: Results) -> None:
    """Raises NoPlace for a run with something left out, as half a table says nothing true."""
    if lacking := missing(results):
        raise NoPlace(f"README.md is left as it is: this run has no {', '.join(lacking)}")
    README.write_text(placed(README.read_text(), rendered(results)))


def cell(results: Results, line: Line, target: str) -> str:
    """A figure as people read it; with ! where answers were wrong, - where there is none."""
    value = results.shown(line, target)
    if value is None or (target == DIRECT and not line.has_direct):
        return "-"
    text = format(value, line.form)
    if line.is_added and target == DIRECT:
        text = f"({text})"
    return f"{text} !" if target in results.faults.get(line.measure, {}) else text


def ratio(results: Results, line: Line, base: str) -> str:
    """The gateway's figure by the base's, in the same round; of differences near zero none."""
    if line.is_added or line.measure == "drift":
        return "-"
    found = results.ratio(line.measure, line.number, GATEWAY, base)
    return "-" if found is None else f"{found:.2f}"


def _table(results: Results, names: Sequence[str]) -> Iterator[str]:
    rounds = max((len(each) for each in results.rounds.get("plain", {}).values()), default=0)
    titles = [_title(results, name) for name in names]
    yield _row([f"On one core, medians of {rounds} rounds", *titles, "gateway / nginx"])
    yield _row(["---"] * (len(names) + 2))
    for line in LINES:
        if line.measure in results.rounds:
            title = line.title.strip() if line.title[0] != " " else f"- {line.title.strip()}"
            cells = [cell(results, line, name) for name in names]
            yield _row([title, *cells, ratio(results, line, NGINX)])


def _title(results: Results, name: str) -> str:
    version = results.facts.get(name, "") if name in PEERS else ""
    return f"{name} {version}".strip()


def _growth(results: Results) -> Iterator[str]:
    measured = [name for name in KINDS if name in results.rounds]
    if not measured:
        return
    yield _row(["The gateway with", "requests/s", "of the smallest", "CPU per request", "memory"])
    yield _row(["---"] * 5)
    for name in measured:
        first, *_ = sizes = list(results.rounds[name])
        for size in sizes:
            found = results.ratio(name, "requests_per_second", size, first)
            number = results.median(name, size, "requests_per_second") or 0.0
            cpu = results.median(name, size, "cpu_us_per_request") or 0.0
            rss = results.median(name, size, "rss_bytes") or 0.0
            row = [KINDS[name].named(size), f"{number:,.0f}", f"{found or 0.0:.2f}"]
            yield _row([*row, f"{cpu:.1f} us", f"{rss / 1e6:.0f} MB"])


def _goals(results: Results) -> Iterator[str]:
    yield _row(["Target", "found", ""])
    yield _row(["---"] * 3)
    for verdict in verdicts(results):
        state = f"**{verdict.state.value}**"
        yield _row(
            [verdict.title, verdict.found, state if verdict.state is State.MISSED else state[2:-2]]
        )


def _conditions(results: Results, names: Sequence[str]) -> str:
    facts = dict(results.facts)
    day = datetime.fromisoformat(facts.pop("date")).date().isoformat() if "date" in facts else "?"
    kinds = "; ".join(f"{name}: {PEERS[name].does}" for name in names if name in PEERS)
    told = ", ".join(f"{name} {value}" for name, value in facts.items() if name not in PEERS)
    sentences = [f"Measured on {day}: {told}."]
    if kinds:
        sentences.append(f"What the peers do besides passing on: {kinds}.")
    if rewritten := results.rewritten():
        sentences.append(
            f"Every answer was verified, byte by byte but for {', '.join(rewritten)}: that writes "
            "them anew, so pieces, end and counts were compared."
        )
    else:
        sentences.append("Every answer was verified byte by byte.")
    sentences.append("Memory was measured once, in processes that did nothing else.")
    if results.left_out:
        # Why is in the report: it may quote a log, with paths that are nobody's business.
        sentences.append(f"Left out, as it could not be measured: {', '.join(results.left_out)}.")
    if any(results.faults.values()):
        sentences.append("A figure with ! had wrong or missing answers.")
    sentences += [f"{words[0].upper()}{words[1:]}." for words in results.disturbances()]
    return "\n".join(sentences)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
