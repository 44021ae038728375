"""Reads a model's config.json and the sizes of its files from where its weights are: the Hub or a mirror, S3, a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from image.engine.arguments import EngineError
from image.engine.s3 import S3, S3Address, refusal
from infra.inputs import is_output
from infra.planning.catalog.model_repository import (
    UNUSABLE_ADVICE,
    UnknownModelError,
    completed,
    folder_config,
    hub_config,
)
from infra.settings import Settings, secret_text

FetchConfig = Callable[[str, str], Mapping[str, Any]]
REMOTE_ADVICE = "Set a Hub id, s3://BUCKET/PREFIX, or the path in engineImage; make local serves a folder"
_BASE = "Set baseModel to plan it without reading it"


def config_reader(
    settings: Settings, environment: Mapping[str, str] = os.environ, *, s3: Callable[[], Any] | None = None
) -> FetchConfig:
    """Reads what the deployed engine will load: from the stack's Hub, with its token, or from S3.

    A folder of this machine is not read: the engine runs elsewhere.

    Args:
        settings: hubEndpoint, hfToken and engineEnvironment take precedence over the environment.
        environment: HF_ENDPOINT and HF_TOKEN of this machine.
        s3: makes boto3's client; None: with the credentials that Pulumi would find.
    """
    hub = hub_environment(settings, environment)

    def read(model: str, revision: str) -> Mapping[str, Any]:
        if model == settings.model and settings.bucket:
            return _from_s3(settings.bucket, model, s3 or s3_client)
        if model == settings.model and settings.model_in_image:
            raise UnknownModelError("it is in the engine's image, which is not read", _BASE)
        if is_local(model):
            raise UnknownModelError("it is a folder of this machine, where the engine does not run", REMOTE_ADVICE)
        return hub_config(model, revision, hub)

    return read


def hub_environment(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """HF_ENDPOINT and HF_TOKEN, as the stack's settings or else the environment have them; empty values if neither has."""
    given = dict(pair.split("=", 1) for pair in settings.engine_environment)
    token = "" if is_output(settings.hf_token) else secret_text(settings.hf_token)
    return {
        "HF_ENDPOINT": settings.hub_endpoint or given.get("HF_ENDPOINT", "") or environment.get("HF_ENDPOINT", ""),
        "HF_TOKEN": token or environment.get("HF_TOKEN", ""),
    }


def is_local(model: str) -> bool:
    """Whether a model is a path or a folder of this machine rather than a Hub id."""
    return model.startswith(("/", "./", "../", "~")) or Path(model).is_dir()


def fetch_config(model: str, revision: str) -> Mapping[str, Any]:
    """A model's config.json from the Hub, or from a folder if ``model`` is one.

    Raises:
        UnknownModelError: it cannot be read; contains the reason.
    """
    return folder_config(model) if Path(model).is_dir() else hub_config(model, revision, os.environ)


def _from_s3(address: S3Address, model: str, make: Callable[[], Any]) -> Mapping[str, Any]:
    try:
        client = S3(make())
        sizes = {name: size for name, (size, _) in client.files(address).items()}
        if "config.json" not in sizes:
            raise UnknownModelError(f"{model} has {'no config.json' if sizes else 'no files'}", _BASE)
        config = json.loads(client.read(address, "config.json"))
    except UnknownModelError:
        raise
    except ValueError:
        raise UnknownModelError("its config.json is not valid JSON", UNUSABLE_ADVICE) from None
    except Exception as error:  # boto3's errors have no common class
        line = str(refusal(error, model)).removeprefix("weights: ")
        raise UnknownModelError(line, _BASE) from None
    if not isinstance(config, dict):
        raise UnknownModelError("its config.json is not a JSON object", UNUSABLE_ADVICE)
    return completed(config, sizes, lambda name: client.read(address, name).decode())


def s3_client(profile: str = "", region: str = "") -> Any:
    """boto3's client of S3, with the credentials of an AWS profile.

    Raises:
        EngineError: boto3 is not installed.
    """
    try:
        from infra.aws_credentials import CONFIG, session  # make local plans without boto3
    except ImportError:
        raise EngineError("boto3 is not installed here") from None
    return session(profile, region or os.environ.get("AWS_REGION", "us-east-1")).client("s3", config=CONFIG)
