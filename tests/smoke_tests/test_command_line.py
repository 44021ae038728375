"""`python -m smoke_tests`: its options, its exit codes, and what it writes for programs."""

import json
from pathlib import Path

import pytest

from smoke_tests.__main__ import OF_THE_STACK, _keys, _parser, main
from smoke_tests.conformance import Conformance, run_conformance
from smoke_tests.keys_document import KeysSecret
from smoke_tests.target import Target
from tests.smoke_tests.fake_openai_server import KEY, MODEL, FakeOpenAIServer, serving

QUICKLY = ("-o", "timeout=0", "-p", "no:unraisableexception")


def blind(server: FakeOpenAIServer) -> FakeOpenAIServer:
    server.refuses_pictures = True
    return server


def test_the_results_are_written_for_a_program(tmp_path: Path) -> None:
    report, junit = tmp_path / "report.json", tmp_path / "junit.xml"
    with serving(blind(FakeOpenAIServer("is_unhealthy"))) as server:
        conformance = Conformance(Target(server.endpoint, KEY, MODEL, stack="dev"))
        code = run_conformance(
            conformance, files=("test_service.py", "test_vision.py"), junit=junit, report=report,
            pytest_arguments=(*QUICKLY, "-k", "health or models_lists or video"),
        )  # fmt: skip
    told = json.loads(report.read_text())
    assert code == told["exit_code"] == 1
    assert (told["schema_version"], told["kind"], told["stack"], told["model"]) == (1, "conformance", "dev", MODEL)
    assert (told["passed"], told["failed"], told["skipped"]) == (1, 1, 3)
    failed, passed, *skipped = told["tests"]
    assert (failed["file"], failed["name"], failed["outcome"]) == ("test_service.py", "test_health", "failed")
    assert "503" in failed["detail"]
    assert (passed["outcome"], passed["detail"]) == ("passed", "")
    assert {test["detail"] for test in skipped} == {"the model does not support video: this model takes no pictures"}
    assert KEY not in report.read_text() + junit.read_text()


def test_what_is_required_fails_where_it_would_be_skipped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    with serving(blind(FakeOpenAIServer())) as server:
        only = ["--endpoint", server.endpoint, *QUICKLY, "-k", "test_a_video_by_base64_is_read"]
        assert main(only) == 0
        assert main([*only, "--require", "video"]) == 1
    assert "--require video: this model takes no pictures" in capsys.readouterr().out


def test_what_the_plan_tells_fails_where_it_would_be_skipped(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    with serving(blind(FakeOpenAIServer())) as server:
        server.plan = {"video_limit": 1, "image_limit": 0}
        conformance = Conformance(Target(server.endpoint, KEY, MODEL))
        only = (*QUICKLY, "-k", "by_base64")
        assert run_conformance(conformance, files=("test_vision.py",), report=report, pytest_arguments=only) == 1
    outcomes = {test["name"]: (test["outcome"], test["detail"]) for test in json.loads(report.read_text())["tests"]}
    assert outcomes == {
        "test_an_image_by_base64_is_read": (
            "skipped",
            "the model does not support image: this model takes no pictures",
        ),
        "test_a_video_by_base64_is_read": (
            "failed",
            "Failed: /info reports video_limit: 1, but the endpoint refuses: this model takes no pictures",
        ),
    }


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--", "pulumi", "up"], "a command after -- is for --availability"),
        (["--availability", "-k", "stream"], "--availability does not run tests and does not support -k"),
        (["--rotate-keys"], "--rotate-keys: name the file that the gateway reads; only a stack on AWS has a secret"),
        (["--require", "hearing"], "invalid choice: 'hearing'"),
    ],
)
def test_options_that_make_no_sense_are_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--endpoint", "http://127.0.0.1:9", *arguments])
    assert ended.value.code == 2
    assert line in capsys.readouterr().err


def test_a_command_that_is_not_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    with serving(FakeOpenAIServer()) as server:
        given = ["--endpoint", server.endpoint, "--availability", "--baseline-seconds", "0", "--", "no-such-command"]
        assert main(given) == 4
    assert capsys.readouterr().err == "error: cannot run no-such-command: No such file or directory\n"


def test_the_secret_of_a_stack_is_named_by_its_outputs() -> None:
    target = Target("http://a", region="eu-west-1", outputs={"apiKeySecretArn": "arn:aws:secretsmanager:x"})
    assert isinstance(_keys(OF_THE_STACK, target, _parser()), KeysSecret)


@pytest.mark.parametrize("embeds", [True, False])
def test_an_embedding_model_generates_no_text(embeds: bool, tmp_path: Path) -> None:
    """Its tests of text are skipped; a chat model whose chat is gone fails them."""
    report = tmp_path / "report.json"
    files = ("test_embeddings.py", "test_chat_format.py", "test_stream_format.py", "test_refusals.py", "test_tools.py")
    with serving(FakeOpenAIServer()) as server:
        server.generates, server.embeds = False, embeds
        conformance = Conformance(Target(server.endpoint, KEY, MODEL))
        code = run_conformance(conformance, files=files, report=report, pytest_arguments=QUICKLY)
        required = Conformance(Target(server.endpoint, KEY, MODEL), frozenset({"text"}))
        assert run_conformance(required, files=files[1:2], pytest_arguments=(*QUICKLY, "-k", "test_an_answer")) == 1
    told = json.loads(report.read_text())
    assert code == (0 if embeds else 1)
    assert (told["failed"] == 0) == embeds
    why = "the model does not support text: This model does not support /v1/chat/completions."
    skipped = {test["file"] for test in told["tests"] if test["detail"] == why}
    assert skipped == (set(files) - {"test_embeddings.py"} if embeds else set())
    passed = {test["file"] for test in told["tests"] if test["outcome"] == "passed"}
    assert ("test_embeddings.py" in passed) == embeds
