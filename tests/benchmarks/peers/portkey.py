"""Portkey's gateway on Node, without its console; where a request goes, the request says."""

import shutil
from typing import Final

from tests.benchmarks.peers.homes import NodeHome
from tests.benchmarks.peers.peer import Launch, Peer, Slot

# Since 1.14 of its server library every stream ends in "TypeError: immutable" (Portkey-AI/gateway
# issue 1389): the newest before that.
HOME: Final = NodeHome(
    name="portkey", package="@portkey-ai/gateway", overrides={"@hono/node-server": "1.13.8"}
)


def _launch(slot: Slot) -> Launch:
    program = HOME.package_folder / "build" / "start-server.js"
    return Launch(
        command=(
            *(shutil.which("node") or "node", str(program)),
            *("--headless", f"--port={slot.port}"),
        ),
        ready_path="/",
        environment={"NODE_ENV": "production"},
        headers={
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"{slot.upstream_url}/v1",
        },
    )


PORTKEY: Final = Peer(name="portkey", does="no keys, no limits", home=HOME, launch=_launch)
