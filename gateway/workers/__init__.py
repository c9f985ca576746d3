"""Several processes that serve one port: who starts them again, and how one speaks for all."""
