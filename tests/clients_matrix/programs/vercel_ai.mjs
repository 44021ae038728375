// Vercel's AI SDK with its OpenAI-compatible provider.
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { embed, generateObject, generateText, jsonSchema, streamText, tool } from 'ai';
import { BASE, PARAMETERS, serve, versions } from './driver.mjs';

const make = (key, more = {}) => createOpenAICompatible({ name: 'vllm', baseURL: `${BASE}/v1`, apiKey: key, ...more });
const tools = { weather: tool({ description: 'Weather.', inputSchema: jsonSchema(PARAMETERS) }) };

await serve({
  version: versions('ai', '@ai-sdk/openai-compatible'),
  async chat({ key, model, prompt, max_tokens = 20, retries = 0 }) {
    const asked = { model: make(key)(model), prompt, maxOutputTokens: max_tokens, maxRetries: retries };
    return (await generateText(asked)).text;
  },
  async stream({ key, model, prompt }) {
    const began = performance.now();
    const pieces = [];
    let failure;
    const result = streamText({ model: make(key)(model), prompt, maxRetries: 0, onError({ error }) { failure = error; } });
    for await (const text of result.textStream) pieces.push([(performance.now() - began) / 1000, text]);
    if (failure) throw failure;
    return pieces;
  },
  async leave({ key, model, prompt }) {
    const controller = new AbortController();
    const result = streamText({
      model: make(key)(model), prompt, maxRetries: 0, abortSignal: controller.signal, onError() {},
    });
    for await (const text of result.textStream) {
      controller.abort();
      return text;
    }
    throw new Error('no piece came');
  },
  async break_only({ key, model, prompt }) {
    const result = streamText({ model: make(key)(model), prompt, maxRetries: 0, onError() {} });
    for await (const text of result.textStream) return text;
    throw new Error('no piece came');
  },
  async usage({ key, model }) {
    const result = streamText({ model: make(key, { includeUsage: true })(model), prompt: 'Say hello.' });
    return (await result.usage).totalTokens;
  },
  async tools({ key, model }) {
    return (await generateText({ model: make(key)(model), prompt: 'Say hello.', tools })).toolCalls[0].input;
  },
  async tools_stream({ key, model }) {
    return (await streamText({ model: make(key)(model), prompt: 'Say hello.', tools }).toolCalls)[0].input;
  },
  async structured({ key, model }) {
    const provider = make(key, { supportsStructuredOutputs: true });
    const asked = { model: provider(model), prompt: 'Say hello.', schema: jsonSchema(PARAMETERS) };
    return (await generateObject(asked)).object.city;
  },
  async embeddings({ key, model }) {
    return (await embed({ model: make(key).embeddingModel(model), value: 'a' })).embedding;
  },
});
