"""Keys and quotas: who uses the service, who comes near a limit, and whether the books hold."""
