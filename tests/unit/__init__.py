"""Tests on twins. A package, so that its rooms have other names than those of the integration tests."""
