from __future__ import annotations

import asyncio
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from image.gateway import keys
from image.gateway.backends import FileKeys, InlineKeys
from image.gateway.errors import ApiError
from image.gateway.keys_document import KeysError, rfc_3339
from image.gateway.keys_document import parse as parse_document
from image.gateway.limits import Key, Limits
from image.gateway.telemetry import Telemetry
from tests.image.gateway.conftest import name_of, until


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("sk-1\n", {"sk-1": "default"}),
        ("# ours\n\n alice=sk-1 \r\nbob=sk-2\nsk-3", {"sk-1": "alice", "sk-2": "bob", "sk-3": "default"}),
        ('{"alice": "sk-1", "bob": "sk=2"}', {"sk-1": "alice", "sk=2": "bob"}),
        ('{"alice": "old", "alice": "new"}', {"old": "alice", "new": "alice"}),
        ("alice=old\nalice=new", {"old": "alice", "new": "alice"}),
        ("c2VjcmV0==", {"c2VjcmV0==": "default"}),
        ("alice=c2VjcmV0==", {"c2VjcmV0==": "alice"}),
        ('{"alice": ["new", {"key": "old", "expires": "2027-01-31T00:00:00Z"}]}', {"new": "alice", "old": "alice"}),
    ],
)
def test_documents(document: str, expected: dict[str, str]) -> None:
    assert {text: key.name for text, key in keys.parse_document(document).items()} == expected


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("", "no key"),
        ("# nothing\n", "no key"),
        ("{}", "no key"),
        ('{"alice": "sk-hidden"', "is not valid JSON"),
        ('{"alice": [["sk-hidden"]]}', "'alice'"),
        ('{"alice": []}', "no key"),
        ('{"alice": {"key": "sk-hidden", "expires": "2027-01-31"}}', "expires is '2027-01-31'; set a date and time"),
        ('{"alice": {"key": "sk-hidden", "expires": "2027-02-31T00:00:00Z"}}', "expires is '2027-02-31T00:00:00Z'"),
        ('{"alice": {"key": "sk-hidden", "expires": "2027-01-31T00:00:00"}}', "with its offset"),
        ('{"alice": {"key": "sk-hidden", "expires": 1800000000}}', "expires is 1800000000"),
        ('{"alice": {"key": "sk-hidden", "priority": 101}}', "priority is 101; set a whole number from -100 to 100"),
        ('{"alice": {"key": "sk-hidden", "priority": true}}', "priority is True"),
        ('{"alice": {"key": "sk-hidden", "health": 1}}', "health is 1; set true or false"),
        ('{"alice": {"key": "sk-hidden", "limit": {}}}', "not of the form"),
        ('{"alice": {"key": "sk-hidden", "limits": [1]}}', "not of the form"),
        ('{"alice": {"key": "sk-hidden", "limits": {"rpm": 1}}}', "'rpm' is not a limit; set concurrency"),
        ('{"alice": {"key": "sk-hidden", "limits": {"concurrency": 0}}}', "concurrency is 0"),
        ('{"alice": {"limits": {"concurrency": 1}}}', "'alice'"),
        ('{"alice": ""}', "'alice'"),
        ("alice=sk-hidden with spaces", "'alice'"),
        ("alice=sk-hidden\nbob=sk-hidden", "same key"),
    ],
)
def test_bad_documents_are_refused_without_a_word_of_a_key(document: str, says: str) -> None:
    with pytest.raises(keys.KeysError, match=says) as raised:
        keys.parse_document(document)
    assert "sk-hidden" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_key_may_have_limits() -> None:
    document = (
        '{"alice": {"key": "sk-1", "limits": {"concurrency": 2, "tokens_per_minute": 900}}, "bob": {"key": "sk-2"}}'
    )
    found = keys.parse_document(document)
    assert found == {"sk-1": Key("alice", Limits(2, None, 900)), "sk-2": Key("bob", Limits())}


def test_a_ring_before_its_first_document_lets_nobody_in() -> None:
    ring = keys.KeyRing()
    assert name_of(ring, b"Bearer ") is None
    assert name_of(ring, None) is None
    ring.replace({"sk-1": Key("alice")})
    assert name_of(ring, b"Bearer sk-1") == "alice"
    assert name_of(ring, b"Bearer sk-2") is None


async def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("alice=sk-1")
    log = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT)
    telemetry = Telemetry(log)
    ring = keys.KeyRing()
    source = keys.source_of(FileKeys(path))
    assert source is not None
    await keys.load(ring, source)
    task = asyncio.create_task(keys.keep_fresh(ring, source, 0.01, telemetry))

    path.write_text("alice=sk-1\nbob=sk-22")
    await until(lambda: name_of(ring, b"Bearer sk-22") == "bob")
    path.write_text("")  # half written: everybody stays
    await until(lambda: telemetry.metrics.key_reload_failures._value.get() >= 1)
    assert name_of(ring, b"Bearer sk-1") == "alice"
    path.unlink()
    await until(lambda: telemetry.metrics.key_reload_failures._value.get() >= 3)
    assert name_of(ring, b"Bearer sk-1") == "alice"
    path.write_text("bob=sk-22")
    await until(lambda: name_of(ring, b"Bearer sk-1") is None)
    assert name_of(ring, b"Bearer sk-22") == "bob"

    task.cancel()
    telemetry.flush()
    told = os.pread(log, 10_000, 0).decode()
    os.close(log)
    assert "keys_replaced" in told
    assert "keys_not_replaced" in told
    assert "sk-" not in told


