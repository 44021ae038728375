"""The weights' file system and how it is mounted."""

from smoke_tests.aws.deployed import Deployed


def test_weights_are_encrypted_at_rest(deployed: Deployed) -> None:
    identifier = deployed.outputs["weightsFileSystemId"]
    (system,) = deployed.client("efs").describe_file_systems(FileSystemId=identifier)["FileSystems"]
    assert system["Encrypted"], f"file system {identifier} is not encrypted"


def test_weights_are_mounted_with_tls_and_iam(deployed: Deployed) -> None:
    volumes = deployed.task_definition("engineServiceName").get("volumes", [])
    mounts = [volume["efsVolumeConfiguration"] for volume in volumes if "efsVolumeConfiguration" in volume]
    assert mounts, "the engine mounts no EFS file system"
    for mount in mounts:
        assert mount.get("transitEncryption") == "ENABLED", f"{mount['fileSystemId']} is mounted without TLS"
        authorization = mount.get("authorizationConfig", {})
        assert authorization.get("iam") == "ENABLED", f"{mount['fileSystemId']} is mounted without IAM"
        assert authorization.get("accessPointId"), f"{mount['fileSystemId']} is mounted without an access point"


def test_weights_refuse_whoever_comes_without_tls(deployed: Deployed) -> None:
    plain = {"Bool": {"aws:SecureTransport": "false"}}
    denied = [one for one in deployed.file_system_policy() if one["Effect"] == "Deny" and one.get("Condition") == plain]
    assert denied, f"{deployed.outputs['weightsFileSystemId']} has no policy that refuses connections without TLS"
