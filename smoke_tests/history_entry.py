"""The stored result of one verification: conformance, benchmark, comparison and verdict."""

import hashlib
import json
import re
import secrets
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from infra.identity import Identity
from smoke_tests.benchmark.record import Deployment, Record, RecordError, parse_record
from smoke_tests.errors import TargetError

KIND = "vllm-endpoint verification"
# Incremented when a key is removed or changes its meaning; not for a new key.
SCHEMA_VERSION = 1
SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


class EntryError(TargetError):
    """A stored entry cannot be read; the message is one line."""


class Compared(BaseModel):
    """The comparison with an earlier entry: its id, the regressions and remarks."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    base: str
    regressions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Entry(BaseModel):
    """One verification.

    Attributes:
        id: time, configuration and a random suffix, so that it is unique; sorts by time.
        name: the stack's name, or the given name of an endpoint without a stack.
        date: ISO 8601, UTC.
        config_hash: digest of the stack's settings, or of what is known of an endpoint without one.
        commit: of the code that verified, with -dirty where it was changed; None outside a clone.
        passed: whether every test passed, every request succeeded and nothing got worse.
        reasons: why it did not pass, one line each.
        conformance: the report of the conformance tests.
        benchmark: the benchmark's record as it was written; None where it was not run.
        compared: the comparison with an earlier entry; None if there was no comparable one.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: Literal["vllm-endpoint verification"] = "vllm-endpoint verification"
    schema_version: Literal[1] = 1
    id: str
    name: str
    date: str
    config_hash: str
    commit: str | None = None
    passed: bool
    reasons: tuple[str, ...] = ()
    conformance: dict[str, Any]
    benchmark: dict[str, Any] | None = None
    compared: Compared | None = None

    def record(self) -> Record | None:
        """The benchmark's record, None without one or if this version cannot read it."""
        if self.benchmark is None:
            return None
        try:
            return parse_record(json.dumps(self.benchmark), self.id)
        except RecordError:
            return None

    def as_json(self) -> str:
        """The document to store."""
        return self.model_dump_json(indent=1) + "\n"


def name_of(identity: Identity) -> str:
    """The name of an endpoint's results: the stack's, or, in another program, one that no other endpoint has."""
    if not identity.endpoint:
        return identity.stack
    readable = re.sub(
        r"[^A-Za-z0-9_-]+", "-", f"{identity.project}.{identity.stack}.{identity.endpoint}".replace("/", "-")
    )
    return f"{readable[:80].lstrip('-')}-{identity.prefix(20).rpartition('-')[2]}"


def new_id(now: datetime, config_hash: str) -> str:
    """A unique id, even for simultaneous runs."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}-{config_hash[:8]}-{secrets.token_hex(4)}"


def digest(deployment: Deployment) -> str:
    """The digest of a stack's settings, or, without a stack, of what is known of the deployment."""
    if deployment.config_hash:
        return deployment.config_hash
    known = deployment.model_dump(mode="json", exclude={"endpoint", "config", "config_hash", "stack"})
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


def parse_entry(text: str, place: str) -> Entry:
    """The entry in `text`; `place` is what errors call it. Raises EntryError."""
    try:
        document = json.loads(text)
        version = document.get("schema_version") if isinstance(document, dict) else None
        if version != SCHEMA_VERSION:
            raise EntryError(f"{place} has schema version {version!r}, this version reads {SCHEMA_VERSION}")
        return Entry.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise EntryError(f"{place} is damaged: {where}: {first['msg']}") from None
    except ValueError as error:
        raise EntryError(f"{place} is not JSON: {error}") from None
    except RecursionError:
        raise EntryError(f"{place} is nested too deeply") from None


def checked_name(name: str) -> str:
    """Validate `name` as a folder name. Raises TargetError if it is not one."""
    if not SAFE_NAME.fullmatch(name):
        raise TargetError(f"--name: {name!r} cannot name a folder; use letters, digits, . _ -")
    return name
