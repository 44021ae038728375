"""What is printed when it is ready: lines that work as printed, from any folder, with no key in them."""

from __future__ import annotations

import json
import shlex

from image.local import folders
from image.local.machine import Machine

MAX_TOKENS = 64


def curl_line(base_url: str, model: str) -> str:
    """A command for the shell. The key is in a file that curl reads, so that nobody sees it in the process list."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": MAX_TOKENS}
    headers = shlex.quote(f"@{folders.CURL_HEADERS}")
    return f"curl -sS {base_url}/chat/completions -H {headers} -d {shlex.quote(json.dumps(body))}"


def sdk_lines(base_url: str, model: str) -> str:
    """A program for Python with the OpenAI SDK."""
    return f"""\
from pathlib import Path
from openai import OpenAI

client = OpenAI(base_url={base_url!r}, api_key=Path({str(folders.API_KEY)!r}).read_text().strip())
answer = client.chat.completions.create(
    model={model!r}, messages=[{{"role": "user", "content": "Hello!"}}], max_tokens={MAX_TOKENS}
)
print(answer.choices[0].message.content)"""


def chat_lines(base_url: str) -> list[str]:
    """The ways to chat. The key comes from its file into the link's fragment, which browsers never send."""
    link = f"{base_url.removesuffix('/v1')}/#key=$(cat {shlex.quote(str(folders.API_KEY))})"
    return ["make chat", f'echo "{link}"  # the chat page: open the link that this prints']


def stand_in_line(model: str, because: str) -> str:
    """Says plainly that the model is not the real one."""
    return f"STAND-IN: {model} is not here ({because}). A tiny random model answers under its name: the text is noise."


def banner(base_url: str, model: str, version: str, machine: Machine, seconds: float, stand_in_because: str) -> str:
    """Everything a person needs to use the endpoint."""
    minutes, rest = divmod(round(seconds), 60)
    lines = [
        "",
        f"Ready after {minutes}:{rest:02d}: {model} at {base_url}, vLLM {version} on {machine}",
        *([stand_in_line(model, stand_in_because)] if stand_in_because else []),
        "",
        *chat_lines(base_url),
        "",
        curl_line(base_url, model),
        "",
        f"# Python; {folders.LOCAL_ENVIRONMENT}/bin/python has the SDK",
        sdk_lines(base_url, model),
        "",
        f"The API key is in {folders.API_KEY}, logs are in {folders.LOGS}. Ctrl-C stops.",
    ]
    return "\n".join(lines)
