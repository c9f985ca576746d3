"""LiteLLM's proxy with one worker, a master key and no database.

As its pages on production tell: LITELLM_MODE=PRODUCTION, logs of errors only, one worker per core.
"""

from typing import Final

from tests.benchmarks import shapes
from tests.benchmarks.peers.homes import PythonHome
from tests.benchmarks.peers.peer import Launch, Peer, Slot

HOME: Final = PythonHome(package="litellm", requirement="litellm[proxy]")


def _configuration(slot: Slot) -> str:
    return f"""
model_list:
  - model_name: {shapes.MODEL}
    litellm_params:
      model: hosted_vllm/{shapes.MODEL}
      api_base: {slot.upstream_url}/v1
      api_key: none
litellm_settings:
  request_timeout: 600
  set_verbose: false
general_settings:
  master_key: os.environ/LITELLM_MASTER_KEY
"""


def _launch(slot: Slot) -> Launch:
    file = slot.folder / "litellm.yaml"
    file.write_text(_configuration(slot))
    return Launch(
        command=(
            *(HOME.program("litellm"), "--config", str(file)),
            *("--host", "127.0.0.1", "--port", str(slot.port), "--num_workers", "1"),
        ),
        ready_path="/health/liveliness",
        environment={
            "LITELLM_MASTER_KEY": slot.key,
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOG": "ERROR",
            # Else it asks the internet for prices when it starts.
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "DISABLE_ADMIN_UI": "True",
        },
    )


LITELLM: Final = Peer(name="litellm", does="one key, no database", home=HOME, launch=_launch)
