"""Profiles: what production asks for, and what may be set by hand."""

from __future__ import annotations

import json

import pytest
import yaml
from pydantic import ValidationError

from holdfast.bootstrap.deployment import SCALING, deployment_options, serve_document, serve_yaml
from holdfast.settings import Ports, Serving, Settings


def test_the_embedded_profile_has_one_replica_and_one_gateway_on_the_one_port() -> None:
    settings = Settings()
    assert (settings.serving.replica_count, settings.serving.gateway_count, settings.own_gateway_ports) == (1, 1, ())
    assert deployment_options(settings.serving)["num_replicas"] == 1


def test_production_has_two_replicas_that_scale_and_two_gateways_with_a_port_of_their_own() -> None:
    settings = Settings(profile="production", ports=Ports(gateway_own=9000))
    scaling = deployment_options(settings.serving)["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (2, 4)
    assert settings.own_gateway_ports == (9000, 9001)
    assert {9000, 9001} <= set(settings.ports_used().values())


def test_a_replica_with_more_threads_may_hold_more_batches_and_how_busy_it_is_decides_on_another() -> None:
    one, many = (deployment_options(Serving(replica_count_max=4, replica_threads=threads)) for threads in (1, 24))
    assert {options["autoscaling_config"]["policy"]["policy_function"] for options in (one, many)} == {SCALING}
    assert [options["max_ongoing_requests"] for options in (one, many)] == [32, 48]


def test_what_is_set_by_hand_stands_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_PROFILE", "production")
    monkeypatch.setenv("HOLDFAST_SERVING__REPLICA_COUNT", "6")
    monkeypatch.setenv("HOLDFAST_SERVING__REPLICA_COUNT_MAX", "0")
    serving = Settings().serving
    assert (serving.replica_count, serving.gateway_count) == (6, 2)
    assert deployment_options(serving)["num_replicas"] == 6


@pytest.mark.parametrize("serving", [Serving(replica_count=1), Serving(gateway_count=1)])
def test_production_with_one_of_anything_is_refused(serving: Serving) -> None:
    with pytest.raises(ValidationError, match="two replicas and two gateways at the least"):
        Settings(profile="production", serving=serving)


@pytest.mark.parametrize("address", ["ray-head", "ray://ray-head:10001", "http://ray-head:8265", "ray-head:six"])
def test_the_address_of_a_cluster_is_host_and_port_and_nothing_else(address: str) -> None:
    assert Settings(ray_address="ray-head.ml.svc:6379").ray_address == "ray-head.ml.svc:6379"
    with pytest.raises(ValidationError, match="ray_address"):
        Settings(ray_address=address)


def test_settings_come_through_their_json_as_they_are() -> None:
    settings = Settings(profile="production", serving=Serving(drain_s=7.0))
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


def test_the_file_for_ray_holds_no_secret_and_nothing_of_the_fleet_in_the_arguments_of_a_replica() -> None:
    settings = Settings(profile="production", database_url="postgresql://u:hunter2@db/holdfast", serving=Serving(prove_s=30.0))
    text = serve_yaml(settings)
    assert "hunter2" not in text
    assert yaml.safe_load(text) == serve_document(settings)
    arguments = json.loads(serve_document(settings)["applications"][0]["args"]["settings"])
    assert arguments["serving"] == {"prove_s": 30.0}
    assert set(arguments) == {"home", "serving", "bases"}


def test_a_replica_reads_the_database_from_its_own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = serve_document(Settings(serving=Serving(prove_s=30.0)))["applications"][0]["args"]["settings"]
    monkeypatch.setenv("HOLDFAST_DATABASE_URL", "postgresql://u:hunter2@db/holdfast")
    read = Settings.model_validate_json(arguments)
    assert (read.database_url, read.serving.prove_s) == ("postgresql://u:hunter2@db/holdfast", 30.0)
