"""The stub driver, built once."""

from pathlib import Path

import pytest

from tests.exporter.stub import StubDriver, build_stub


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_stub(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def old_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A driver from before some functions were added."""
    return build_stub(tmp_path_factory.mktemp("old_nvml"), "-DOLD_DRIVER")


@pytest.fixture
def driver(library: Path, tmp_path: Path) -> StubDriver:
    return StubDriver(library=library, state=tmp_path / "nvml")


@pytest.fixture
def old_driver(old_library: Path, tmp_path: Path) -> StubDriver:
    return StubDriver(library=old_library, state=tmp_path / "old_nvml")
