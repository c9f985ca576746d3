"""Numbers as people read them."""


def duration(seconds: float | None) -> str:
    """Three digits and the unit that fits; a dash where nothing was measured."""
    if seconds is None:
        return "-"
    if seconds == 0:
        return "0"
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{_three(seconds * 1000)} ms"
    return f"{_three(seconds)} s"


def rate(number: float) -> str:
    """A rate per second: no digits that say nothing."""
    return _three(number) if number < 1000 else f"{number:,.0f}"


def tick(number: float) -> str:
    """A round number beside an axis."""
    return f"{number:,.0f}" if number >= 1000 else f"{number:g}"


def duration_tick(seconds: float) -> str:
    """A round number of seconds beside an axis."""
    if seconds == 0:
        return "0"
    if seconds < 0.0009995:
        return f"{seconds * 1e6:.4g} us"
    return f"{seconds * 1000:.4g} ms" if seconds < 0.9995 else f"{seconds:.4g} s"


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"


def _three(number: float) -> str:
    if number >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}"
