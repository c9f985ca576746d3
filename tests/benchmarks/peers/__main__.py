"""Install peers of the gateway to be measured against, or say which are installed."""

import argparse
import sys

from tests.benchmarks.peers.catalogue import PEERS
from tests.benchmarks.peers.homes import FOLDER, NotInstalled


def main() -> int:
    """Exit code 1 if a peer that was asked for could not be installed; the others are."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.peers", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="which are installed, in which version")
    install = commands.add_parser("install", help=f"the newest of each, under {FOLDER.parent.name}")
    install.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(PEERS)} (all)")
    install.add_argument("--missing", action="store_true", help="leave alone what is installed")
    options = parser.parse_args()
    if options.command == "list":
        _list()
        return 0
    unknown = sorted(set(options.names) - set(PEERS))
    if unknown:
        parser.error(f"no such peer: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    names = [
        name
        for name in options.names or PEERS
        if not (options.missing and PEERS[name].home.version())
    ]
    failed = [name for name in names if not _install(name)]
    _list()
    return 1 if failed else 0


def _install(name: str) -> bool:
    sys.stderr.write(f"{name}: installing into {FOLDER / name}\n")
    try:
        PEERS[name].home.install()
    except NotInstalled as fault:
        sys.stderr.write(f"{name}: not installed: {fault}\n")
        return False
    return True


def _list() -> None:
    for name, peer in PEERS.items():
        sys.stdout.write(f"{name} {peer.home.version() or 'is not installed'}\n")


if __name__ == "__main__":
    sys.exit(main())
