"""The conformance tests, tested: a right endpoint passes all of them, a wrong one fails the test that is there for it."""

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from smoke_tests.conformance import run_conformance
from smoke_tests.target import Target
from tests.smoke_tests.fake_openai_server import FAULTS, KEY, MODEL, FakeOpenAIServer, serving

REPOSITORY = Path(__file__).resolve().parents[2]

# fault: (test file, the tests in it that fail). Nothing else in that file may fail with it.
CAUGHT_BY: dict[str, tuple[str, set[str]]] = {
    "is_unhealthy": ("test_service", {"test_health"}),
    "info_names_another_model": ("test_service", {"test_info_names_the_model"}),
    "info_shows_the_key": ("test_service", {"test_info_names_the_model"}),
    "lists_another_model": ("test_service", {"test_models_lists_the_model"}),
    "leaks_metrics": ("test_service", {"test_forbidden_path_is_404[/metrics-GET]"}),
    "leaks_tokenize": ("test_service", {"test_forbidden_path_is_404[/tokenize-POST]"}),
    "accepts_any_key": ("test_keys", {f"test_wrong_key_is_401[{key}]" for key in ("another", "longer", "short")}),
    "accepts_longer_keys": ("test_keys", {"test_wrong_key_is_401[longer]"}),
    "accepts_no_key": ("test_keys", {"test_missing_key_is_401"}),
    "refuses_keys_with_403": (
        "test_keys",
        {"test_missing_key_is_401"} | {f"test_wrong_key_is_401[{key}]" for key in ("another", "longer", "short")},
    ),
    "forgets_the_conversation": ("test_completions", {"test_chat_reads_the_whole_conversation"}),
    "ignores_max_tokens": ("test_completions", {"test_max_tokens_is_respected[1]", "test_max_tokens_is_respected[7]"}),
    "hides_how_much_it_says": (
        "test_completions",
        {"test_max_tokens_is_respected[1]", "test_max_tokens_is_respected[7]"},
    ),
    "refuses_parallel_requests": ("test_completions", {"test_eight_at_once"}),
    "reuses_answer_ids": ("test_completions", {"test_eight_at_once"}),
    "mixes_up_answers": ("test_completions", {"test_eight_at_once"}),
    "makes_its_own_request_id": ("test_completions", {"test_request_id_is_echoed"}),
    "repeats_request_ids": ("test_completions", {"test_request_id_is_made_where_none_is_sent"}),
    "serves_any_model": ("test_completions", {"test_wrong_model_is_404"}),
    "accepts_bad_parameters": (
        "test_completions",
        {f"test_bad_parameter_is_400[{name}]" for name in ("temperature", "max_tokens", "messages", "top_p")},
    ),
    "cuts_long_prompts": ("test_completions", {"test_context_overflow_is_400"}),
    "fails_on_malformed_json": ("test_completions", {"test_malformed_json_is_400"}),
    "answers_as_another_model": ("test_completions", {"test_chat_answers", "test_completions_answers"}),
    "counts_wrong": ("test_completions", {"test_chat_answers", "test_completions_answers"}),
    "buffers_the_stream": ("test_streaming", {"test_stream_chunks_arrive_as_they_are_made"}),
    "drops_done": ("test_streaming", {"test_stream_ends_with_done"}),
    "drops_usage": ("test_streaming", {"test_stream_usage_comes_last", "test_completions_stream"}),
    "repeats_usage": ("test_streaming", {"test_stream_usage_comes_last"}),
    "completions_stream_without_usage": ("test_streaming", {"test_completions_stream"}),
    "reorders_the_stream": ("test_streaming", {"test_stream_says_what_the_whole_answer_says"}),
    "loses_part_of_the_stream": (
        "test_streaming",
        {"test_stream_says_what_the_whole_answer_says"},
    ),
    "drops_the_finish_reason": ("test_streaming", {"test_stream_is_in_order"}),
    "changes_ids_within_a_stream": ("test_streaming", {"test_stream_is_in_order"}),
    "streams_no_role": ("test_streaming", {"test_stream_is_in_order"}),
}
# Faults that break nearly everything: one test each that must be among those that fail.
BREAKS_MUCH = {
    "answers_200_with_an_error": ("test_completions", "test_chat_answers"),
    "answers_nothing": ("test_completions", "test_chat_answers"),
    "streams_as_json": ("test_streaming", "test_stream_ends_with_done"),
    "refuses_in_plain_text": ("test_service", "test_forbidden_path_is_404[/docs-GET]"),
}


