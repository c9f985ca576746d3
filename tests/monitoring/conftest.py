"""The plant is started once for all alerts: it needs a while to come to rest."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.monitoring.plant import Plant, running_plant


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plant(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Plant]:
    folder: Path = tmp_path_factory.mktemp("plant")
    async with running_plant(folder) as plant:
        yield plant
