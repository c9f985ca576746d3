"""The monitoring stack: up and down with Docker, native with a Prometheus of this machine.

Standard library only: it runs before there is an environment, from the repository's root.
"""

import sys
from pathlib import Path

if not __package__:
    # Started by its path: `scripts` is a package of the root.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from scripts.stack import docker, native


def main() -> None:
    match sys.argv[1:]:
        case ["up"]:
            docker.up()
        case ["down"]:
            docker.down()
        case ["native"]:
            native.run()
        case ["fetch"]:
            native.fetch()
        case _:
            sys.exit("usage: monitoring.py up | down | native | fetch")


if __name__ == "__main__":
    main()
