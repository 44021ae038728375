import os

from openai import AzureOpenAI

client = AzureOpenAI(
    azure_endpoint=os.environ["ENDPOINT"],  # without /v1
    api_key=os.environ["OPENAI_API_KEY"],
    api_version="2024-10-21",  # any
    timeout=1800,
)
answer = client.chat.completions.create(model=os.environ["MODEL"], messages=[{"role": "user", "content": "Say hello."}])
print(answer.choices[0].message.content)
