"""Runs the whole Pulumi program under mocks and records everything that it registers."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import gc
import json
import logging
import runpy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pulumi
import yaml
from google.protobuf import json_format, struct_pb2  # type: ignore[import-untyped]
from pulumi.runtime import mocks
from pulumi.runtime.proto import resource_pb2, source_pb2
from pulumi.runtime.stack import Stack

from infra.offers import Offers
from infra.preflight import Findings
from infra.settings import PROJECT, secret_keys
from smoke_tests.stack import flat
from tests.infra.event_loops import closing_event_loops

ROOT = Path(__file__).parents[2]
REGION, ACCOUNT = "us-east-1", "123456789012"
SIGNATURE, SECRET = "4dabf18193072939515e22adb298388d", "1b47061264138c4ac30d75fd1eb44270"  # of Pulumi's protocol
STASH = "pulumi:index:Stash"
ZONES = ("us-east-1a", "us-east-1b", "us-east-1c", "us-east-1d")
SHOWN_TO_THE_USER = 32  # of Pulumi's language hosts
OFFERING = ("us-east-1b", "us-east-1d")
"""Zones of the imagined region that offer whatever GPU is asked for."""


@dataclass(frozen=True)
class Registered:
    """One resource as it was registered. ``inputs`` has Pulumi's own names; secrets in it are revealed."""

    type: str
    name: str
    urn: str
    parent: str
    inputs: dict[str, Any]
    secret_inputs: tuple[str, ...]
    depends_on: tuple[str, ...]
    ignore_changes: tuple[str, ...]
    replace_on_changes: tuple[str, ...]
    retained: bool
    protected: bool
    identifier: str = ""
    outputs: dict[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    provider: str = ""

    def tags(self) -> dict[str, str]:
        """Its tags, whichever way the type spells them."""
        tags = self.inputs.get("tags") or {}
        return tags if isinstance(tags, dict) else {tag["key"]: tag["value"] for tag in tags}

    def document(self, key: str = "policy") -> Any:
        """An input that is JSON."""
        return json.loads(self.inputs[key])

    def container(self) -> dict[str, Any]:
        """The container that a task is for."""
        (container,) = [c for c in self.document("containerDefinitions") if c["essential"]]
        return dict(container)

    def environment(self) -> dict[str, str]:
        """That container's environment."""
        return {pair["name"]: pair["value"] for pair in self.container()["environment"]}


@dataclass
class Program:
    """What one run registered, exported and warned of."""

    resources: list[Registered] = field(default_factory=list)
    stashes: list[Registered] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)  # as programs read them
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    invoked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def all(self, kind: str) -> list[Registered]:
        """Every resource of a type, named as in ``aws:ecs/service:Service`` or by its last part."""
        custom = [r for r in self.resources if not r.type.startswith(("vllm:", "vllm-endpoint:"))]
        return [r for r in custom if kind in (r.type, r.type.rpartition(":")[2])]

    def one(self, kind: str, name: str = "") -> Registered:
        """The only resource of a type, or the only one whose name ends so."""
        (found,) = [r for r in self.all(kind) if r.name.endswith(name)]
        return found

    def kinds(self) -> dict[str, int]:
        """How many of each type."""
        counts: dict[str, int] = {}
        for resource in self.resources:
            counts[resource.type] = counts.get(resource.type, 0) + 1
        return counts


class RefusedError(Exception):
    """The program ended with these lines instead of declaring anything."""


def run_program(stack: str = "dev", *, preview: bool = False, encrypted: bool = True, **values: Any) -> Program:
    """The program's run for a stack file with some values changed; the same run is made once only.

    Args:
        stack: the stack's name, and its file's where there is one.
        preview: whether nothing is known of what would be made.
        encrypted: whether secret settings are.
        values: settings.

    Raises:
        RefusedError: with the lines that a user would get.
    """
    return _run(stack, preview, encrypted, json.dumps(values, sort_keys=True))


@functools.cache
def _run(stack: str, preview: bool, encrypted: bool, values: str) -> Program:
    program = Program()
    _in_mocks(program, PROJECT, stack, preview, _config(stack, json.loads(values)), encrypted, _program(program))
    return program


def run_foreign(
    declare: Callable[[], object], *, preview: bool = False, stack: str = "prod", project: str = "platform"
) -> Program:
    """The run of somebody else's program.

    Args:
        declare: declares its resources.
        preview: whether nothing is known of what would be made.
        stack: its stack's name.
        project: its project's name.
    """
    program = Program()

    def run() -> pulumi.Output[None]:
        with _account():
            declare()
        return pulumi.Output.from_input(None)

    _in_mocks(program, project, stack, preview, {}, False, run)
    return program