def run_file(server: FakeOpenAIServer, file: str, folder: Path) -> dict[str, str]:
    """Run one file of the conformance tests against `server`; return each test's outcome by its name."""
    report = folder / "junit.xml"
    target = Target(server.endpoint, KEY, MODEL)
    # Without a timeout of its own: it would end the timeout of the test that this runs in.
    run_conformance(target, report, ["-o", "timeout=0", "-k", f"{file}.py"])
    outcomes = {}
    for case in ET.parse(report).getroot().iter("testcase"):  # noqa: S314
        tags = {child.tag for child in case}
        outcomes[str(case.get("name"))] = (
            "failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"
        )
    return outcomes


def failed(outcomes: dict[str, str]) -> set[str]:
    return {name for name, outcome in outcomes.items() if outcome == "failed"}


def test_every_fault_is_named() -> None:
    assert set(CAUGHT_BY) | set(BREAKS_MUCH) == FAULTS


@pytest.mark.parametrize("fault", CAUGHT_BY)
def test_a_fault_fails_its_own_test(fault: str, tmp_path: Path) -> None:
    file, expected = CAUGHT_BY[fault]
    # Slow enough that a buffer delays the first chunk by more than this machine's own hiccups.
    token_seconds = 0.002 if fault == "buffers_the_stream" else 0.0002
    with serving(FakeOpenAIServer(fault, token_seconds=token_seconds)) as server:
        assert failed(run_file(server, file, tmp_path)) == expected


@pytest.mark.parametrize("fault", BREAKS_MUCH)
def test_a_broad_fault_fails_the_test_that_names_it(fault: str, tmp_path: Path) -> None:
    file, expected = BREAKS_MUCH[fault]
    with serving(FakeOpenAIServer(fault)) as server:
        assert expected in failed(run_file(server, file, tmp_path))


def smoke_tests(*arguments: str, key: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin"} | ({"VLLM_API_KEY": key} if key else {})
    return subprocess.run(
        [sys.executable, "-m", "smoke_tests", *arguments],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_right_endpoint_passes_and_the_key_shows_nowhere(tmp_path: Path) -> None:
    report = tmp_path / "junit.xml"
    with serving(FakeOpenAIServer()) as server:
        done = smoke_tests("--endpoint", f"{server.endpoint}/v1/", "--junit", str(report), key=KEY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{server.endpoint} serves {MODEL}" in done.stdout
    assert "no API key was given" not in done.stdout
    suite = next(ET.parse(report).getroot().iter("testsuite"))  # noqa: S314
    assert int(str(suite.get("tests"))) >= 40
    assert KEY not in done.stdout + done.stderr + report.read_text()


def test_a_wrong_endpoint_exits_1_and_the_key_shows_nowhere(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(f'{{"default": "{KEY}"}}')
    with serving(FakeOpenAIServer("accepts_any_key")) as server:
        done = smoke_tests("--endpoint", server.endpoint, "--api-key-file", str(key_file), "-k", "key or chat")
    assert done.returncode == 1
    assert "FAILED" in done.stdout
    assert KEY not in done.stdout + done.stderr


def test_only_the_key_tests_are_skipped_without_keys(tmp_path: Path) -> None:
    with serving(FakeOpenAIServer(api_key=None)) as server:
        done = smoke_tests("--endpoint", server.endpoint, "-k", "key or health or models")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("SKIPPED") >= 1
    assert "no API key was given and the endpoint answers without one" in done.stdout
    assert "2 passed, 4 skipped" in done.stdout
