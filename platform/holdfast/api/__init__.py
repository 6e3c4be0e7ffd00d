"""The control plane over HTTP: REST under ``/api/v1`` and the console pages. Handlers read through a unit of work and act through flows."""
