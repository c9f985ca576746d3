"""The Redis that several gateways share: one connection each, and what to think of its silence."""
