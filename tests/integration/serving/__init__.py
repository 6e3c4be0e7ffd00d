"""Tests that run the real data plane: Ray, Serve, the gateway, a database."""
