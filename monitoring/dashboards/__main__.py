"""Writes the dashboards' JSON; with --check only tells whether the committed JSON is current."""

import argparse
import json
import sys
from pathlib import Path
from typing import Final

from monitoring.dashboards.catalogue import DASHBOARDS
from monitoring.dashboards.dashboard import Dashboard

FOLDER: Final = Path(__file__).parents[1] / "grafana" / "dashboards"


def main() -> None:
    """Exit 0 when written or current, 1 when --check finds a difference."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.dashboards", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 on a change")
    if not parser.parse_args().check:
        write(FOLDER)
    elif wrong := differences(FOLDER):
        sys.exit(f"not what monitoring/dashboards says: {', '.join(wrong)}; run make dashboards")


def write(folder: Path) -> None:
    """One file per dashboard, and no other JSON: Grafana would show it all the same."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.json"):
        path.unlink()
    for dashboard in DASHBOARDS:
        (folder / f"{dashboard.uid}.json").write_text(text_of(dashboard))


def differences(folder: Path) -> list[str]:
    """The names of the files that `write` would change, make or remove."""
    due = {f"{dashboard.uid}.json": text_of(dashboard) for dashboard in DASHBOARDS}
    found = {path.name: path.read_text() for path in folder.glob("*.json")}
    return sorted(name for name in due.keys() | found.keys() if due.get(name) != found.get(name))


def text_of(dashboard: Dashboard) -> str:
    return json.dumps(dashboard.json(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
