"""moto's server, extended with operations that Terraform and the teardown sweep require."""

import functools
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from moto.applicationautoscaling.responses import ApplicationAutoScalingResponse
from moto.budgets.responses import BudgetsResponse
from moto.ec2.models.availability_zones_and_regions import RegionsAndZonesBackend
from moto.ecr.responses import ECRResponse
from moto.ecs.models import EC2ContainerServiceBackend
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

REGION, ACCOUNT = "us-east-1", "123456789012"
BUDGET_TAGS: dict[str, list[dict[str, str]]] = {}
CACHE_RULES: list[dict[str, str]] = []


def _describe_all(original: Any) -> Any:
    # moto requires names; AWS lists all without them.
    return lambda self, names: original(self, names or list(self.capacity_providers))


def _three_regions(original: Any) -> Any:
    # Each region takes moto a tenth of a second.
    return lambda self, names=None: original(self, [REGION, "eu-west-1", "eu-central-1"])


def _budget_tags(self: Any) -> str:
    return json.dumps({"ResourceTags": BUDGET_TAGS.get(self._get_param("ResourceARN"), [])})


def _no_tags(_self: Any) -> str:
    return json.dumps({"Tags": {}})


def _no_subscribers(_self: Any) -> str:
    return json.dumps({"Subscribers": []})


def _cache_rules(_self: Any) -> str:
    return json.dumps({"pullThroughCacheRules": CACHE_RULES})


def _delete_cache_rule(self: Any) -> str:
    CACHE_RULES[:] = [
        rule for rule in CACHE_RULES if rule["ecrRepositoryPrefix"] != self._get_param("ecrRepositoryPrefix")
    ]
    return "{}"


@contextmanager
def emulator() -> Iterator[str]:
    """The address of the AWS emulator."""
    patch = pytest.MonkeyPatch()
    backend = EC2ContainerServiceBackend
    patch.setattr(backend, "describe_capacity_providers", _describe_all(backend.describe_capacity_providers))
    patch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")  # moto's 1,300 default snapshots would be listed at each sweep
    regions = RegionsAndZonesBackend
    patch.setattr(regions, "describe_regions", _three_regions(regions.describe_regions))
    patch.setattr(BudgetsResponse, "list_tags_for_resource", _budget_tags, raising=False)
    patch.setattr(BudgetsResponse, "describe_subscribers_for_notification", _no_subscribers, raising=False)
    patch.setattr(ApplicationAutoScalingResponse, "list_tags_for_resource", _no_tags, raising=False)
    patch.setattr(ECRResponse, "describe_pull_through_cache_rules", _cache_rules, raising=False)
    patch.setattr(ECRResponse, "delete_pull_through_cache_rule", _delete_cache_rule, raising=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()
        patch.undo()


class KeptClients(boto3.Session):
    """A session that caches its clients, because creating them dominates the duration of these tests."""

    client = functools.cache(boto3.Session.client)
