"""What this gateway costs, against no proxy and against nginx, measured in one run.

`python -m tests.benchmarks`; never collected by pytest.
"""
