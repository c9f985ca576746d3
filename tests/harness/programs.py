"""Servers that tests talk to: found on this machine, or taken from Debian's packages."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

_PLACES: Final = "/usr/sbin:/usr/local/sbin:/usr/local/bin"
_UNPACKED: Final = Path(".tools").resolve()
# Installing a package must neither ask nor start a server.
_QUIET: Final = {"RUNLEVEL": "1", "DEBIAN_FRONTEND": "noninteractive"}


def unpacked(program: str, *, package: str) -> str:
    """Path of a program whose package runs from where it is unpacked (`.tools/`), root or not.

    Skips the test with the reason where there is no such program; in CI that is a failure.
    """
    return _found(program) or _fetched(program, package) or _missing(program, package)


def installed(program: str, *, package: str) -> str:
    """Path of a program whose package has to be installed, which takes root: it looks for its
    files where the package puts them.

    Skips the test with the reason where there is no such program; in CI that is a failure.
    """
    return _in_place(program) or _installed(program, package) or _missing(program, package)


def _found(program: str) -> str | None:
    unpacked_places = ":".join(str(_UNPACKED / place) for place in ("usr/bin", "usr/sbin"))
    return _in_place(program) or shutil.which(program, path=unpacked_places)


def _in_place(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path=_PLACES)


def _fetched(program: str, package: str) -> str | None:
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        return None
    _UNPACKED.mkdir(exist_ok=True)
    if not _ran("apt-get", "download", package) and _refreshed():
        _ran("apt-get", "download", package)
    for archive in _UNPACKED.glob(f"{package}_*.deb"):
        _ran("dpkg", "-x", str(archive), str(_UNPACKED))
        archive.unlink()
    return _found(program)


def _installed(program: str, package: str) -> str | None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return None
    install = ("apt-get", "install", "-y", "-qq", "--no-install-recommends", package)
    if not _ran(*install) and _refreshed():
        _ran(*install)
    return _in_place(program)


def _refreshed() -> bool:
    return os.geteuid() == 0 and _ran("apt-get", "update", "-qq")


def _ran(*command: str) -> bool:
    _UNPACKED.mkdir(exist_ok=True)
    done = subprocess.run(
        command,
        cwd=_UNPACKED,
        env=os.environ | _QUIET,
        capture_output=True,
        check=False,
        timeout=300,
    )
    return done.returncode == 0


def _missing(program: str, package: str) -> str:
    reason = f"{program} is not here and Debian's package {package} could not be had"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
