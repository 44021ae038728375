import os

import litellm

stream = litellm.completion(
    model=f"hosted_vllm/{os.environ['MODEL']}",
    api_base=os.environ["OPENAI_BASE_URL"],
    api_key=os.environ["OPENAI_API_KEY"],
    messages=[{"role": "user", "content": "Say hello."}],
    stream=True,
    timeout=1800,
)
for chunk in stream:
    print(chunk.choices[0].delta.content or "", end="", flush=True)
