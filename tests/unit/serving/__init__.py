"""Tests of the data plane with twins."""
