"""The record of a benchmark: a JSON document with a schema version. Only this module reads and writes it.

`read_record` and `write_record` are the whole interface; `Record` and its parts are values. Figures carry vLLM bench's
own names. `None` always means "not known" or "no value", never zero.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from infra.output_file import OutputError, write
from infra.web_address import redact
from smoke_tests.errors import TargetError

KIND = "vllm-endpoint benchmark"
# Incremented when a key changes its meaning or is removed; not for a new key.
SCHEMA_VERSION = 2

Spread = Annotated[float | None, Field(default=None, ge=0)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class RecordError(TargetError):
    """A file cannot be read as a record; the message gives the reason in one line."""


class Part(BaseModel):
    """A part of a record. Immutable; unknown keys are ignored, NaN is rejected."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, protected_namespaces=())


class Deployment(Part):
    """What was measured: the stack's configuration, the model, the engine, the hardware.

    `config` is the stack's settings without secrets and `config_hash` a digest of them; both None for a bare endpoint.
    """

    endpoint: Annotated[str, AfterValidator(redact)]  # records of older versions may contain a password
    model: str
    stack: str | None = None
    model_revision: str | None = None
    engine_version: str | None = None
    engine_arguments: tuple[str, ...] | None = None
    engine_image: str | None = None
    gateway_version: str | None = None
    gpu: str | None = None
    gpu_count: int | None = None
    instance_type: str | None = None
    region: str | None = None
    runs_on: str | None = None
    stand_in: bool = False
    max_model_len: int | None = None
    concurrency_per_replica: int | None = None
    config: dict[str, Any] | None = None
    config_hash: str | None = None


class Lengths(Part):
    """Tokens: uniformly distributed from `low` to `high`; a fixed length if both are equal."""

    low: Annotated[int, Field(ge=1)]
    high: Annotated[int, Field(ge=1)]

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low} to {self.high}"


class Dataset(Part):
    """The data file that prompts and answer lengths came from, by name and content."""

    name: str
    sha256: str
    entries: Count


class Workload(Part):
    """The requests. Lengths are None if the dataset defines them; `shared_prefix_tokens` are added to the prompt."""

    api: Literal["chat", "completions"]
    prompt_tokens: Lengths | None
    output_tokens: Lengths | None
    dataset: Dataset | None = None
    shared_prefix_tokens: Count = 0
    shared_prefixes: Count = 0
    ignore_eos: bool = False
    temperature: float = 0.0
    seed: int = 0
    same_prompts: bool | None = None


class Load(Part):
    """One point of a sweep: a concurrency (closed loop), or a request rate (open loop)."""

    mode: Literal["closed", "open"]
    concurrency: int | None = None
    request_rate: float | None = None
    burstiness: float | None = None
    requests: int | None = None
    duration_seconds: float | None = None
    warmup_requests: Count = 0

    @property
    def label(self) -> str:
        """Its name in reports; equal for loads that may be compared."""
        if self.mode == "closed":
            return f"{self.concurrency} at once"
        bursty = "" if self.burstiness in (None, 1.0) else f" (burstiness {self.burstiness:g})"
        return f"{self.request_rate:g} requests/s{bursty}"


class Figures(Part):
    """A run in vLLM bench's names and formulas; times and tokens are of the requests that succeeded.

    `duration` in seconds; throughputs a second; the rest as named. The last ones are the same figures under the names
    of simpler benchmarks. `merged_chunk_share` is the share of the gaps between chunks that were read together, which say
    nothing about the time between tokens. `request_goodput` is None without an SLO. None in the fields after `failed`
    means unknown: an earlier version wrote the record, or the endpoint does not report it.
    """

    duration: float
    completed: Count
    failed: Count
    client_errors: Count = 0
    wanted_output_tokens: Count | None = None
    short_answers: Count | None = None
    tokens_per_chunk: float | None = None
    merged_chunk_share: float | None = None
    without_tpot: Count | None = None
    cached_prompt_tokens: Count | None = None
    total_input_tokens: Count
    total_output_tokens: Count
    request_throughput: float
    output_throughput: float
    total_token_throughput: float
    request_goodput: float | None = None
    mean_ttft_ms: Spread
    median_ttft_ms: Spread
    std_ttft_ms: Spread
    p90_ttft_ms: Spread
    p99_ttft_ms: Spread
    mean_tpot_ms: Spread
    median_tpot_ms: Spread
    std_tpot_ms: Spread
    p90_tpot_ms: Spread
    p99_tpot_ms: Spread
    mean_itl_ms: Spread
    median_itl_ms: Spread
    std_itl_ms: Spread
    p90_itl_ms: Spread
    p99_itl_ms: Spread
    mean_e2el_ms: Spread
    median_e2el_ms: Spread
    std_e2el_ms: Spread
    p90_e2el_ms: Spread
    p99_e2el_ms: Spread
    tps: float
    p50_latency_ms: Spread
    p99_latency_ms: Spread
    avg_latency_ms: Spread
    success_rate: Share


class TokenPrices(Part):
    """US dollars per million tokens. Input and output prices add up to the bill; `total` is a single price for both."""

    usd_per_million_input_tokens: float | None
    usd_per_million_output_tokens: float | None
    usd_per_million_total_tokens: float | None


class DailyCost(TokenPrices):
    """The same including a day's idle hours: active hours and cold starts per day, and the cost of the day."""

    pattern: str
    busy_hours: float
    active_hours: float
    idle_hours: float
    cold_starts: float
    usd_per_day: float


