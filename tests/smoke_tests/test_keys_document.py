"""The keys document is changed by one key, read by the gateway as it reads any, and put back byte for byte."""

import stat
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from image.gateway.keys import parse_document
from smoke_tests.errors import TargetError
from smoke_tests.keys_document import KeysFile, KeysSecret, with_key

DOCUMENTS = [
    "sk-bare\n",
    "sk-bare",
    "# team\nalice=sk-a\nbob=sk-b\n",
    '{"alice": "sk-a", "bob": {"key": "sk-b", "limits": {"concurrency": 2}}}',
    '{"alice": "sk-a"}\n',
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_key_is_added_and_nothing_else_changes(document: str) -> None:
    before, after = parse_document(document), parse_document(with_key(document, "smoke-test", "sk-new"))
    assert {key: after[key] for key in before} == before
    assert after.keys() - before.keys() == {"sk-new"}
    assert after["sk-new"].name == "smoke-test"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_is_put_back_as_it_was(document: str, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(document)
    path.chmod(0o600)
    file = KeysFile(path)
    before = file.read()
    file.write(with_key(before, "smoke-test", "sk-new"))
    assert "sk-new" in path.read_text()
    file.write(before)
    assert path.read_text() == document
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["keys"]


def test_a_file_that_cannot_be_had_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"--rotate-keys: cannot read .*missing") as refused:
        KeysFile(tmp_path / "missing").read()
    assert "\n" not in str(refused.value)
    with pytest.raises(TargetError, match="--rotate-keys: cannot write"):
        KeysFile(tmp_path / "nowhere" / "keys").write("sk-a")


@mock_aws
def test_a_secret_is_written_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    client = boto3.client("secretsmanager", region_name="eu-west-1")
    arn = client.create_secret(Name="vllm-dev-api-keys", SecretString=DOCUMENTS[3])["ARN"]
    secret = KeysSecret(arn, "eu-west-1")
    before = secret.read()
    secret.write(with_key(before, "smoke-test", "sk-new"))
    assert "sk-new" in client.get_secret_value(SecretId=arn)["SecretString"]
    secret.write(before)
    assert client.get_secret_value(SecretId=arn)["SecretString"] == DOCUMENTS[3]
    with pytest.raises(TargetError, match=r"get_secret_value: ResourceNotFoundException") as refused:
        KeysSecret(arn.replace("dev", "gone"), "eu-west-1").read()
    assert "\n" not in str(refused.value)
