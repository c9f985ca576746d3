"""The metrics pages of several workers as one: whole families, each sample with its worker."""

from collections.abc import Iterator, Mapping

from gateway.telemetry.exposition import sliced

EOF = "# EOF"
UP = "gateway_worker_up"


class _Family:
    """The head of a metric, and its samples from every page."""

    __slots__ = ("head", "samples")

    def __init__(self) -> None:
        self.head: list[str] = []
        self.samples: list[str] = []


async def merged(pages: Mapping[int, bytes | None]) -> bytes:
    """One page from those of each worker by number; None for one that did not answer.

    Families stay whole, as both formats demand, in the order of the first page that has them.
    """
    families: dict[str, _Family] = {}
    is_openmetrics = False
    for number, page in pages.items():
        if page is None:
            continue
        family = _Family()
        async for lines in sliced(page.decode().splitlines()):
            for line in lines:
                if line.startswith("# HELP "):
                    family = families.setdefault(line.split(" ", 3)[2], _Family())
                if not line.startswith("#"):
                    family.samples.append(labelled(line, number))
                elif line == EOF:
                    is_openmetrics = True
                elif len(family.head) < 2:
                    family.head.append(line)
    texts = [chunk async for lines in sliced(_lines(families, pages)) for chunk in lines]
    if is_openmetrics:
        texts.append(EOF)
    return ("\n".join(texts) + "\n").encode()


def labelled(sample: str, number: int) -> str:
    """The sample with the label `worker` before all others."""
    name, brace, rest = sample.partition("{")
    if brace and " " not in name:
        return f'{name}{{worker="{number}",{rest}'
    name, _, rest = sample.partition(" ")
    return f'{name}{{worker="{number}"}} {rest}'


def _lines(families: Mapping[str, _Family], pages: Mapping[int, bytes | None]) -> Iterator[str]:
    yield f"# HELP {UP} 1 if this worker answered for its part of this page."
    yield f"# TYPE {UP} gauge"
    for number, page in pages.items():
        yield f'{UP}{{worker="{number}"}} {float(page is not None)}'
    for family in families.values():
        yield from family.head
        yield from family.samples
