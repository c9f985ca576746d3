"""Other gateways to be measured against, each in an environment of its own under .tools/peers.

python -m tests.benchmarks.peers install [NAME...]
"""
