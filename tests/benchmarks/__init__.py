"""What this gateway costs, against no proxy, nginx and other gateways, measured in one run.

`python -m tests.benchmarks`; pytest collects only the tests of its parts, which measure nothing.
"""
