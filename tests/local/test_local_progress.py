"""The progress output: on a terminal one updating line, elsewhere a line at least every 15 s."""

import io

from local.progress import Progress


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_come_at_each_phase_and_every_fifteen_seconds() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(stream, clock=clock)
    progress.phase("install", "vLLM")
    for _ in range(320):
        clock.now += 0.125
        progress.detail("fetching torch")
    progress.phase("load")
    clock.now += 61
    progress.end("it answers")
    assert stream.getvalue().splitlines() == [
        "[0:00] install  vLLM",
        "[0:15] install  fetching torch (15 s)",
        "[0:30] install  fetching torch (30 s)",
        "[0:40] install  done in 40 s",
        "[0:40] load     ",
        "[1:41] load     done in 61 s: it answers",
    ]
    assert progress.seconds == {"install": 40.0, "load": 61.0}


def test_a_terminal_gets_one_line_a_phase_that_is_written_over() -> None:
    clock, stream = Clock(), Terminal()
    progress = Progress(stream, clock=clock)
    progress.phase("load", "vLLM starts")
    for _ in range(30):
        clock.now += 0.1
        progress.tick()
    progress.fail("it died")
    shown = stream.getvalue()
    assert shown.count("\n") == 1
    assert shown.count("\r\x1b[K") >= 10
    assert shown.endswith("\r\x1b[Kerror: load: it died\n")


def test_a_phase_that_comes_back_adds_up() -> None:
    clock = Clock()
    progress = Progress(io.StringIO(), started=990.0, clock=clock)
    for name in ("load", "compile", "load"):
        progress.phase(name)
        clock.now += 5
    progress.end()
    assert progress.seconds == {"load": 10.0, "compile": 5.0}
    assert progress.elapsed() == 25.0
