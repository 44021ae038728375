"""Reads a model's config.json and the sizes of its files from where its weights are: the Hub or a mirror, S3, a folder."""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from image.engine.arguments import EngineError
from image.engine.hub import TokenRedirect
from image.engine.s3 import S3, S3Address, refusal
from image.engine.weight_files import select
from infra.inputs import is_output
from infra.settings import Settings, secret_text

HUB = "https://huggingface.co"
HUB_TIMEOUT_SECONDS = 5
WEIGHTS_BYTES = "weights_bytes"  # added to a config: the bytes of the files that vLLM loads
FetchConfig = Callable[[str, str], Mapping[str, Any]]
REMOTE_ADVICE = "Set a Hub id, s3://BUCKET/PREFIX, or the path in engineImage; make local serves a folder"
_BASE = "Set baseModel to plan it without reading it"


class UnknownModelError(LookupError):
    """A model is not in the catalog, and its config.json cannot be read or is not usable.

    ``advice`` is what to set instead; empty: what helps with any model of the Hub.
    """

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(reason)
        self.advice = advice


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
            return _from_s3(settings.bucket, model, s3 or _s3_client)
        if model == settings.model and settings.model_in_image:
            raise UnknownModelError("it is in the engine's image, which is not read", _BASE)
        if is_local(model):
            raise UnknownModelError("it is a folder of this machine, where the engine does not run", REMOTE_ADVICE)
        return from_hub(model, revision, hub)

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
    folder = Path(model)
    if not folder.is_dir():
        return from_hub(model, revision, os.environ)
    try:
        config = dict(json.loads((folder / "config.json").read_text()))
        sizes = {str(file.relative_to(folder)): file.stat().st_size for file in folder.rglob("*") if file.is_file()}
        return config | {WEIGHTS_BYTES: select(sizes).weight_bytes}
    except (OSError, ValueError, TypeError) as error:
        raise UnknownModelError(f"the folder {model} has no readable config.json ({error})") from None


def from_hub(model: str, revision: str, environment: Mapping[str, str]) -> Mapping[str, Any]:
    """A model's config.json from the Hub or its mirror, with the bytes of its weights if the Hub lists them.

    Raises:
        UnknownModelError: it cannot be read; contains the reason, never the token.
    """
    endpoint = (environment.get("HF_ENDPOINT") or HUB).rstrip("/")
    if not endpoint.startswith(("https://", "http://")):
        raise UnknownModelError(f"HF_ENDPOINT is {endpoint}, not an http address")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model):
        raise UnknownModelError(f"{model[:60]!r} is not a Hub id such as org/name")
    name = "the Hub" if endpoint == HUB else endpoint
    token = environment.get("HF_TOKEN", "").strip()
    config = _json(f"{endpoint}/{model}/resolve/{quote(revision or 'main', safe='')}/config.json", token, name)
    if not isinstance(config, dict):
        raise UnknownModelError("its config.json is not a JSON object")
    try:
        # The sizes are exact; without them the plan is an estimate.
        address = f"{endpoint}/api/models/{model}/revision/{quote(revision or 'main', safe='')}?blobs=true"
        sizes = {str(row["rfilename"]): row.get("size") for row in _json(address, token, name)["siblings"]}
    except (UnknownModelError, KeyError, TypeError, AttributeError):
        return config
    return config | {WEIGHTS_BYTES: select(sizes).weight_bytes}


def _json(address: str, token: str, name: str) -> Any:
    request = urllib.request.Request(address)  # noqa: S310 - the caller checks the scheme
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.build_opener(TokenRedirect).open(request, timeout=HUB_TIMEOUT_SECONDS) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        error.close()
        missing = "hfToken has no access" if token else "is gated and needs hfToken (or HF_TOKEN in the environment)"
        reason = {
            401: f"it does not exist, or {missing}",
            403: f"it is gated: {missing}" if token else f"it {missing}",
            404: "it does not exist",
        }
        raise UnknownModelError(f"{name} returned {error.code}: {reason.get(error.code, error.reason)}") from None
    except (OSError, ValueError) as error:
        raise UnknownModelError(f"{name} cannot be reached ({getattr(error, 'reason', error)})") from None


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
        raise UnknownModelError("its config.json is not valid JSON") from None
    except Exception as error:  # boto3's errors have no common class
        line = str(refusal(error, model)).removeprefix("weights: ")
        raise UnknownModelError(line, _BASE) from None
    if not isinstance(config, dict):
        raise UnknownModelError("its config.json is not a JSON object")
    return config | {WEIGHTS_BYTES: select(sizes).weight_bytes}


def _s3_client() -> Any:
    try:
        from infra.aws_credentials import CONFIG, session  # make local plans without boto3
    except ImportError:
        raise EngineError("boto3 is not installed here") from None
    return session("", os.environ.get("AWS_REGION", "us-east-1")).client("s3", config=CONFIG)
