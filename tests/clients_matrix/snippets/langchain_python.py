import os

from langchain_openai import ChatOpenAI

llm = ChatOpenAI(model=os.environ["MODEL"], timeout=1800)  # reads OPENAI_BASE_URL and OPENAI_API_KEY
for chunk in llm.stream("Say hello."):
    print(chunk.content, end="", flush=True)