class Cost(TokenPrices):
    """The cost of the measured load: at `usd_per_hour` (all ready replicas), and including the idle hours."""

    usd_per_hour: float
    with_idle_hours: DailyCost | None = None


class Prices(Part):
    """What the costs were computed from.

    `usd_per_hour_active` pays for `replicas_in_active`, each further one costs `usd_per_hour_replica`.
    `output_to_input_price`: how many times an output token costs an input token.
    """

    usd_per_hour_active: float
    replicas_in_active: int = 1
    usd_per_hour_idle: float | None = None
    usd_per_hour_replica: float | None = None
    usd_per_cold_start: float | None = None
    scale_down_seconds: float | None = None
    priced_on: str | None = None
    source: str
    output_to_input_price: float


class Failure(Part):
    """Requests with the same kind of failure, and the first one's error message."""

    count: Count
    example: str


class Client(Part):
    """The client's overhead: CPU of one core, delay of its clock, delay of its requests."""

    cpu_share: float
    cpu_seconds: float
    cpu_seconds_per_request: float
    loop_lag_p99_ms: float
    send_delay_p99_ms: float
    warning: str = ""


class Samples(Part):
    """The requests, a column each: entry i of every list is request i, in order of their (intended) sending.

    Milliseconds; `start_ms` from the start of the run. Times are None and `failure` names the kind where one failed.
    """

    start_ms: tuple[float, ...]
    ttft_ms: tuple[float | None, ...]
    e2el_ms: tuple[float | None, ...]
    prompt_tokens: tuple[int, ...]
    output_tokens: tuple[int, ...]
    failure: tuple[str, ...]


class Timeline(Part):
    """Output tokens that arrived in each stretch of `bucket_seconds`, from the start of the run."""

    bucket_seconds: float
    tokens: tuple[float, ...]


class Measurement(Part):
    """One load and its results. `replicas`: ready replicas at its end, None if unknown."""

    load: Load
    started: str
    interrupted: bool = False
    replicas: int | None = None
    figures: Figures
    cost: Cost | None = None
    failures: dict[str, Failure] = {}
    client: Client
    samples: Samples
    timeline: Timeline


class Phase(Part):
    """One line of the gateway's cold start ledger."""

    phase: str
    seconds: float
    source: str


class ColdStart(Part):
    """A cold start: seconds until the client received its first token, and the gateway's ledger of them.

    `ledger_seconds` and `phases` are None if the gateway reported none; `note` has the reason.
    """

    seconds_to_first_token: float
    ledger_seconds: float | None = None
    phases: tuple[Phase, ...] | None = None
    note: str = ""


class Tool(Part):
    """What measured: this package, Python, the platform, a digest of the machine's identity, and the options."""

    version: str
    python: str
    platform: str
    machine: str | None = None
    options: dict[str, Any]


class Record(Part):
    """A benchmark: the deployment, the method, and the figures of each load."""

    kind: Literal["vllm-endpoint benchmark"] = "vllm-endpoint benchmark"
    schema_version: Literal[2] = 2
    date: str
    tool: Tool
    deployment: Deployment
    workload: Workload
    goodput_slos_ms: dict[str, float] = {}
    prices: Prices | None = None
    cold_start: ColdStart | None = None
    measurements: tuple[Measurement, ...]
    interrupted: bool = False
    notes: tuple[str, ...] = ()


def parse_record(text: str, name: str) -> Record:
    """Return the record in `text`; `name` is its name in errors. Raises RecordError."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise RecordError(f"{name} is not JSON: {error}") from None
    except RecursionError:
        raise RecordError(f"{name} is not a benchmark record: its JSON is nested too deeply") from None
    if not isinstance(document, dict) or document.get("kind", KIND) != KIND or "schema_version" not in document:
        raise RecordError(
            f"{name} is not a benchmark record; make one: python -m smoke_tests.benchmark ... --json FILE"
        )
    version = document["schema_version"]
    if version != SCHEMA_VERSION:
        newer = isinstance(version, int) and version > SCHEMA_VERSION
        what = "use the version that wrote it, or a newer one" if newer else "run the benchmark again"
        raise RecordError(f"{name} has schema version {version!r}, this version reads {SCHEMA_VERSION}; {what}")
    try:
        return Record.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise RecordError(f"{name} is damaged: {where}: {first['msg']}{more}") from None


def read_record(path: Path) -> Record:
    """Return the record in the file; `-` is standard input. Raises RecordError."""
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        text = data.decode("utf-8-sig")  # PowerShell writes a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RecordError(f"cannot read {path}: {reason}") from None
    return parse_record(text, str(path))


def as_text(record: Record) -> str:
    """Return the record as JSON: a line for each key, and one for each measurement, so that it stays small."""
    document = record.model_dump(mode="json")
    measurements = document.pop("measurements")
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in document.items()]
    points = ",\n".join(json.dumps(point, ensure_ascii=False, separators=(",", ":")) for point in measurements)
    return "{\n" + ",\n".join([*lines, f'"measurements": [\n{points}\n]']) + "\n}\n"


def write_record(record: Record, path: Path) -> None:
    """Write a record to a file, or to standard output if that fails. Raises RecordError, once the record is printed."""
    try:
        write(path, as_text(record))
    except OutputError as error:
        raise RecordError(str(error)) from None
