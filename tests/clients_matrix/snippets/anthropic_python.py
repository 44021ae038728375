import os

from anthropic import Anthropic

client = Anthropic(timeout=1800)  # reads ANTHROPIC_BASE_URL, without /v1, and ANTHROPIC_API_KEY
messages = [{"role": "user", "content": "Say hello."}]
with client.messages.stream(model=os.environ["MODEL"], max_tokens=200, messages=messages) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
