"""vLLM in this process, without a server: the direct API.

For batch work on a machine that has the GPU; nothing listens and nothing leaves the machine. `pip install vllm`, then:

    from clients.vllm_client import VLLMClient

    with VLLMClient("Qwen/Qwen3-4B-Instruct-2507", gpu_memory_utilization=0.9) as vllm:
        print(vllm.chat_completion([{"role": "user", "content": "What is CUDA?"}]))

A script needs `if __name__ == "__main__":` around that, since vLLM may start its workers by importing it again.
"""

from __future__ import annotations

import gc
import importlib
from collections.abc import Sequence
from types import TracebackType
from typing import Any

Message = dict[str, Any]
"""One chat message as OpenAI has it: role and content."""


class VLLMClient:
    """A model loaded by vLLM in this process.

    Args:
        model_name: Hugging Face hub id, or a folder.
        gpu_memory_utilization: share of the GPU's memory that vLLM may use, 0 to 1; no meaning on the CPU build.
        max_model_len: longest prompt plus answer, in tokens; None: the model's own limit.
        tensor_parallel_size: GPUs that share the model.
        trust_remote_code: run code that comes with the model.
        engine_arguments: any other argument of ``vllm.LLM``.

    Raises:
        ImportError: vLLM is not installed.
        RuntimeError, ValueError: from vLLM, when it cannot load the model.
    """

    def __init__(
        self,
        model_name: str,
        gpu_memory_utilization: float = 0.9,
        max_model_len: int | None = None,
        tensor_parallel_size: int = 1,
        trust_remote_code: bool = False,
        **engine_arguments: Any,
    ) -> None:
        try:
            # Imported here, so that a program can offer this client without needing vLLM to start.
            self._vllm: Any = importlib.import_module("vllm")
        except ModuleNotFoundError as error:
            if error.name != "vllm":
                raise
            raise ImportError("vLLM is not installed in this Python; install it with: pip install vllm") from None
        self.model_name = model_name
        self._llm: Any = self._vllm.LLM(
            model=model_name, gpu_memory_utilization=gpu_memory_utilization, max_model_len=max_model_len,
            tensor_parallel_size=tensor_parallel_size, trust_remote_code=trust_remote_code, **engine_arguments,
        )  # fmt: skip

    def chat_completion(self, messages: Sequence[Message], temperature: float = 0.7, max_tokens: int = 512,
                        **sampling: Any) -> str:  # fmt: skip
        """The answer to one conversation.

        Args:
            messages: the conversation so far.
            temperature: 0 takes the likeliest token each time; higher is more varied.
            max_tokens: tokens of the answer, at most.
            sampling: any other argument of ``vllm.SamplingParams``: top_p, frequency_penalty, presence_penalty, stop...
        """
        return self.batch_chat([messages], temperature, max_tokens, **sampling)[0]

    def text_completion(self, prompt: str, temperature: float = 0.7, max_tokens: int = 512, **sampling: Any) -> str:
        """What follows the prompt; no chat template is applied. Arguments as of `chat_completion`."""
        return self.batch_completion([prompt], temperature, max_tokens, **sampling)[0]

    def batch_chat(self, conversations: Sequence[Sequence[Message]], temperature: float = 0.7, max_tokens: int = 512,
                   **sampling: Any) -> list[str]:  # fmt: skip
        """The answers to many conversations, in their order, worked on together."""
        if not conversations:
            return []
        told = [list(messages) for messages in conversations]
        parameters = self._sampling(temperature, max_tokens, sampling)
        return _texts(self._model().chat(told, sampling_params=parameters, use_tqdm=False))

    def batch_completion(self, prompts: Sequence[str], temperature: float = 0.7, max_tokens: int = 512,
                         **sampling: Any) -> list[str]:  # fmt: skip
        """What follows each prompt, in their order, worked on together."""
        if isinstance(prompts, str):
            raise TypeError("prompts is one string; give a list of strings, or use text_completion")
        if not prompts:
            return []
        parameters = self._sampling(temperature, max_tokens, sampling)
        return _texts(self._model().generate(list(prompts), sampling_params=parameters, use_tqdm=False))

    def close(self) -> None:
        """Free the model's memory and end vLLM's processes; the client cannot be used afterwards."""
        llm, self._llm = self._llm, None
        if llm is not None:
            llm.llm_engine.engine_core.shutdown()
            del llm
            gc.collect()

    def __enter__(self) -> VLLMClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _model(self) -> Any:
        if self._llm is None:
            raise RuntimeError("this client is closed; make another")
        return self._llm

    def _sampling(self, temperature: float, max_tokens: int, others: dict[str, Any]) -> Any:
        return self._vllm.SamplingParams(temperature=temperature, max_tokens=max_tokens, **others)


def _texts(outputs: Sequence[Any]) -> list[str]:
    return [str(output.outputs[0].text) for output in outputs]
