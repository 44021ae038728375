import os

from openai import OpenAI

client = OpenAI(timeout=1800)  # reads OPENAI_BASE_URL, which ends in /v1, and OPENAI_API_KEY
stream = client.chat.completions.create(
    model=os.environ["MODEL"], messages=[{"role": "user", "content": "Say hello."}], stream=True
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