async def test_sources_that_cannot_be_read_to_begin_with(tmp_path: Path) -> None:
    ring = keys.KeyRing()
    with pytest.raises(keys.KeysError, match="No such file"):
        await keys.load(ring, keys.source_of(FileKeys(tmp_path / "none")))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(keys.KeysError, match="UTF-8"):
        await keys.load(ring, keys.source_of(FileKeys(tmp_path / "binary")))
    await keys.load(ring, keys.source_of(InlineKeys("sk-1")))
    assert name_of(ring, b"Bearer sk-1") == "default"


def test_all_problems_of_a_document_come_at_once() -> None:
    document = '{"a": {"key": "sk-1", "priority": 999}, "b": "with space", "c": "sk-3", "d": "sk-3"}'
    with pytest.raises(keys.KeysError) as raised:
        keys.parse_document(document)
    assert [problem.split(" ")[0] for problem in raised.value.problems] == ["'a':", "the", "'d'"]
    assert "sk-" not in str(raised.value)


@pytest.mark.parametrize("text", ["2027-01-31T00:00:00Z", "2027-01-31t01:30:00.5+01:30", "2027-01-30T19:00:00-05:00"])
def test_an_expiry_is_rfc_3339(text: str) -> None:
    (key,) = keys.parse_document(f'{{"alice": {{"key": "sk-1", "expires": "{text}"}}}}').values()
    assert key.expires is not None
    assert rfc_3339(key.expires) == "2027-01-31T00:00:00Z"


def test_a_key_is_good_until_it_expires_and_its_holder_is_told_when_that_was() -> None:
    ring = keys.KeyRing()
    ring.replace({"sk-old": Key("alice", expires=time.time() - 1), "sk-new": Key("alice", expires=time.time() + 60)})
    assert name_of(ring, b"Bearer sk-new") == "alice"
    with pytest.raises(ApiError) as raised:
        ring.authenticate([(b"authorization", b"Bearer sk-old")])
    assert (raised.value.status, raised.value.code) == (401, "expired_api_key")
    assert re.fullmatch(r"This API key expired on \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ; .*", raised.value.message)
    assert "sk-old" not in raised.value.message


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer sk-1")],
        [(b"x-api-key", b"sk-1")],
        [(b"api-key", b" sk-1 ")],
        [(b"authorization", b"bearer sk-1"), (b"x-api-key", b"sk-1"), (b"api-key", b"sk-1")],
        [(b"authorization", b"Basic dXNlcjpwYXNz"), (b"x-api-key", b"sk-1")],  # a proxy's, in between
        [(b"authorization", b"Bearer "), (b"x-api-key", b"sk-1"), (b"api-key", b"")],
    ],
)
def test_a_key_is_taken_from_where_any_sdk_sends_it(headers: list[tuple[bytes, bytes]]) -> None:
    assert keys.presented(headers) == [b"sk-1"]


@pytest.mark.parametrize(
    ("headers", "whose"),
    [
        ([(b"authorization", b"Bearer sk-1"), (b"x-api-key", b"sk-ant-another")], "alice"),
        ([(b"authorization", b"Bearer sk-another"), (b"x-api-key", b"sk-1")], "alice"),
        ([(b"x-api-key", b"dummy"), (b"api-key", b"sk-1")], "alice"),
        ([(b"authorization", b"Bearer sk-old"), (b"x-api-key", b"sk-1")], "alice"),  # expired
        ([(b"authorization", b"Bearer sk-1"), (b"x-api-key", b"sk-1b")], "alice"),  # two keys of one name
        ([(b"authorization", b"Bearer sk-1"), (b"x-api-key", b"sk-2")], "different API keys"),
        ([(b"x-api-key", b"sk-1"), (b"x-api-key", b"sk-2")], "different API keys"),
        ([(b"authorization", b"Bearer sk-a"), (b"x-api-key", b"sk-b")], "Incorrect or missing"),
        ([(b"authorization", b"Bearer sk-old"), (b"x-api-key", b"sk-b")], "expired on"),
        ([*((b"x-api-key", b"sk-%d" % n) for n in range(10, 13)), (b"api-key", b"sk-1")], "different API keys"),
    ],
)
def test_one_valid_key_among_several_is_enough(headers: list[tuple[bytes, bytes]], whose: str) -> None:
    ring = keys.KeyRing()
    ring.replace({"sk-1": Key("alice"), "sk-1b": Key("alice"), "sk-2": Key("bob"), "sk-old": Key("carol", expires=1.0)})
    if whose == "alice":
        assert ring.authenticate(headers).name == "alice"
        return
    with pytest.raises(ApiError, match=whose) as raised:
        ring.authenticate(headers)
    assert raised.value.status == 401
    assert "sk-" not in raised.value.message


SECRET = "sk-live-SECRETsecret1234567890SECRETsecret"
MISPLACED: list[Any] = [
    {SECRET: "alice"},  # the name is logged with each request
    {SECRET: {"key": "alice", "limits": {}}},
    {SECRET: ["alice"]},
    {SECRET: "Alice Smith"},
    {"alice": "k", SECRET: "k"},
    {"alice": {SECRET: 1}},
    {"alice": {"key": "k", "expires": SECRET}},
    {"alice": {"key": "k", "limits": {SECRET: 1}}},
    {"alice": {"key": "k", "limits": {"concurrency": SECRET}}},
    {"alice": {"key": "k", "priority": SECRET}},
    {"alice": {"key": "k", "health": SECRET}},
    {"alice": {"key": {"key": SECRET}}},
]


@pytest.mark.parametrize("document", MISPLACED, ids=range(len(MISPLACED)))
def test_a_key_in_the_wrong_place_is_refused_without_showing_it(document: Any) -> None:
    with pytest.raises(KeysError) as refused:
        parse_document(json.dumps(document))
    assert "SECRET" not in str(refused.value)
