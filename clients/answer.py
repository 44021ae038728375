"""An answer that arrives in pieces, on a terminal or in a pipe."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from infra.terminal import paint
from smoke_tests.progress import ProgressLine

# The text of a model must not move the cursor or set the terminal's title.
CONTROL = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}

SAME_MOMENT_SECONDS = 0.002
# The speed of a shorter answer says more about the network than about the model.
SHORTEST_SECONDS = 0.01


def printable(text: str) -> str:
    """The text without control characters, for a terminal. Servers' names and errors are not trusted either."""
    return text.translate(CONTROL)


class Answer:
    """An answer as it arrives, and its speed."""

    def __init__(self) -> None:
        self.text, self.end = "", ""
        self.tokens: int | None = None
        self._chunks = 0
        self._thinking = self._open = self._thought = False
        self._started = self._last = time.monotonic()
        self._first: float | None = None
        self._characters = self._first_characters = 0

    def read(self, chunk: Any) -> Iterator[tuple[str, bool]]:
        """The pieces of text in a chunk, and whether each is reasoning rather than the answer."""
        if chunk.usage is not None:
            self.tokens = chunk.usage.completion_tokens
        for choice in chunk.choices:
            self.end = choice.finish_reason or self.end
            delta = choice.delta
            thought = getattr(delta, "reasoning", None) or getattr(delta, "reasoning_content", None)
            for text, is_thought in ((thought, True), (delta.content, False)):
                if text:
                    self._last = time.monotonic()
                    self._first = self._first or self._last
                    self._chunks += 1
                    self._characters += len(text)
                    # Chunks that a network or a busy machine merged are read at once.
                    if self._last - self._first < SAME_MOMENT_SECONDS:
                        self._first_characters += len(text)
                    yield text, is_thought

    def show(self, text: str, thought: bool) -> None:
        """Print a piece. Reasoning is shown to a person only."""
        terminal = sys.stdout.isatty()
        if not thought:
            self.text += text
        else:
            self._thought = True
            if not terminal:
                return
        if self._thinking and not thought:
            print("\n")
        shown = printable(text) if terminal else text
        print(paint(shown, "dim") if thought else shown, end="", flush=True)
        self._thinking, self._open = thought, True

    def close(self) -> None:
        """End the last line."""
        if self._open:
            print(flush=True)
            self._open = False

    def figures(self, max_tokens: int) -> str:
        """How long it took, in one line."""
        if self._first is None:
            return "stopped before the first token" if self.end == "stopped" else "the answer is empty"
        if self._thought and not self.text and self.end == "length":
            return f"max_tokens ({max_tokens}) was reached during the reasoning, before the answer; set a larger MAX_TOKENS"
        count = self.tokens or self._chunks
        seconds = self._last - self._first
        later = count * (1 - self._first_characters / self._characters)
        rate = f", {later / seconds:.1f} tokens/s" if later and seconds >= SHORTEST_SECONDS else ""
        end = {"stopped": ", stopped", "length": f", cut off at {max_tokens} tokens"}.get(self.end, "")
        return (
            f"{'' if self.tokens else 'about '}{count} tokens{rate}, "
            f"first token after {self._first - self._started:.2f} s{end}"
        )


class Waiting:
    """A line that shows the reason and the duration of the wait for the first token."""

    def __init__(self, info: Callable[[], Mapping[str, Any]]) -> None:
        self._info, self._line = info, ProgressLine()
        self._lock, self._ended = threading.Lock(), threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        started, what, asked = time.monotonic(), "", 0.0
        while not self._ended.wait(0.2):
            seconds = time.monotonic() - started
            if seconds < 1:
                continue
            if not what or seconds - asked >= 2:
                cold = self._info().get("state") in ("cold", "waking")
                what, asked = "waking the engine" if cold else "waiting for the answer", seconds
            with self._lock:
                if not self._ended.is_set():
                    self._line.update(paint(f"{what}, {time.monotonic() - started:.0f} s", "dim", sys.stderr))

    def end(self) -> None:
        """Remove the line."""
        if not self._ended.is_set():
            with self._lock:
                self._ended.set()
                self._line.close()
