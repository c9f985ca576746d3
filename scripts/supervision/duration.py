"""How long something has been: shown to people in its largest whole unit."""

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"))


def duration(seconds: float) -> str:
    """45s, 12m, 3h, 2d."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(int(seconds), 0)}s"
