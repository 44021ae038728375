"""The engine's task and service."""

import base64
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from infra.aws.containers import health_check
from infra.aws.engine import minimum_healthy_percent
from infra.containers import DELIVER
from infra.planning import make_plan
from infra.planning.engine import SHUTDOWN_TIMEOUT_SECONDS, VLLM_VERSION
from infra.stack_files import ROOT, load_stack
from tests.infra.program import Program, arn, run_program


@pytest.fixture
def dev() -> Program:
    return run_program("dev")


@pytest.mark.parametrize("stack", ["dev", "prod"])
def test_the_container_is_the_plans(stack: str) -> None:
    plan = make_plan(load_stack(stack))
    task = run_program(stack).one("TaskDefinition", "engine")
    container = task.container()
    assert container["image"] == plan.engine.image
    assert container["command"] == [plan.model, "--host", "0.0.0.0", "--port", "8000", *plan.engine.args]
    told = {
        "ENGINE_STAGE": "/nvme/weights",
        "PYTHONPATH": "/srv/vllm-endpoint",
        "ENGINE_START_LIMIT_SECONDS": str(plan.replicas.startup_timeout_seconds),
    }
    assert task.environment() == {**plan.engine.environment, **told}
    assert container["entryPoint"] == ["python3", "-m", "image.engine"]
    assert container["memory"] == plan.engine.memory_mib
    assert container["resourceRequirements"] == [{"type": "GPU", "value": str(plan.replicas.gpu_count)}]
    assert container["linuxParameters"] == {
        "sharedMemorySize": plan.engine.shared_memory_mib,
        "initProcessEnabled": True,
    }
    assert container["stopTimeout"] == plan.engine.stop_timeout_seconds > SHUTDOWN_TIMEOUT_SECONDS
    assert container["portMappings"] == [{"containerPort": 8000, "hostPort": 8000, "protocol": "tcp"}]
    assert (container["privileged"], container["dockerSecurityOptions"]) == (False, ["no-new-privileges"])
    assert container["essential"] is True


def test_eight_gpus_of_one_instance() -> None:
    program = run_program("dev", gpu="a100", gpuCount=8, scaleDownMinutes=30, model="meta-llama/Llama-3.1-70B-Instruct")
    container = program.one("TaskDefinition", "engine").container()
    assert container["resourceRequirements"] == [{"type": "GPU", "value": "8"}]
    assert container["linuxParameters"]["sharedMemorySize"] == 16 * 1024


def test_the_task_has_a_network_interface_and_roles_of_its_own(dev: Program) -> None:
    inputs = dev.one("TaskDefinition", "engine").inputs
    assert (inputs["networkMode"], inputs["requiresCompatibilities"]) == ("awsvpc", ["EC2"])
    assert inputs["taskRoleArn"] == arn("aws:iam/role:Role", "vllm-dev-role-engine-task")
    assert inputs["executionRoleArn"] == arn("aws:iam/role:Role", "vllm-dev-role-engine-exec")
    assert not {"pidMode", "ipcMode"} & set(inputs)


def test_weights_and_compiled_kernels_are_mounted_with_tls_and_iam(dev: Program) -> None:
    task = dev.one("TaskDefinition", "engine")
    volumes = {v["name"]: v.get("efsVolumeConfiguration") for v in task.inputs["volumes"]}
    for folder in ("models", "compiled"):
        assert volumes[folder] == {
            "fileSystemId": "vllm-dev-weights-id",
            "transitEncryption": "ENABLED",
            "authorizationConfig": {"accessPointId": f"vllm-dev-weights-{folder}-id", "iam": "ENABLED"},
        }
    mounts = {m["sourceVolume"]: (m["containerPath"], m["readOnly"]) for m in task.container()["mountPoints"]}
    assert (mounts["models"], mounts["compiled"]) == (("/weights", False), ("/cache", False))
    environment = task.environment()
    assert (environment["HF_HOME"], environment["ENGINE_CACHE"]) == ("/weights", "/cache")


def test_the_entrypoints_code_comes_from_the_small_image_before_vllm_starts(dev: Program) -> None:
    task = dev.one("TaskDefinition", "engine")
    engine, code = task.document("containerDefinitions")
    assert engine["dependsOn"] == [{"containerName": "code", "condition": "SUCCESS"}]
    assert code["image"] == dev.one("TaskDefinition", "gateway").container()["image"]
    assert (code["essential"], code["readonlyRootFilesystem"]) == (False, True)
    assert code["linuxParameters"]["capabilities"] == {"drop": ["ALL"]}
    # Set aside beside the engine's memory, which is all that ECS registers of the smallest instance but a share.
    assert code["memoryReservation"] <= 16
    mounts = {m["sourceVolume"]: m for m in engine["mountPoints"]}
    assert mounts["code"] == {"sourceVolume": "code", "containerPath": "/srv/vllm-endpoint", "readOnly": True}
    assert code["mountPoints"] == [{"sourceVolume": "code", "containerPath": "/code", "readOnly": False}]
    pull = {s["Sid"]: s["Resource"] for s in dev.one("RolePolicy", "engine-execution").document()["Statement"]}
    assert pull["PullCode"] == [arn("aws:ecr/repository:Repository", "vllm-dev-image")]


