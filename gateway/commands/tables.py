"""Tables on stdout: boxed for a person at a terminal, plain lines for a pipe or a file."""

import sys

from rich.console import Console
from rich.table import Table

_UNBOUNDED_WIDTH = 10_000


def new_table(*, show_header: bool = True, show_footer: bool = False) -> Table:
    """A table to be filled and given to `print_table`."""
    if sys.stdout.isatty():
        return Table(show_header=show_header, show_footer=show_footer)
    return Table(show_header=show_header, show_footer=show_footer, box=None, pad_edge=False)


def print_table(table: Table) -> None:
    """On a terminal as wide as it is; elsewhere each row stays one line."""
    width = None if sys.stdout.isatty() else _UNBOUNDED_WIDTH
    Console(highlight=False, width=width).print(table)
