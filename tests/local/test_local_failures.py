"""The reason of a failure is the line that explains it, not the last line."""

import signal

import pytest

from local.failures import reason

VLLM = """\
(APIServer pid=7) INFO 11-21 01:57:49 [model.py:733] Resolved architecture: Qwen3ForCausalLM
(EngineCore pid=9) ERROR 11-21 01:58:11 [core.py:1184] EngineCore failed to start.
(EngineCore pid=9) ERROR 11-21 01:58:11 [core.py:1184] Traceback (most recent call last):
(EngineCore pid=9) ERROR 11-21 01:58:11 [core.py:1184]   File "x.py", line 1, in __init__
(EngineCore pid=9) ERROR 11-21 01:58:11 [core.py:1184] ValueError: To serve at least one request, 9 GiB is needed
(APIServer pid=7) Traceback (most recent call last):
(APIServer pid=7)   File "y.py", line 2, in <module>
(APIServer pid=7) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""


@pytest.mark.parametrize(
    ("output", "code", "expected"),
    [
        (VLLM, 1, "ValueError: To serve at least one request, 9 GiB is needed"),
        ("api_server.py: error: unrecognized arguments: --frobnicate\n", 2, "unrecognized arguments: --frobnicate"),
        ("gateway: GATEWAY_PORT 'x' is not a whole number\n", 2, "GATEWAY_PORT 'x' is not a whole number"),
        ("ERROR: Could not find a version that satisfies the requirement nosuch==1 (from versions: none)\n", 1,
         "pip finds no nosuch==1 for this Python and machine"),
        ("WARNING: Retrying ... NewConnectionError('x')\nERROR: No matching distribution found for a\n", 1,
         "the package index cannot be reached. Check the network; behind a proxy, set HTTPS_PROXY"),
        ("OSError: [Errno 28] No space left on device\n", 1, "the disk is full"),
        ("RuntimeError: Engine process died\n", 128 + signal.SIGKILL,
         "it was killed (SIGKILL), manually or by the kernel because memory ran out"),
        ("", 128 + signal.SIGSEGV, "it was terminated by SIGSEGV"),
        ("", 3, "it exited with code 3 and no output"),
        ("still working\n", None, "it timed out"),
        ("FAILED smoke_tests/test_a.py::test_b - assert 1 == 2\n=== 1 failed ===\n", 1,
         "smoke_tests/test_a.py::test_b - assert 1 == 2"),
    ],
)  # fmt: skip
def test_reason(output: str, code: int | None, expected: str) -> None:
    assert reason(output, code) == expected