def test_what_the_code_container_runs_delivers_a_package_that_runs(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "image/engine", tmp_path / "app/image/engine")
    script = DELIVER.replace("/app", f"{tmp_path}/app").replace("/code", f"{tmp_path}/code")
    subprocess.run([sys.executable, "-c", script], check=True)
    command = [sys.executable, "-m", "image.engine"]
    environment = {"PATH": "/bin", "PYTHONPATH": f"{tmp_path}/code"}
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False)
    assert done.stderr.startswith("engine: error: MODEL_NAME: not set"), done.stderr


def test_the_instances_own_disk_is_mounted_where_it_may_have_one(dev: Program) -> None:
    task = dev.one("TaskDefinition", "engine")
    (volume,) = [v for v in task.inputs["volumes"] if v["name"] == "nvme"]
    assert volume == {"name": "nvme", "hostPath": "/mnt/nvme"}
    (mount,) = [m for m in task.container()["mountPoints"] if m["sourceVolume"] == "nvme"]
    assert mount["containerPath"] == "/nvme"
    assert task.environment()["ENGINE_STAGE"] == "/nvme/weights"
    boot = base64.b64decode(dev.one("LaunchTemplate").inputs["userData"]).decode()
    assert 'mount -o noatime "$disk" /mnt/nvme' in boot
    assert "install -d -m 1777 /mnt/nvme/weights" in boot


def test_logs_go_to_the_engines_group_and_never_stop_the_engine(dev: Program) -> None:
    assert dev.one("TaskDefinition", "engine").container()["logConfiguration"] == {
        "logDriver": "awslogs",
        "options": {
            "awslogs-group": "vllm-dev-logs-engine-1a2b3c4",
            "awslogs-region": "us-east-1",
            "awslogs-stream-prefix": "task",
            "mode": "non-blocking",
            "max-buffer-size": "8m",
        },
    }
    statement = dev.one("RolePolicy", "engine-execution").document()["Statement"][0]
    assert statement["Action"] == ["logs:CreateLogStream", "logs:PutLogEvents"]
    assert statement["Resource"] == [arn("aws:cloudwatch/logGroup:LogGroup", "vllm-dev-logs-engine") + ":*"]


def test_the_service_runs_one_task_an_instance_spread_over_zones(dev: Program) -> None:
    service = dev.one("aws:ecs/service:Service", "engine")
    assert service.inputs["placementConstraints"] == [{"type": "distinctInstance"}]
    assert service.inputs["orderedPlacementStrategies"] == [
        {"type": "spread", "field": "attribute:ecs.availability-zone"}
    ]
    assert service.inputs["capacityProviderStrategies"] == [{"capacityProvider": "vllm-dev-gpu-1a2b3c4", "weight": 1}]
    assert service.inputs["cluster"] == arn("aws:ecs/cluster:Cluster", "vllm-dev-gpu")
    assert service.inputs["propagateTags"] == "SERVICE"
    assert service.inputs["forceDelete"] is True
    assert service.inputs["availabilityZoneRebalancing"] == "DISABLED"


def test_a_deploy_leaves_the_number_of_replicas_alone() -> None:
    for stack, count in (("dev", 0), ("prod", 1)):
        service = run_program(stack).one("aws:ecs/service:Service", "engine")
        assert service.inputs["desiredCount"] == count
        assert "desiredCount" in service.ignore_changes


def test_a_failed_deployment_is_rolled_back_and_none_needs_a_spare_gpu(dev: Program) -> None:
    for program, least in ((dev, 0), (run_program("prod"), 0), (run_program("prod", minReplicas=2), 50)):
        service = program.one("aws:ecs/service:Service", "engine").inputs
        assert service["deploymentCircuitBreaker"] == {"enable": True, "rollback": True}
        assert service["deploymentMinimumHealthyPercent"] == least
        assert service["deploymentMaximumPercent"] == 100


