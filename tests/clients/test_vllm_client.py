"""The direct client hands vLLM what it was given, and gives text back. (On real vLLM: `make local-check`.)"""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from clients.vllm_client import VLLMClient

QUESTION = [{"role": "user", "content": "What is CUDA?"}]


class FakeLLM:
    """Records what vllm.LLM is called with; answers by repeating."""

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.calls: list[Any] = []
        self.shut_down = 0
        self.llm_engine = SimpleNamespace(engine_core=SimpleNamespace(shutdown=self._shutdown))

    def _shutdown(self) -> None:
        self.shut_down += 1

    def chat(self, conversations: list[list[dict[str, Any]]], sampling_params: Any, use_tqdm: bool) -> list[Any]:
        self.calls.append(("chat", conversations, sampling_params, use_tqdm))
        return [answer(f"to {messages[-1]['content']}") for messages in conversations]

    def generate(self, prompts: list[str], sampling_params: Any, use_tqdm: bool) -> list[Any]:
        self.calls.append(("generate", prompts, sampling_params, use_tqdm))
        return [answer(f"after {prompt}") for prompt in prompts]


def answer(text: str) -> SimpleNamespace:
    return SimpleNamespace(outputs=[SimpleNamespace(text=text)])


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> VLLMClient:
    module = ModuleType("vllm")
    vars(module).update(LLM=FakeLLM, SamplingParams=dict)
    monkeypatch.setitem(sys.modules, "vllm", module)
    return VLLMClient("a/model", gpu_memory_utilization=0.8, max_model_len=2048, seed=7)


def test_engine_arguments(client: VLLMClient) -> None:
    assert client._llm.arguments == {
        "model": "a/model", "gpu_memory_utilization": 0.8, "max_model_len": 2048, "tensor_parallel_size": 1,
        "trust_remote_code": False, "seed": 7,
    }  # fmt: skip


def test_chat_completion(client: VLLMClient) -> None:
    assert client.chat_completion(messages=QUESTION, top_p=0.9, stop=["END"]) == "to What is CUDA?"
    sampling = {"temperature": 0.7, "max_tokens": 512, "top_p": 0.9, "stop": ["END"]}
    assert client._llm.calls == [("chat", [QUESTION], sampling, False)]


def test_text_completion(client: VLLMClient) -> None:
    assert client.text_completion("Once", temperature=0.0, max_tokens=8, presence_penalty=0.5) == "after Once"
    sampling = {"temperature": 0.0, "max_tokens": 8, "presence_penalty": 0.5}
    assert client._llm.calls == [("generate", ["Once"], sampling, False)]


def test_batches_are_one_call_and_keep_their_order(client: VLLMClient) -> None:
    other = [{"role": "user", "content": "And ROCm?"}]
    assert client.batch_chat([QUESTION, other]) == ["to What is CUDA?", "to And ROCm?"]
    assert client.batch_completion(["a", "b", "c"]) == ["after a", "after b", "after c"]
    assert len(client._llm.calls) == 2
    assert client.batch_chat([]) == client.batch_completion([]) == []
    assert len(client._llm.calls) == 2


def test_one_string_is_not_a_batch(client: VLLMClient) -> None:
    with pytest.raises(TypeError, match="use text_completion"):
        client.batch_completion("Once upon a time")


def test_closing_shuts_vllm_down_once(client: VLLMClient) -> None:
    llm = client._llm
    with client:
        pass
    client.close()
    assert llm.shut_down == 1
    with pytest.raises(RuntimeError, match="closed"):
        client.chat_completion(QUESTION)


def test_without_vllm_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ImportError, match="pip install vllm"):
        VLLMClient("a/model")
