"""Lookups of EFS file systems and what belongs to them, from what STANDIN_CLOUD remembers."""

from __future__ import annotations

import fnmatch
import json
import os
import uuid
from pathlib import Path
from typing import Any

ACCOUNT = "123456789012"
GIVEN_VPC = "vpc-1"
PREFIXES = {"FileSystem": "fs", "AccessPoint": "fsap", "MountTarget": "fsmt", "SecurityGroup": "sg"}


def identifier(urn: str) -> str | None:
    """An id as AWS's, for the types whose ids settings or lookups name."""
    kind = urn.split("::")[2].rpartition(":")[2]
    if kind == "Zone":
        return f"Z{uuid.uuid4().hex[:13].upper()}"
    prefix = PREFIXES.get(kind)
    return f"{prefix}-{uuid.uuid4().hex[:17]}" if prefix else None


def answer(token: str, args: dict[str, Any], region: str) -> dict[str, Any] | str | None:
    """The answer of a lookup; a text: AWS's error; None: the engine kit's own answer."""
    rows = _rows()
    filters = {item["name"]: item["values"] for item in args.get("filters") or []}
    if token == "getCallerIdentity" and (account := os.environ.get("STANDIN_ACCOUNT")):
        return {"accountId": account, "arn": f"arn:aws:iam::{account}:user/standin", "userId": "X", "id": account}
    if token == "getServiceQuota":
        value = float(os.environ.get("STANDIN_QUOTA", "1000"))
        return {"id": args["quotaCode"], "arn": "arn:aws:servicequotas", "value": value, **args}
    if token == "getFileSystem":
        return _file_system(args["fileSystemId"], rows, region)
    if token == "getResource" and args.get("typeName") == "AWS::EFS::FileSystem":
        policies = _of(rows, "FileSystemPolicy", fileSystemId=args["identifier"])
        policy = next((json.loads(row["policy"]) for row in policies.values()), None)
        found = {"FileSystemPolicy": policy} if policy else {}
        return {"id": args["identifier"], **args, "properties": json.dumps(found)}
    if token == "getAccessPoints":
        points = _of(rows, "AccessPoint", fileSystemId=args["fileSystemId"])
        return {"id": args["fileSystemId"], "ids": list(points), "arns": [_arn(id_, region) for id_ in points], **args}
    if token == "getAccessPoint":
        return _access_point(args["accessPointId"], rows, region)
    if token == "getNetworkInterfaces":
        return {"id": region, "ids": [f"eni-{id_}" for id_, row in rows.items() if _described(id_, row, filters)]}
    if token == "getNetworkInterface":
        return _interface(args["id"].removeprefix("eni-"), rows, region)
    if token == "getSecurityGroups":
        groups = [id_ for id_, row in _of(rows, "SecurityGroup").items() if _matches(id_, row, filters)]
        return {"id": region, "ids": groups, "arns": [], "vpcIds": []}
    if token == "getSubnet":
        made = rows.get(args["id"], {})
        zone = made.get("availabilityZone") or region + _subnets().get(args["id"], "a")
        return {"id": args["id"], "vpcId": made.get("vpcId", GIVEN_VPC), "availabilityZone": zone}
    return None


def _file_system(id_: str, rows: dict[str, dict[str, Any]], region: str) -> dict[str, Any] | str:
    row = rows.get(id_)
    if row is None or row["kind"] != "FileSystem" or row.get("region", region) != region:
        return f"reading EFS file system: couldn't find resource ({id_})"
    return {
        "id": id_, "fileSystemId": id_, "arn": f"arn:aws:elasticfilesystem:{region}:{ACCOUNT}:file-system/{id_}",
        "encrypted": bool(row.get("encrypted")), "kmsKeyId": row.get("kmsKeyId", ""), "name": "", "sizeInBytes": 9 << 30,
        "throughputMode": row.get("throughputMode", "bursting"), "availabilityZoneName": row.get("availabilityZoneName", ""),
        "protections": [{"replicationOverwrite": row.get("replicationOverwrite", "ENABLED")}], "tags": row.get("tags", {}),
    }  # fmt: skip


def _access_point(id_: str, rows: dict[str, dict[str, Any]], region: str) -> dict[str, Any]:
    row = rows[id_]
    return {
        "id": id_, "accessPointId": id_, "arn": _arn(id_, region), "fileSystemId": row["fileSystemId"],
        "posixUsers": [row["posixUser"]], "rootDirectories": [row["rootDirectory"]], "tags": row.get("tags", {}),
    }  # fmt: skip


def _interface(id_: str, rows: dict[str, dict[str, Any]], region: str) -> dict[str, Any]:
    row = rows[id_]
    subnet = rows.get(row["subnetId"], {})
    zone = subnet.get("availabilityZone") or region + _subnets().get(row["subnetId"], "a")
    return {
        "id": f"eni-{id_}", "description": _description(id_, row), "interfaceType": "efs", "subnetId": row["subnetId"],
        "vpcId": subnet.get("vpcId") or row.get("vpcId", GIVEN_VPC), "availabilityZone": zone,
        "securityGroups": row["securityGroups"],
    }  # fmt: skip


def _described(id_: str, row: dict[str, Any], filters: dict[str, list[str]]) -> bool:
    wanted = filters["description"]
    return row["kind"] == "MountTarget" and any(fnmatch.fnmatchcase(_description(id_, row), one) for one in wanted)


def _description(id_: str, row: dict[str, Any]) -> str:
    return f"EFS mount target for {row['fileSystemId']} ({id_})"


def _matches(id_: str, row: dict[str, Any], filters: dict[str, list[str]]) -> bool:
    tags = {f"tag:{key}": value for key, value in (row.get("tags") or {}).items()}
    return all({"group-id": id_, **tags}.get(key) in values for key, values in filters.items())


def _of(rows: dict[str, dict[str, Any]], kind: str, **wanted: str) -> dict[str, dict[str, Any]]:
    return {id_: row for id_, row in rows.items() if row["kind"] == kind and wanted.items() <= row.items()}


def _arn(access_point_id: str, region: str) -> str:
    return f"arn:aws:elasticfilesystem:{region}:{ACCOUNT}:access-point/{access_point_id}"


def _rows() -> dict[str, dict[str, Any]]:
    path = Path(os.environ.get("STANDIN_CLOUD", "/nonexistent"))
    found: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def _subnets() -> dict[str, str]:
    found: dict[str, str] = json.loads(os.environ.get("STANDIN_SUBNETS", "{}"))
    return found
