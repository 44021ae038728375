"""The text printed once the endpoint is ready: commands that work as printed, from any folder, without a key in them."""

from __future__ import annotations

import json
import re
import shlex
import urllib.request
from dataclasses import dataclass

from infra.web_address import proxies_named
from local import folders
from local.machine import Machine

MAX_TOKENS = 64
NO_PROXY = '"$no_proxy,127.0.0.1,localhost"'


@dataclass(frozen=True)
class Shown:
    """The values that the banner shows."""

    base_url: str
    metrics_url: str
    model: str
    """The name under which the model is served."""
    version: str
    """The local version of vLLM."""
    deployed_image: str
    """The image that the stack deploys."""
    model_note: str = ""
    """A line about a model that replaces the stack's; empty for the stack's own model."""


def curl_line(base_url: str, model: str) -> str:
    """A command for the shell. curl reads the key from a file, so that it does not appear in the list of processes.

    If the shell names a proxy, the command says not to use it: curl would send it the key, and ask it for its own loopback.
    """
    body = {"model": model, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": MAX_TOKENS}
    headers = shlex.quote(f"@{folders.CURL_HEADERS}")
    direct = "--noproxy '*' " if proxies_named() else ""
    return f"curl -sS {direct}{base_url}/chat/completions -H {headers} -d {shlex.quote(json.dumps(body))}"


def sdk_lines(base_url: str, model: str) -> str:
    """A program for Python with the OpenAI SDK; it does not use a proxy that the shell names."""
    names, direct = "OpenAI", ""
    if proxies_named():
        names, direct = "DefaultHttpxClient, OpenAI", ", http_client=DefaultHttpxClient(trust_env=False)"
    return f"""\
from pathlib import Path
from openai import {names}

client = OpenAI(base_url={base_url!r}, api_key=Path({str(folders.API_KEY)!r}).read_text().strip(){direct})
answer = client.chat.completions.create(
    model={model!r}, messages=[{{"role": "user", "content": "Hello!"}}], max_tokens={MAX_TOKENS}
)
message = answer.choices[0].message
print(message.content or getattr(message, "reasoning", None) or "")"""


def proxy_lines() -> list[str]:
    """What to run first if the shell's proxy would receive requests to this machine; empty without such a proxy."""
    proxies = urllib.request.getproxies_environment()
    if not {"http", "all"} & set(proxies) or urllib.request.proxy_bypass("127.0.0.1"):
        return []
    return ["# This shell uses a proxy, which cannot reach this machine. Run first:", f"export no_proxy={NO_PROXY}", ""]


def chat_lines(base_url: str) -> list[str]:
    """The ways to chat. The link's fragment contains the key, which is read from its file; browsers never send fragments."""
    link = f"{base_url.removesuffix('/v1')}/#key=$(cat {shlex.quote(str(folders.API_KEY))})"
    return [
        "Chat      make chat, in another terminal; or in the browser, at the link that this prints:",
        f'          echo "{link}"',
    ]


def stand_in_line(model: str, because: str) -> str:
    """A line that the stand-in answers instead of the real model."""
    return f"STAND-IN: {model} is not available ({because}). A tiny random model answers under its name: the text is noise."


def smaller_line(model: str, instead_of: str, because: str) -> str:
    """A line that a smaller model answers instead of the stack's."""
    return (
        f"SMALLER MODEL: {model} answers here, under its own name, and not {instead_of} ({because}). "
        "Its text is real, but not what the stack's model would say."
    )


def versions_line(here: str, image: str) -> str:
    """The local and the deployed version of vLLM, and whether they differ."""
    deployed = image_version(image)
    if deployed is None:
        return f"vLLM {here} here; the stack deploys {image}, whose name contains no version."
    if deployed == here.removeprefix("v").partition("+")[0]:
        return f"vLLM {here} here, the same version as the stack deploys ({image})."
    return (
        f"vLLM {here} here, but the stack deploys {deployed} ({image}): "
        "arguments, defaults and outputs may differ between the two."
    )


def image_version(image: str) -> str | None:
    """The version in an image's tag, without its "v"; None for tags without a version, such as `latest`, and digests."""
    tag = image.partition("@")[0].rpartition("/")[2].partition(":")[2]
    found = re.match(r"v?(\d+\.\d+[.\w]*)", tag)
    return found[1] if found else None


def banner(shown: Shown, machine: Machine, seconds: float) -> str:
    """The whole banner."""
    minutes, rest = divmod(round(seconds), 60)
    model, base_url = shown.model, shown.base_url
    lines = [
        "",
        f"Ready after {minutes}:{rest:02d}: {model} at {base_url}, vLLM {shown.version} on {machine}",
        *([shown.model_note] if shown.model_note else []),
        versions_line(shown.version, shown.deployed_image),
        "",
        *proxy_lines(),
        curl_line(base_url, model),
        "",
        f"# Python; {folders.LOCAL_ENVIRONMENT}/bin/python has the SDK",
        sdk_lines(base_url, model),
        "",
        f"Endpoint  {base_url}",
        f"API key   {folders.API_KEY}",
        f"Metrics   {shown.metrics_url} (Prometheus)",
        f"Logs      {folders.LOGS}",
        *chat_lines(base_url),
        "Stop      Ctrl-C stops.",
    ]
    return "\n".join(lines)