def test_with_any_number_of_replicas_a_deployment_may_stop_one() -> None:
    for least in range(65):
        for running in range(max(1, least), 65):
            must_stay = -(-running * minimum_healthy_percent(least) // 100)  # ECS rounds up
            assert must_stay < running


def test_the_service_waits_for_what_its_tasks_need(dev: Program) -> None:
    service = dev.one("aws:ecs/service:Service", "engine")
    names = {urn.rpartition("::")[2] for urn in service.depends_on}
    assert names >= {
        "vllm-dev-weights-0",
        "vllm-dev-weights-1",
        "vllm-dev-weights-2",
        "vllm-dev-weights-mount-engine",
        "vllm-dev-engine-execution",
        "vllm-dev-gpu",
        "vllm-dev-weights",
    }


def test_replicas_are_found_under_one_name(dev: Program) -> None:
    namespace = dev.one("PrivateDnsNamespace").inputs
    assert (namespace["name"], namespace["vpc"]) == ("vllm-dev.internal", "vllm-dev-network-id")
    registry = dev.one("aws:servicediscovery/service:Service")
    assert registry.inputs["name"] == "engine"
    assert registry.inputs["forceDestroy"] is True
    assert registry.inputs["dnsConfig"] == {
        "namespaceId": "vllm-dev-engine-id",
        "routingPolicy": "MULTIVALUE",
        "dnsRecords": [{"type": "A", "ttl": 5}],
    }
    service = dev.one("aws:ecs/service:Service", "engine").inputs
    assert service["serviceRegistries"] == {"registryArn": arn("aws:servicediscovery/service:Service", registry.name)}


@pytest.mark.parametrize("minutes", [2, 6, 20, 55])
def test_the_health_check_gives_a_cold_start_its_time_within_ecs_limits(minutes: int) -> None:
    check = health_check(8000, minutes * 60)
    assert check["startPeriod"] <= 300
    assert check["retries"] <= 10
    assert check["interval"] <= 300
    assert check["timeout"] <= 60
    assert check["startPeriod"] + check["retries"] * check["interval"] >= minutes * 60


def test_the_health_check_tells_an_engine_that_answers_from_one_that_does_not() -> None:
    class Healthy(BaseHTTPRequestHandler):
        status = 200

        def do_GET(self) -> None:
            self.send_response(self.status if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Healthy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            command = health_check(server.server_port, 600)["command"]
            assert command[:3] == ["CMD", "python3", "-c"]
            run = [sys.executable, "-c", command[3]]
            assert subprocess.run(run, check=False).returncode == 0
            Healthy.status = 503
            assert subprocess.run(run, check=False, stderr=subprocess.DEVNULL).returncode != 0
        finally:
            server.shutdown()
            thread.join()
    assert subprocess.run(run, check=False, stderr=subprocess.DEVNULL).returncode != 0


def test_with_credentials_the_image_comes_through_the_stacks_own_repository() -> None:
    secret = "arn:aws:secretsmanager:us-east-1:123456789012:secret:ecr-pullthroughcache/hub-AbCdEf"
    program = run_program("dev", dockerHubCredentialsArn=secret)
    rule = program.one("PullThroughCacheRule").inputs
    assert rule == {
        "ecrRepositoryPrefix": "vllm-dev_rrrrrr",
        "upstreamRegistryUrl": "registry-1.docker.io",
        "credentialArn": secret,
    }
    repository = program.one("Repository", "engine-image")
    assert repository.inputs["name"] == "vllm-dev_rrrrrr/vllm/vllm-openai"
    assert program.one("PullThroughCacheRule").ignore_changes == ("ecrRepositoryPrefix",)
    assert repository.inputs["forceDelete"] is True
    image = program.one("TaskDefinition", "engine").container()["image"]
    assert image == f"123456789012.dkr.ecr.us-east-1.amazonaws.com/vllm-dev-engine-image:v{VLLM_VERSION}"
    statements = {s["Sid"]: s for s in program.one("RolePolicy", "engine-execution").document()["Statement"]}
    assert statements["FillCache"]["Action"] == ["ecr:BatchImportUpstreamImage"]
    for sid in ("PullImage", "FillCache"):
        assert statements[sid]["Resource"] == [arn("aws:ecr/repository:Repository", "vllm-dev-engine-image")]


def test_an_engine_image_in_ecr_may_be_pulled() -> None:
    image = "123456789012.dkr.ecr.us-east-1.amazonaws.com/team/vllm:v1"
    program = run_program("dev", engineImage=image)
    assert program.one("TaskDefinition", "engine").container()["image"] == image
    statements = {s["Sid"]: s for s in program.one("RolePolicy", "engine-execution").document()["Statement"]}
    assert statements["PullImage"]["Resource"] == ["arn:aws:ecr:us-east-1:123456789012:repository/team/vllm"]
    assert statements["LogInToRegistry"]["Action"] == ["ecr:GetAuthorizationToken"]
