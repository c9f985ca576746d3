"""Where a peer is installed: a folder of its own, which knows how to fill itself."""

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Final, Protocol

import orjson

FOLDER: Final = Path(__file__).resolve().parents[3] / ".tools" / "peers"
_INSTALL_SECONDS: Final = 1200.0


class NotInstalled(Exception):
    """The peer cannot be had on this machine; the message says why."""


class Home(Protocol):
    """One peer's environment."""

    def version(self) -> str | None:
        """What is installed, or None."""
        ...

    def install(self) -> None:
        """The newest one, from its registry. Raises NotInstalled."""
        ...


@dataclass(frozen=True, slots=True)
class PythonHome:
    """A virtual environment; `requirement` is what pip is asked for, `package` what that brings."""

    package: str
    requirement: str
    root: Path = FOLDER

    @property
    def folder(self) -> Path:
        return self.root / self.package

    def program(self, name: str) -> str:
        return str(self.folder / "bin" / name)

    def version(self) -> str | None:
        places = [str(place) for place in self.folder.glob("lib/python*/site-packages")]
        found = [each.version for each in metadata.distributions(name=self.package, path=places)]
        return found[0] if found else None

    def install(self) -> None:
        _run([sys.executable, "-m", "venv", "--clear", str(self.folder)], self.root)
        pip = [self.program("python"), "-m", "pip", "-q", "--disable-pip-version-check"]
        _run([*pip, "install", self.requirement], self.root)


@dataclass(frozen=True, slots=True)
class NodeHome:
    """A folder with node_modules. `overrides` hold back packages that break the peer."""

    name: str
    package: str
    overrides: Mapping[str, str] = field(default_factory=dict)
    root: Path = FOLDER

    @property
    def folder(self) -> Path:
        return self.root / self.name

    @property
    def package_folder(self) -> Path:
        return self.folder / "node_modules" / self.package

    def version(self) -> str | None:
        manifest = self.package_folder / "package.json"
        return str(orjson.loads(manifest.read_bytes())["version"]) if manifest.exists() else None

    def install(self) -> None:
        npm = shutil.which("npm")
        if npm is None:
            raise NotInstalled("it needs Node.js, and npm is not on PATH")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        wish = {"private": True, "dependencies": {self.package: "*"}, "overrides": self.overrides}
        (self.folder / "package.json").write_bytes(orjson.dumps(wish))
        _run([npm, "install", "--silent", "--no-fund", "--no-audit"], self.folder)


def _run(command: Sequence[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_INSTALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"{Path(command[0]).name} took over {_INSTALL_SECONDS:g} s") from None
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip()[-800:]
        raise NotInstalled(f"{Path(command[0]).name} failed with {done.returncode}: {words}")
