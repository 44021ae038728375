import os

from llama_index.llms.openai_like import OpenAILike

llm = OpenAILike(
    model=os.environ["MODEL"],
    api_base=os.environ["OPENAI_BASE_URL"],
    api_key=os.environ["OPENAI_API_KEY"],
    is_chat_model=True,
    is_function_calling_model=True,
    context_window=8192,  # `max_model_len` in /v1/models
    timeout=1800,
)
for event in llm.stream_complete("Say hello."):
    print(event.delta, end="", flush=True)
