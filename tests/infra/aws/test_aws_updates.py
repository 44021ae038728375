"""Requirements of updates: descriptive names, aliases for former names, and the order that AWS requires."""

from __future__ import annotations

from typing import Any

import pytest

from tests.infra.program import RefusedError, run_program

NETWORK = {"vpcId": "vpc-1", "subnetIds": ["subnet-a", "subnet-b", "subnet-d"]}
HUB_LOGIN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:ecr-pullthroughcache/hub-AbCdEf"


def test_another_scheme_is_a_replacement_of_the_same_load_balancer() -> None:
    """A deletion beside a creation would pass by ``protect``."""
    internal = run_program("dev").one("LoadBalancer")
    public = run_program("dev", domain="llm.example.com").one("LoadBalancer")
    assert public.name in internal.aliases
    assert internal.name in public.aliases


def test_each_port_has_one_listener_under_whatever_name_it_had() -> None:
    program = run_program("dev", domain="llm.example.com")
    redirect, served = program.one("Listener", "-80"), program.one("Listener", "-443")
    assert "vllm-dev-pub-redirect" in redirect.aliases
    assert "vllm-dev-pub" in served.aliases
    assert served.urn in redirect.depends_on, "port 80 serves until there is somewhere to redirect to"
    plain = run_program("dev", allowedCidrs=["203.0.113.0/24"]).one("Listener")
    assert plain.name == redirect.name
    assert set(plain.aliases) >= {"vllm-dev-pub", "vllm-dev-pub-redirect"}


def test_the_rule_of_a_network_is_the_same_wherever_it_comes_from() -> None:
    written = run_program("dev", domain="llm.example.com", allowedCidrs=["203.0.113.0/24"])
    assert [rule.name for rule in written.all("SecurityGroupIngressRule") if "-clients-443-" in rule.name] == [
        "vllm-dev-sg-clients-443-203.0.113.0/24"
    ]
    (own,) = [rule for rule in run_program("dev").all("SecurityGroupIngressRule") if "-clients-80-" in rule.name]
    assert "vllm-dev-sg-clients-80-network" in own.aliases


def test_mount_targets_of_an_existing_network_are_named_by_their_zones() -> None:
    def names(**values: Any) -> set[str]:
        return {target.name for target in run_program("dev", **values).all("MountTarget")}

    fewer = {**NETWORK, "subnetIds": NETWORK["subnetIds"][1:]}
    assert names(**NETWORK) == {f"vllm-dev-weights-us-east-1{zone}" for zone in "abd"}
    assert names(**fewer) < names(**NETWORK)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"subnetIds": ["subnet-b", "subnet-1-b"]}, "subnet-1-b, subnet-b are all in us-east-1b"),
        ({"subnetIds": ["subnet-a", "subnet-c"]}, "subnetIds: none is in a zone that offers"),
    ],
)
def test_subnets_that_cannot_hold_the_stack_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        run_program("dev", **{**NETWORK, **values})


def test_a_pull_through_cache_is_the_stacks_own_and_keeps_its_prefix() -> None:
    rule = run_program("dev", dockerHubCredentialsArn=HUB_LOGIN).one("PullThroughCacheRule")
    assert rule.inputs["ecrRepositoryPrefix"] == "vllm-dev_rrrrrr"
    assert rule.ignore_changes == ("ecrRepositoryPrefix",)


def test_a_generated_key_is_the_secrets_first_value_only() -> None:
    """From then on it is managed by ``make key``."""
    assert run_program("dev").one("SecretVersion", "api-keys").ignore_changes == ("secretString",)
    assert run_program("dev", apiKeys="a=sk-1").one("SecretVersion", "api-keys").ignore_changes == ()
