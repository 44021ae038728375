"""Odd settings, one at a time: each is refused in one clear line, and none passes in silence or ends in a traceback."""

import re
from typing import Any

import pytest

from infra.errors import PlanError, SettingsError
from infra.planning import make_plan
from infra.planning.catalog.models import UnknownModelError
from infra.planning.deployment import deployment_problems
from infra.settings_problems import parse_settings

VPC = {"vpcId": "vpc-0123456789abcdef0", "subnetIds": ["subnet-a", "subnet-b"]}
CERTIFICATE = "arn:aws:acm:us-east-1:123456789012:certificate/x"
# Types, ranges, contradictions, unicode, and networks that are none.
ODD: list[dict[str, Any]] = [
 {"model":"not a model"},{"model":""},{"model":5},{"model":None},{"model":["a/b"]},{"model":"../../etc/passwd"},{"model":"a/b/c"},{"model":"--trust-remote-code"},{"model":"Qwen/Qwen3-0.6B\nx"},{"model":"модель/х"},{"model":"a"*300+"/b"},
 {"modelRevision":"a b"},{"modelRevision":"--x"},{"modelRevision":3.5},
 {"servedModelName":","},{"servedModelName":"a,a"},{"servedModelName":"-x"},{"servedModelName":["a"]},{"servedModelName":"a\nb"},
 {"maxModelLen":-1},{"maxModelLen":"16k"},{"maxModelLen":1.5},{"maxModelLen":10**12},{"maxModelLen":True},{"maxModelLen":"auto"},
 {"quantization":"fp4"},{"quantization":8},{"quantization":"awq"},{"quantization":"gptq"},
 {"kvCacheDtype":"int8"},{"kvCacheDtype":"fp8"},{"kvCacheDtype":""},
 {"speculative":"{"},{"speculative":"{}"},{"speculative":"[]"},{"speculative":"ngram:0"},{"speculative":"mtp"},{"speculative":"eagle:x"},{"speculative":"Qwen/Qwen3-0.6B:999"},{"speculative":'{"method":"ngram"}'},{"speculative":'{"model":5,"num_speculative_tokens":2}'},
 {"performanceMode":"fast"},{"enablePrefixCaching":"perhaps"},
 {"loraAdapters":["x"]},{"loraAdapters":["a=b","a=c"]},{"loraAdapters":"a=b"},{"loraAdapters":["a b=c"]},{"loraAdapters":["Qwen/Qwen3-4B-Instruct-2507=x/y"]},{"loraAdapters":["-a=b"]},
 {"maxLoraRank":7},{"maxLoraRank":"many"},
 {"imageLimit":-1},{"imageLimit":65},{"imageLimit":1},{"videoLimit":17},{"mediaHosts":["a b"]},{"mediaHosts":["http://x"]},
 {"toolCallParser":"Hermes"},{"toolCallParser":"hermess"},{"toolCallParser":"x y"},
 {"gpuMemoryUtilization":0},{"gpuMemoryUtilization":1},{"gpuMemoryUtilization":92},{"gpuMemoryUtilization":"nan"},{"gpuMemoryUtilization":"inf"},
 {"maxNumSeqs":-5},{"maxNumSeqs":4000},{"maxNumSeqs":5000},{"maxNumSeqs":64,"maxNumBatchedTokens":32},{"maxNumBatchedTokens":-1},{"maxNumBatchedTokens":10**7},
 {"fastBoot":"maybe"},{"fastBoot":2},
 {"engineArgs":"--seed 1"},{"engineArgs":["--seed 1"]},{"engineArgs":[None]},{"engineArgs":[["--seed"]]},{"engineArgs":{"--seed":1}},{"engineArgs":["--max-model-len=4"]},{"engineArgs":["\u200b--seed=1"]},
 {"engineEnvironment":["X"]},{"engineEnvironment":["1X=2"]},{"engineEnvironment":"A=b"},{"engineEnvironment":["HF_TOKEN=x"]},{"engineEnvironment":["A B=c"]},
 {"engineImage":"not an image"},{"engineImage":"a:b:c"},{"engineImage":"UPPER/x"},
 {"target":"docker"},{"gpu":"v100"},{"gpu":""},{"gpu":["a10g"]},{"gpuCount":3},{"gpuCount":0},{"gpuCount":"two"},{"gpuCount":16},{"dataParallelSize":4},{"dataParallelSize":3},
 {"instanceTypes":["t3.micro"]},{"instanceTypes":["p5.48xlarge"]},{"instanceTypes":"g5.xlarge"},{"instanceTypes":["g5.xlarge","g5.xlarge"]},{"instanceTypes":[""]},
 {"capacity":"cheap"},{"capacity":"reservation"},{"capacityReservationId":"cr-1"},{"capacity":"reservation","capacityReservationId":"x"},{"warmPool":-1},{"warmPool":2,"capacity":"spot"},
 {"sharedMemoryGib":-1},{"sharedMemoryGib":100},{"weightsThroughput":"fast"},{"weightsFileSystemId":"fs-xyz"},
 {"minReplicas":2},{"minReplicas":-1},{"maxReplicas":0},{"maxReplicas":9},{"maxReplicas":"1e3"},{"scaleDownMinutes":-5},{"scaleDownMinutes":1},{"wakesPerDay":-1},{"startupTimeoutMinutes":1},{"startupTimeoutMinutes":2},{"startupTimeoutMinutes":60},{"scaleOutCooldownMinutes":1,"maxReplicas":2},{"concurrencyPerReplica":0},{"concurrencyPerReplica":"lots"},
 {"gatewayImage":"not an image"},{"gatewayCount":0},{"gatewayCpu":300},{"gatewayMemoryMib":600},{"gatewayMemoryMib":8192},{"port":70000},{"port":-1},{"port":80,"certificateArn": CERTIFICATE},
 {"apiKeys":"=x"},{"apiKeys":"a=1,a=2"},{"apiKeys":","},{"apiKeysDocument":"{"},{"apiKeysDocument":"[]"},{"allowedOrigins":["app.example.com"]},{"allowedOrigins":["https://x/"]},{"allowedOrigins":["*","https://a.example"]},
 {"gatewayEnvironment":["GATEWAY_COUNT=2"]},{"gatewayEnvironment":["GATEWAY_MAX_TOKENS=x"]},
 {"certificateArn":"x"},{"certificateArn":"arn:aws:acm:eu-west-1:123456789012:certificate/x"},{"domain":"x"},{"domain":"a_b.example.com"},{"domain":"-a.example.com"},{"hostedZone":"other.com","domain":"a.example.com"},{"hostedZoneId":"z"},{"hostedZoneId":"Z123"},
 {"allowedCidrs":["999.999.999.999/99"]},{"allowedCidrs":["10.1.2.3/8"]},{"allowedCidrs":["0.0.0.0/1","128.0.0.0/1"]},{"allowedCidrs":["0.0.0.0/0"]},{"allowedCidrs":["::/1","8000::/1"]},{"allowedCidrs":["10.0.0.1"]},{"allowedCidrs":["10.0.0.0/33"]},{"allowedCidrs":["300.0.0.0/8"]},{"allowedCidrs":["10.0.0.0/8 "]},{"allowedCidrs":["fe80::/200"]},{"allowedCidrs":["10.0.0.0/255.0.0.0"]},{"allowedCidrs":["0.0.0.0/2","64.0.0.0/2","128.0.0.0/2","192.0.0.0/2"]},{"allowedCidrs":"10.0.0.0/8"},{"allowedCidrs":["10.0.0.0/8","10.0.0.0/8"]},{"allowedCidrs":["١٠.0.0.0/8"]},{"allowedCidrs":["010.0.0.0/8"]},{"allowedCidrs":["2001:db8::1/32"]},
 {"allowedSecurityGroupIds":["sg-1"]},{"allowedSecurityGroupIds":["x"]},{"wafRequestsPerFiveMinutes":5},{"wafRequestsPerFiveMinutes":-1},
 {"vpcId":"net"},{"vpcId":"vpc-1"},{"subnetIds":["subnet-a","subnet-b"]},{**VPC,"subnetIds":["subnet-a"]},{**VPC,"subnetIds":["subnet-a","subnet-a"]},{**VPC,"loadBalancerSubnetIds":["subnet-c"]},{**VPC,"allowedCidrs":["10.0.0.0/8"]},{"natGateways":"none"},{"natGateways":"two"},{"flowLogs":"some"},
 {"kubernetesNamespace":"-x"},{"kubernetesNamespace":"UPPER"},{"kmsKeyArn":"alias/x"},{"logRetentionDays":31},{"logRetentionDays":"1 week"},
 {"ttlHours":-1},{"ttlHours":9000},{"monthlyBudgetUsd":-5},{"monthlyBudgetUsd":50},{"alarmEmail":"ops"},{"alarmEmail":"a@b"},{"owner":"a<b"},{"owner":"x"*200},{"owner":"a\nb"},{"protect":"perhaps"},{"resultsBucket":"No_Bucket"},{"resultsBucket":"ab"},{"verifyMaxSlowdownPercent":-1},
 {"gppu":"h100"},{"max_model_len":5},{"MAXMODELLEN":5},{"":1},{"🦙":1},{"apiKey":"x"},
]  # fmt: skip


def no_hub(model: str, revision: str) -> dict[str, object]:
    raise UnknownModelError("the Hub cannot be reached")


def problems(values: dict[str, Any]) -> list[str]:
    """What the preview reports."""
    try:
        settings = parse_settings(values)
        return deployment_problems(settings, make_plan(settings, fetch=no_hub), "us-east-1")
    except (PlanError, SettingsError) as error:
        return error.problems


@pytest.mark.parametrize("values", ODD, ids=lambda values: ascii(values)[1:60])
def test_each_odd_setting_is_one_clear_line(values: dict[str, Any]) -> None:
    (line,) = problems(values)
    key = line.partition(":")[0]
    related = {"gpu", "gpuCount", "minReplicas", "maxReplicas", "capacityReservationId", "allowedCidrs", "vpcId", "subnetIds", "scaleDownMinutes",
               "instanceTypes"}  # fmt: skip
    assert key in {*values, *related} or not key.strip(), line
    assert line.isprintable()
    assert len(line) < 500
    assert re.search(r"\b([Ss]et|[Rr]emove|did you mean|use)\b", line)


def test_the_table_is_large_enough() -> None:
    assert len(ODD) >= 139
