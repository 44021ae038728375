"""Measures through the endpoint, without a tokenizer, how many tokens a text has, and whether `ignore_eos` is supported."""

import random
from dataclasses import replace

import httpx2

from smoke_tests.benchmark.timeline import body_message
from smoke_tests.benchmark.workload import VOCABULARY, TokenScale, Workload, request_body
from smoke_tests.connections import sync_client
from smoke_tests.errors import TargetError
from smoke_tests.target import Target

PROBE_WORDS = (16, 128)
PROBE_CHARACTERS = (200, 2000)
TIMEOUT_SECONDS = 300.0


def calibrate(target: Target, workload: Workload) -> Workload:
    """Return the workload with its token scale, from two short requests of known length.

    Without vLLM's `ignore_eos` answers end where the model likes, so it is left on only where the endpoint takes it.
    Raises TargetError if the endpoint does not answer.
    """
    with sync_client(target, timeout=TIMEOUT_SECONDS) as http:
        try:
            if _probe(http, workload, "hello").status_code == 400:
                workload = replace(workload, ignore_eos=False)
            (short, few), (long, many) = (
                (units, _tokens(_probe(http, workload, text))) for units, text in _texts(workload)
            )
        except httpx2.TransportError as error:
            raise TargetError(
                f"{target.endpoint} closed the connection during a probe: {type(error).__name__}: {error}"
            ) from None
    per_unit = (many - few) / (long - short) if long > short else 0.0
    if per_unit <= 0:
        return workload
    return replace(workload, scale=TokenScale(per_unit, few - short * per_unit))


def _texts(workload: Workload) -> list[tuple[int, str]]:
    if workload.data_file:
        whole = " ".join(entry.answer or entry.prompt for entry in workload.data_file.entries[:100])
        return [(min(size, len(whole)), whole[:size]) for size in PROBE_CHARACTERS]
    source = random.Random(f"{workload.seed}/{workload.nonce}/probe")  # noqa: S311
    return [(count, " ".join(source.choices(VOCABULARY, k=count))) for count in PROBE_WORDS]


def _probe(http: httpx2.Client, workload: Workload, text: str) -> httpx2.Response:
    messages = ({"role": "user", "content": text},)
    body = request_body(workload.model, workload.api, messages, 1, workload.temperature)
    return http.post(workload.path, json=body | ({"ignore_eos": True} if workload.ignore_eos else {}))


def _tokens(response: httpx2.Response) -> int:
    if response.status_code != 200:
        raise TargetError(
            f"the endpoint refused a probe: HTTP {response.status_code}: {body_message(response.content)}"
        )
    try:
        return int(response.json()["usage"]["prompt_tokens"])
    except (ValueError, KeyError, TypeError):
        raise TargetError(f"the endpoint answered a probe without usage: {response.text[:200]}") from None
