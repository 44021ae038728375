"""Weights that a destroyed stack kept: the next one uses them, and neither changes nor deletes them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from smoke_tests.stack import flat
from tests.pulumi_engine.scene import COMPONENT, Ran, Scene

FOREIGN = "fs-0123456789abcdef0"
NETWORK = {"vpcId": "vpc-1", "subnetIds": ["subnet-a", "subnet-b"]}


def of_kind(scene: Scene, kind: str) -> dict[str, dict[str, Any]]:
    return {id_: row for id_, row in scene.cloud().items() if row["kind"] == kind}


def plant(scene: Scene, **rows: dict[str, Any]) -> None:
    """Put things into the cloud that no stack made."""
    named = {id_.replace("_", "-"): row for id_, row in rows.items()}
    scene.plant(named)


def volumes(ran: Ran) -> set[tuple[str, str]]:
    """(file system, access point) of every volume of the tasks that a run made."""
    found = set()
    for step in ran.steps:
        if step.type.endswith(":TaskDefinition") and step.op.startswith("create"):
            for volume in step.inputs.get("volumes") or ():
                if configuration := volume.get("efsVolumeConfiguration"):
                    point = configuration["authorizationConfig"]["accessPointId"]
                    found.add((configuration["fileSystemId"], point))
    return found


def test_what_a_stack_kept_is_used_by_its_next_life_and_stays_when_that_ends(scene: Scene) -> None:
    scene.init("dev", {"protect": True})
    scene.up()
    reuse = flat(scene.outputs())["reuseWeights"]
    scene.run("state", "unprotect", "--all", "--yes")
    scene.destroy()
    (system,), points = of_kind(scene, "FileSystem"), set(of_kind(scene, "AccessPoint"))
    assert len(points) == 2
    assert not of_kind(scene, "MountTarget")
    assert not of_kind(scene, "Vpc")
    assert reuse == f"pulumi config set weightsFileSystemId {system}"
    scene.run(*reuse.split()[1:])
    scene.set("protect", False)
    up = scene.up()
    assert not [s for s in up.steps if s.type.rpartition(":")[2] in ("FileSystem", "AccessPoint")], (
        "nothing is made anew"
    )
    assert volumes(up) == {(system, point) for point in points}
    assert len(of_kind(scene, "MountTarget")) == 3
    assert scene.up().unchanged
    scene.destroy()
    assert scene.resources() == []
    assert (set(of_kind(scene, "FileSystem")), set(of_kind(scene, "AccessPoint"))) == ({system}, points)
    assert not of_kind(scene, "MountTarget")


@pytest.mark.whole_matrix
def test_one_mount_target_a_zone_and_those_of_others_are_reached_and_left_alone(scene: Scene) -> None:
    foreign = {"kind": "MountTarget", "fileSystemId": FOREIGN, "subnetId": "subnet-a", "securityGroups": ["sg-foreign"]}
    plant(scene, fs_0123456789abcdef0={"kind": "FileSystem", "encrypted": True}, fsmt_foreign=foreign)
    scene.init("dev", {**NETWORK, "weightsFileSystemId": FOREIGN})
    up = scene.up()
    made = [row["subnetId"] for id_, row in of_kind(scene, "MountTarget").items() if id_ != "fsmt-foreign"]
    assert made == ["subnet-b"]
    rules = [step.inputs for step in up.steps if step.name == "vllm-dev-weights-sg-foreign"]
    assert {rule["fromPort"] for rule in rules} == {2049}
    assert "sg-foreign" in {rule["securityGroupId"] for rule in rules}
    assert "sg-foreign" in {rule["referencedSecurityGroupId"] for rule in rules}
    assert scene.up().unchanged, "mount targets of its own are not taken for those of others"
    scene.destroy()
    assert set(scene.cloud()) == {FOREIGN, "fsmt-foreign"}


def test_everything_that_is_wrong_with_a_file_system_is_said_at_preview(scene: Scene) -> None:
    statement = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "*"}
    plant(
        scene,
        fs_0123456789abcdef0={
            "kind": "FileSystem",
            "encrypted": False,
            "throughputMode": "elastic",
            "availabilityZoneName": "us-east-1a",
            "replicationOverwrite": "REPLICATING",
            "tags": {"Project": "vllm-endpoint", "Stack": "prod"},
        },
        fsmt_foreign={
            "kind": "MountTarget",
            "fileSystemId": FOREIGN,
            "subnetId": "subnet-a",
            "securityGroups": ["sg-foreign"],
        },
        fsap_foreign={
            "kind": "AccessPoint",
            "fileSystemId": FOREIGN,
            "posixUser": {"uid": 0, "gid": 0},
            "rootDirectory": {"path": "/models"},
        },
        policy={"kind": "FileSystemPolicy", "fileSystemId": FOREIGN, "policy": json.dumps({"Statement": statement})},
    )
    scene.init("dev", {"weightsFileSystemId": FOREIGN})
    preview = scene.run("preview", ok=False)
    for said in (
        "belongs to stack prod, which deletes it at destroy",
        "is not encrypted at rest",
        "is a One Zone file system, in us-east-1a",
        "is the read-only copy of a replication",
        "has the throughput mode elastic",
        "has mount targets in vpc-1, and this stack creates its own VPC",
        "holds /models for user 0 (fsap-foreign)",
        "has a policy that allows everybody",
    ):
        assert f"weightsFileSystemId: {FOREIGN} {said}" in preview.output
    assert [step.type for step in preview.steps] == [COMPONENT]
    scene.set("weightsFileSystemId", "fs-00000000000000000")
    assert "fs-00000000000000000 in us-east-1" in scene.run("preview", ok=False).output
