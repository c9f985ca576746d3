"""Peers: found where they are installed, started as their pages say, and missed where not."""

from pathlib import Path

import pytest

from tests.benchmarks.peers.catalogue import PEERS
from tests.benchmarks.peers.homes import NodeHome, NotInstalled, PythonHome
from tests.benchmarks.peers.peer import Slot


def test_a_python_peer_is_installed_when_its_package_is(tmp_path: Path) -> None:
    home = PythonHome(package="some-router", requirement="some-router[proxy]", root=tmp_path)
    assert home.version() is None

    info = home.folder / "lib/python3.11/site-packages/some_router-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-router\nVersion: 1.2\n")

    assert home.version() == "1.2"


def test_a_node_peer_is_installed_when_its_package_is(tmp_path: Path) -> None:
    home = NodeHome(name="some", package="@some/gateway", root=tmp_path)
    assert home.version() is None

    home.package_folder.mkdir(parents=True)
    (home.package_folder / "package.json").write_text('{"version": "3.4"}')

    assert home.version() == "3.4"


def test_without_node_the_reason_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(NotInstalled, match="Node"):
        NodeHome(name="some", package="@some/gateway", root=tmp_path).install()


def test_an_installer_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho no such package >&2\nexit 4\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(NotInstalled, match="npm failed with 4: no such package"):
        NodeHome(name="some", package="@some/gateway", root=tmp_path).install()


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_listens_and_asks_where_it_is_told(name: str, tmp_path: Path) -> None:
    slot = Slot(port=1001, side_port=1002, upstream_port=1003, key="sk-bench", folder=tmp_path)

    launch = PEERS[name].launch(slot)

    told = [*launch.command, *launch.headers.values()]
    told += [file.read_text() for file in tmp_path.iterdir() if file.is_file()]
    assert any("1001" in words for words in told)
    assert any("http://127.0.0.1:1003" in words for words in told)
    assert launch.ready_path.startswith("/")
    assert not any("sk-bench" in words for words in launch.command)
