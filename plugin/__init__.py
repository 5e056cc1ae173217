"""The service: everything with time, network and disk."""
