"""What several rooms of tests share: real servers, started once."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

INSTALLED_BY_CI = ("chromium", "HOLDFAST_TEST_POSTGRES_URL")
"""Parts that `.ci/run` installs and starts: for want of one of them a test is skipped elsewhere, and fails there."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and os.environ.get("CI") and any(part in str(report.longrepr) for part in INSTALLED_BY_CI):  # noqa: TID251
        report.outcome, report.longrepr = "failed", f"{item.nodeid} must not be skipped in CI: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real MLflow server, started as the supervisor starts it; ready within about 8 s on an idle core."""
    from holdfast.backends.mlflow_registry import server_command

    home = tmp_path_factory.mktemp("mlflow-home")
    port = free_port()
    argv, env = server_command(home, host="127.0.0.1", port=port)
    with (home / "server.log").open("wb") as output:
        server = subprocess.Popen(argv, env=os.environ | env, stdout=output, stderr=output)  # noqa: TID251 - the child's variables
    try:
        _wait_until_it_answers(f"http://127.0.0.1:{port}/health", server, home / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def free_port() -> int:
    """A port that nobody listens on at this instant."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_it_answers(url: str, server: subprocess.Popen[bytes], output: Path, seconds: float = 180.0) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if server.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"MLflow did not start: {output.read_text()[-2000:]}")
