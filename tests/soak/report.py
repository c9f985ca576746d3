"""What a soak found, for people."""

from typing import Any

from rich.console import Console
from rich.table import Table


def show(result: dict[str, Any]) -> None:
    console = Console(width=110)
    table = Table(
        title=f"{result['seconds']:.0f} s, {result['calls']} calls, seed {result['seed']}"
    )
    for title in (
        "at rest after",
        "resident MiB",
        "descriptors",
        "tasks",
        "objects",
        "blocks",
        "held",
    ):
        table.add_column(title, justify="right")
    for look in result["looks"]:
        table.add_row(
            f"{look['at_seconds']:.0f} s",
            f"{look['resident_bytes'] / 2**20:.2f}",
            str(look["descriptors"]),
            str(sum(look["tasks"].values())),
            f"{look['objects']:,}",
            f"{look['blocks']:,}",
            f"{sum(look['held'].values()):g}",
        )
    console.print(table)
    _show_growth(console, result)
    _show_books(console, result)
    _show_counts(console, "befell", result["befell"])
    _show_counts(console, "calls", result["outcomes"])
    for complaint in result["complaints"]:
        console.print(f"WRONG: {complaint}", style="bold red", markup=False)
    for what, example in result["examples"].items():
        console.print(f"  {what}, for example: {example}", markup=False)
    console.print("All is well." if not result["complaints"] else "Not well.")


def _show_growth(console: Console, result: dict[str, Any]) -> None:
    grown = result["growth"]
    console.print(
        f"The gateway took {result['cpu_share']:.1%} of a core and at the most "
        f"{result['peak_bytes'] / 2**20:.1f} MiB."
    )
    if grown is None:
        console.print("Too few rests to say whether anything grows.")
        return
    console.print(
        f"Once warm: {grown['bytes_per_hour'] / 2**20:+.2f} MiB an hour, "
        f"{grown['descriptors']:+d} descriptors, {grown['tasks']:+d} tasks, "
        f"{grown['objects']:+d} objects, {grown['blocks']:+d} blocks {grown['kinds']}",
        markup=False,
    )


def _show_books(console: Console, result: dict[str, Any]) -> None:
    table = Table(title="The books")
    for title in ("calls", "how many", "tokens charged"):
        table.add_column(title, justify="left" if title == "calls" else "right")
    for how, count in sorted(result["calls_by_ending"].items()):
        table.add_row(how, f"{count:,}", f"{result['tokens_by_ending'].get(how, 0):,}")
    console.print(table)
    console.print(
        f"Charged {result['charged_tokens']:,} tokens to {len(result['charged_by_key'])} keys; the "
        f"simulators generated {result['generated_tokens']:,}, {result['kills']} kills aside."
    )


def _show_counts(console: Console, title: str, counts: dict[str, int]) -> None:
    words = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    console.print(f"{title}: {words}", markup=False, style="dim")
