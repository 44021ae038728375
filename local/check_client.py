"""Tests the direct client on real vLLM; `make local-check` runs it in `.venv-engine`.

Usage: python -m local.check_client MODEL_FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

from clients.vllm_client import VLLMClient
from infra.interrupts import imported


def main(model: Path) -> str:
    """Call every method once; returns a summary.

    Raises:
        ValueError: an answer is empty, or differs from an earlier answer to the same question.
    """
    question = [{"role": "system", "content": "You are brief."}, {"role": "user", "content": "What is CUDA?"}]
    prompts = ["Once upon a time", "The future of AI"]
    with VLLMClient(str(model), max_model_len=2048, enforce_eager=True) as client:
        chat = client.chat_completion(question, temperature=0, max_tokens=12)
        text = client.text_completion(prompts[0], temperature=0, max_tokens=12)
        chats = client.batch_chat([question, question[1:]], temperature=0, max_tokens=12)
        texts = client.batch_completion(prompts, temperature=0, max_tokens=12)
    if not (chat and text and all(chats) and all(texts)):
        raise ValueError(f"an answer is empty: {[chat, text, *chats, *texts]}")
    if [chat, text] != [chats[0], texts[0]] or len(chats) != 2 or len(texts) != 2:
        raise ValueError(
            f"a batch returns other answers than single requests: {chat!r}, {chats[0]!r}; {text!r}, {texts[0]!r}"
        )
    return "chat, completion and batches answered by vllm.LLM"


if __name__ == "__main__":
    imported()  # Ctrl-C must let vLLM stop its processes
    parser = argparse.ArgumentParser(
        prog="python -m local.check_client", description="Test the direct client with a model, on real vLLM."
    )
    parser.add_argument("model", type=Path, metavar="MODEL_FOLDER", help="folder of the model")
    print(main(parser.parse_args().model))