def _in_mocks(
    program: Program, project: str, stack: str, preview: bool, config: dict[str, str], encrypted: bool, function: Any
) -> None:
    def run() -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())
        logger = logging.Logger("program", logging.WARNING)
        logger.addHandler(_Warnings(program))
        monitor = _Recorder(program, preview)
        mocks.set_mocks(monitor.mocks, project, stack, preview=preview, logger=logger, monitor=monitor)
        secrets = [f"{PROJECT}:{key}" for key in secret_keys()] if encrypted else []
        pulumi.runtime.set_all_config(config, secrets)
        try:
            pulumi.runtime.test(function)()  # type: ignore[no-untyped-call]
        except SystemExit as end:
            assert end.code == SHOWN_TO_THE_USER
            raise RefusedError("\n".join(program.errors)) from None

    # In a thread of its own Pulumi neither takes nor replaces the event loop of the thread that runs the tests.
    with (
        warnings.catch_warnings(),
        _cheap_objects(),
        closing_event_loops(),
        concurrent.futures.ThreadPoolExecutor(1) as thread,
    ):
        # The SDK warns of its own renamed classes when it is imported.
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="pulumi_aws")
        thread.submit(run).result()


@contextlib.contextmanager
def _account() -> Iterator[None]:
    with (
        mock.patch("infra.aws.account.vcpu_quota", return_value=Findings()),
        mock.patch("infra.aws.account.ask_offers", return_value=Offers({}, {}, {}, {})),
        mock.patch("infra.aws.endpoint.check_credentials", return_value=True),
    ):
        yield


def _program(program: Program) -> Any:
    def run() -> pulumi.Output[None]:
        stack = pulumi.runtime.get_root_resource()
        assert isinstance(stack, Stack)
        with _account():
            runpy.run_path(str(ROOT / "infra"), run_name="__main__")
        return pulumi.Output.all(**stack.outputs).apply(lambda found: program.outputs.update(flat(found)))

    return run


@contextlib.contextmanager
def _cheap_objects() -> Iterator[None]:
    """A third of a run's CPU time goes into what nothing here reads: collections while every object lives, stack traces."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        with mock.patch("pulumi.runtime.resource._get_stack_trace", source_pb2.StackTrace):
            yield
    finally:
        if was_enabled:
            gc.enable()


@functools.cache
def _file_config(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text())["config"]) if path.is_file() else {}


def _config(stack: str, values: dict[str, Any]) -> dict[str, str]:
    """Configuration as the engine hands it over: defaults, stack file, overrides, all as text."""
    declared = _file_config(ROOT / "Pulumi.yaml")
    config: dict[str, Any] = {f"{PROJECT}:{key}": entry["default"] for key, entry in declared.items()}
    config |= _file_config(ROOT / f"Pulumi.{stack}.yaml")
    config |= {key if ":" in key else f"{PROJECT}:{key}": value for key, value in values.items()}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}


class _Recorder(mocks.MockMonitor):
    """A fake of Pulumi's engine that records whole requests, because mocks do not receive options."""

    def __init__(self, program: Program, preview: bool) -> None:
        super().__init__(_Lookups(program))
        self._program, self._preview = program, preview

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 - gRPC's name
        urn = self.make_urn(request.parent, request.type, request.name)
        if request.type == "pulumi:pulumi:Stack":
            return resource_pb2.RegisterResourceResponse(urn=urn)
        marked = json_format.MessageToDict(request.object)
        secrets: list[str] = []
        inputs = _reveal(marked, "", secrets)
        place = place_of(self._program, request.provider)
        computed = {} if self._preview or not request.custom else _computed(request.type, request.name, inputs, place)
        identifier = "" if self._preview or not request.custom else _identifier(request.type, request.name, place)
        recorded = Registered(
            type=request.type,
            name=request.name,
            urn=urn,
            parent=request.parent,
            inputs=inputs,
            secret_inputs=tuple(secrets),
            depends_on=tuple(request.dependencies),
            ignore_changes=tuple(request.ignoreChanges),
            replace_on_changes=tuple(request.replaceOnChanges),
            retained=bool(request.retainOnDelete),
            protected=bool(request.protect),
            identifier=identifier,
            outputs=computed | inputs,
            aliases=tuple(alias.spec.name for alias in request.aliases),
            hooks=tuple(request.hooks.after_update),
            provider=request.provider,
        )
        # A stash is an entry of Pulumi's state: nothing of it exists in a cloud.
        (self._program.stashes if request.type == STASH else self._program.resources).append(recorded)
        state = struct_pb2.Struct()
        json_format.ParseDict(computed | marked, state)
        return resource_pb2.RegisterResourceResponse(urn=urn, id=identifier, object=state)


ID_IS_ARN = {"Service:ecs", "LoadBalancer", "TargetGroup", "Listener", "Secret", "Topic"}


@dataclass(frozen=True)
class Place:
    """Where a provider acts."""

    region: str = REGION
    account: str = ACCOUNT

    @property
    def partition(self) -> str:
        """The region's partition."""
        return "aws-cn" if self.region.startswith("cn-") else "aws"


