"""What is printed when it is ready: lines that work as printed, from any folder, with no key in them."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass

from infra.web_address import proxies_named
from local import folders
from local.machine import Machine

MAX_TOKENS = 64


@dataclass(frozen=True)
class Shown:
    """What the banner says of the endpoint."""

    base_url: str
    metrics_url: str
    model: str
    """The name it is served under."""
    version: str
    """vLLM's, here."""
    deployed_image: str
    """The image that the stack deploys."""
    model_note: str = ""
    """A line about a model that is not the stack's own; empty: it is."""


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


def chat_lines(base_url: str) -> list[str]:
    """The ways to chat. The key comes from its file into the link's fragment, which browsers never send."""
    link = f"{base_url.removesuffix('/v1')}/#key=$(cat {shlex.quote(str(folders.API_KEY))})"
    return [
        "Chat      make chat, in another terminal; or in the browser, at the link that this prints:",
        f'          echo "{link}"',
    ]


def stand_in_line(model: str, because: str) -> str:
    """Says plainly that the model is not the real one."""
    return f"STAND-IN: {model} is not here ({because}). A tiny random model answers under its name: the text is noise."


def smaller_line(model: str, instead_of: str, because: str) -> str:
    """Says plainly that another model than the stack's answers."""
    return (
        f"SMALLER MODEL: {model} answers here, under its own name, and not {instead_of} ({because}). "
        "Its text is real, but not what the stack's model would say."
    )


def versions_line(here: str, image: str) -> str:
    """vLLM's version here and the one that the stack deploys, and whether they differ."""
    deployed = image_version(image)
    if deployed is None:
        return f"vLLM {here} here; the stack deploys {image}, whose version its name does not say."
    if deployed == here.removeprefix("v").partition("+")[0]:
        return f"vLLM {here} here, the same version as the stack deploys ({image})."
    return (
        f"vLLM {here} here, but the stack deploys {deployed} ({image}): "
        "arguments, defaults and outputs may differ between the two."
    )


def image_version(image: str) -> str | None:
    """The version that an image's tag names, without its "v"; None: it names none, as `latest` or a digest."""
    tag = image.partition("@")[0].rpartition("/")[2].partition(":")[2]
    found = re.match(r"v?(\d+\.\d+[.\w]*)", tag)
    return found[1] if found else None


def banner(shown: Shown, machine: Machine, seconds: float) -> str:
    """Everything a person needs to use the endpoint."""
    minutes, rest = divmod(round(seconds), 60)
    model, base_url = shown.model, shown.base_url
    lines = [
        "",
        f"Ready after {minutes}:{rest:02d}: {model} at {base_url}, vLLM {shown.version} on {machine}",
        *([shown.model_note] if shown.model_note else []),
        versions_line(shown.version, shown.deployed_image),
        "",
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
