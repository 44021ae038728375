import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { streamText } from 'ai';

const vllm = createOpenAICompatible({
  name: 'vllm', baseURL: process.env.OPENAI_BASE_URL, apiKey: process.env.OPENAI_API_KEY, includeUsage: true,
});
const { textStream } = streamText({ model: vllm(process.env.MODEL), prompt: 'Say hello.' });
for await (const text of textStream) process.stdout.write(text);
