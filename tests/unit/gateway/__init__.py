"""The gateway over HTTP, with twins behind it."""