def place_of(program: Program, provider: str) -> Place:
    """The region of a provider of the program, and the account of the role that it assumes."""
    urn = provider.rpartition("::")[0]
    inputs = next((found.inputs for found in program.resources if urn and found.urn == urn), {})
    roles = json.loads(inputs.get("assumeRoles") or "[]")
    return Place(inputs.get("region") or REGION, roles[0]["roleArn"].split(":")[4] if roles else ACCOUNT)


def arn(kind: str, name: str, place: Place = Place()) -> str:
    """The ARN that an imagined resource gets."""
    _, module, last = kind.split(":")
    return f"arn:{place.partition}:{module.partition('/')[0]}:{place.region}:{place.account}:{last}/{name}"


def _identifier(kind: str, name: str, place: Place) -> str:
    _, module, last = kind.split(":")
    by_arn = last in ID_IS_ARN or f"{last}:{module.partition('/')[0]}" in ID_IS_ARN
    return arn(kind, name, place) if by_arn else f"{name}-id"


def _computed(kind: str, name: str, inputs: dict[str, Any], place: Place) -> dict[str, Any]:
    """What AWS would add. What is not here and not among the inputs is None, as for a typo."""
    last = kind.rpartition(":")[2]
    found: dict[str, Any] = {"arn": arn(kind, name, place), "name": f"{name}-1a2b3c4"}
    more: dict[str, dict[str, Any]] = {
        "Repository": {
            "repositoryUrl": f"{place.account}.dkr.ecr.{place.region}.amazonaws.com/{name}",
            "registryId": place.account,
        },
        "Image": {"digest": "sha256:" + "0" * 64},
        "LaunchTemplate": {"latestVersion": 7},
        "LoadBalancer": {
            "dnsName": "lb.example.amazonaws.com",
            "zoneId": "Z35SXDOTRQ7X7K",
            "arnSuffix": f"app/{name}/1",
        },
        "TargetGroup": {"arnSuffix": f"targetgroup/{name}/1"},
        "RandomPassword": {"result": "r" * int(inputs.get("length", 0))},
        "RandomString": {"result": "r" * int(inputs.get("length", 0))},
        "Certificate": {
            "domainValidationOptions": [
                {"resourceRecordName": "_proof", "resourceRecordType": "CNAME", "resourceRecordValue": "_value"}
            ]
        },
        "Record": {"fqdn": "record.example.com"},
    }
    return found | more.get(last, {})


def _reveal(value: Any, path: str, secrets: list[str]) -> Any:
    if isinstance(value, dict):
        if value.get(SIGNATURE) == SECRET:
            secrets.append(path)
            return _reveal(value["value"], path, secrets)
        return {key: _reveal(item, f"{path}.{key}" if path else key, secrets) for key, item in value.items()}
    if isinstance(value, list):
        return [_reveal(item, f"{path}[{i}]", secrets) for i, item in enumerate(value)]
    return int(value) if isinstance(value, float) and value.is_integer() else value


class _Lookups(mocks.Mocks):
    """Answers what the program asks about the account."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        raise AssertionError("the recorder answers")

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        self._program.invoked.append((args.token, args.args))
        place = place_of(self._program, args.provider)
        name = args.token.rpartition(":")[2]
        filters = {item["name"]: item["values"] for item in args.args.get("filters") or []}
        answers: dict[str, Any] = {
            "getRegion": {"region": place.region, "id": place.region},
            "getCallerIdentity": {"accountId": place.account},
            "getPartition": {"partition": place.partition},
            "getAvailabilityZones": {"names": [zone.replace(REGION, place.region) for zone in ZONES]},
            "getInstanceTypeOfferings": {
                "instanceTypes": [kind for kind in filters.get("instance-type", ()) for _ in OFFERING],
                "locations": [zone.replace(REGION, place.region) for zone in OFFERING]
                * len(filters.get("instance-type", ())),
            },
            "getParameter": {"insecureValue": "ami-0123456789abcdef0", "value": "ami-0123456789abcdef0"},
            "getAuthorizationToken": {"userName": "AWS", "password": "token"},
            "getZone": {"zoneId": "Z0123456789"},
            "getVpc": {"id": "vpc-1", "cidrBlock": "172.31.0.0/16"},
            # subnet-b is in us-east-1b and so on; subnet-x does not exist.
            "getSubnets": {
                "ids": [i for i in filters.get("subnet-id", ()) if f"us-east-1{i.rpartition('-')[2]}" in ZONES]
            },
            "getSubnet": {"availabilityZone": f"us-east-1{str(args.args.get('id')).rpartition('-')[2]}"},
        }
        return answers[name], []


class _Warnings(logging.Handler):
    def __init__(self, program: Program) -> None:
        super().__init__(logging.WARNING)
        self._program = program

    def emit(self, record: logging.LogRecord) -> None:
        told = self._program.errors if record.levelno >= logging.ERROR else self._program.warnings
        told.append(record.getMessage())
