"""Phrases that were removed because no reader searches for them. docs/decisions/0017 has the words to use instead."""

import pytest

from tests.test_repository import ROOT, tracked

PHRASES = (
    "and mend what",
    "was not to be had",
    "What was mended",
    "must be told by that rule",
    "laid beside a price list",
    "thrown away, written anew",
    "what is torn said",
    "tells its own CPU share",
    "of which none runs",
    "lies amid",
    "Who would rather have",
    "is still taken before none",
    "Heads that drip",
    "after which it will not be",
    "should nothing have come of it",
    "A phase whose end nobody tells",
    "has not its form",
    "and asks nobody",
    "silence is not idleness",
    "it cannot hang for want of one",
    "They are told with their price",
    "never a mere beginning",
    "add up unseen",
    "neither goes on with a broken",
    "asleep when nobody asks",
    "is somebody else's, whatever its name",
    "Where weights cannot be had",
    "A request that comes while nothing runs",
    "gone on with",
    "given last, so that they win",
    "where the model sees",
    "turns the stack to zero",
    "reads weights for nothing",
    "Say once more that",
    "whoever waits longer for an answer",
    "those who use the endpoint",
    "tells nothing of it",
    "its word on clients counts",
    "What somebody should know",
    "is nothing that AWS takes",
    "so that nobody takes the figure",
    "a program that is sound but for",
    "what runs the engine is not there",
    "it fails while it starts",
    "answer as it should",
    "read from where they are",
    "no hop may make a heap",
    "what drips, floods or stalls",
    "for want of memory",
    "who waits is told why",
    "that nobody reads half of it",
    "how near a guess was",
    "where memory and descriptors where they were",
    "in the engine's place: keeps every body",
    "headers that nobody made",
    "of which vLLM runs one",
    "the key stands in no command line",
    "leaves frees its place",
    "whatever the model is worth",
    "is no whole number from",
    "what others are held against",
    "what is wrong need not be fast",
    "is no daily pattern",
    "what makes no sense to compare",
    "told no ledger",
    "asks anything",
    "nothing was verified before",
    "kept on purpose (protect)",
    "cannot be told from yours",
    "until AWS takes it away",
    "wait for others to go",
    "judges all the same",
    "holds two records against each other",
    "read and written here and nowhere else",
    "None where nobody told",
    "moments they arrived, turned into figures",
    "Return what came of",
    "What the measuring itself took",
    "whoever runs it there ends it",
    "what Ctrl-C leaves of it",
    "tells one content from another",
    "that others begin with, too",
    "the same seed, the same ones",
)
# The word list quotes what it replaces; this file, too.
QUOTES = ("docs/decisions/0017-one-word-for-one-thing.md", "tests/test_prose.py")


def found(text: str) -> list[str]:
    """The phrases in a text, whatever its line breaks and capitals."""
    words = " ".join(text.split()).lower()
    return [phrase for phrase in PHRASES if phrase.lower() in words]


@pytest.mark.parametrize("phrase", PHRASES)
def test_a_removed_phrase_is_found(phrase: str) -> None:
    assert found(f"Text before,\n{phrase.replace(' ', chr(10))} and after.") == [phrase]


def test_no_removed_phrase_comes_back() -> None:
    texts = [
        path
        for path in tracked("*.md", "*.py", "*.yaml", "Makefile", "*.html", "*.json")
        if path.stat().st_size < 200_000
    ]
    back = {
        str(path.relative_to(ROOT)): phrases
        for path in texts
        if str(path.relative_to(ROOT)) not in QUOTES and (phrases := found(path.read_text(encoding="utf-8")))
    }
    assert len(texts) > 400
    assert back == {}
