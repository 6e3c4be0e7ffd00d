"""The file that `holdfast serve-config` writes is what Ray Serve reads. That it serves is shown in serving/test_fleet.py."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from holdfast import cli
from holdfast.bootstrap.home import process_commands
from holdfast.settings import Settings

VALIDATE = """
import sys, warnings
warnings.simplefilter("ignore")
import yaml
from ray.serve.schema import ServeDeploySchema
read = ServeDeploySchema.model_validate(yaml.safe_load(open(sys.argv[1])))
deployment = read.applications[0].deployments[0]
print(read.applications[0].name, deployment.name, deployment.num_replicas, deployment.autoscaling_config)
from ray.serve.config import RequestRouterConfig
from ray.serve.request_router import RequestRouter
from ray._common.utils import import_attr
router = import_attr(RequestRouterConfig(**deployment.request_router_config).request_router_class)
assert issubclass(router, RequestRouter) and router.__name__ == "Elsewhere"
"""


def test_the_gateways_of_a_home_that_use_a_cluster_get_nothing_of_the_homes_own_head(tmp_path: Path) -> None:
    def gateway(settings: Settings) -> Mapping[str, str]:
        return next(spec.env for spec in process_commands(settings) if spec.name == "gateway")

    assert "RAY_AUTH_TOKEN_PATH" in gateway(Settings(home=tmp_path))
    assert gateway(Settings(home=tmp_path, ray_address="ray-head:6379")) == {}


@pytest.mark.parametrize(("profile", "said"), [("production", "'min_replicas': 2"), ("embedded", "Replica 1")])
def test_ray_reads_the_file_and_finds_application_replicas_and_router_in_it(tmp_path: Path, profile: str, said: str) -> None:
    path = tmp_path / "serve.yaml"
    assert cli.run(["--home", str(tmp_path / "home"), "serve-config", "--profile", profile, "-o", str(path)]) == 0
    done = subprocess.run([sys.executable, "-c", VALIDATE, str(path)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "holdfast Replica" in done.stdout
    assert said in done.stdout


def test_without_a_file_it_is_printed_and_a_file_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["--home", str(tmp_path / "home"), "serve-config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["proxy_location"] == "Disabled"
    assert cli.run(["--home", str(tmp_path / "home"), "serve-config", "-o", str(tmp_path / "no" / "where.yaml")]) != 0
    assert "cannot be written" in capsys.readouterr().err
