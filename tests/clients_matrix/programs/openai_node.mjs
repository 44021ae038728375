// OpenAI's Node SDK.
import OpenAI from 'openai';
import { BASE, PARAMETERS, serve, versions } from './driver.mjs';

const make = (key, retries = 0) => new OpenAI({ baseURL: `${BASE}/v1`, apiKey: key, maxRetries: retries, timeout: 30_000 });
const messages = (prompt = 'Say hello.') => [{ role: 'user', content: prompt }];
const tool = { type: 'function', function: { name: 'weather', description: 'Weather.', parameters: PARAMETERS } };

await serve({
  version: versions('openai'),
  async chat({ key, model, prompt, max_tokens = 20, retries = 0 }) {
    const answer = await make(key, retries).chat.completions.create({ model, messages: messages(prompt), max_tokens });
    return answer.choices[0].message.content;
  },
  async stream({ key, model, prompt }) {
    const began = performance.now();
    const pieces = [];
    const events = await make(key).chat.completions.create({ model, messages: messages(prompt), stream: true });
    for await (const event of events) {
      const text = event.choices[0]?.delta.content;
      if (text) pieces.push([(performance.now() - began) / 1000, text]);
    }
    return pieces;
  },
  async leave({ key, model, prompt }) {
    const events = await make(key).chat.completions.create({ model, messages: messages(prompt), stream: true });
    for await (const event of events) {
      const text = event.choices[0]?.delta.content;
      if (text) return text; // leaving the loop aborts the request
    }
    throw new Error('no piece came');
  },
  async abort({ key, model, prompt }) {
    const controller = new AbortController();
    const events = await make(key).chat.completions.create(
      { model, messages: messages(prompt), stream: true }, { signal: controller.signal },
    );
    const first = await events[Symbol.asyncIterator]().next();
    controller.abort();
    return Boolean(first.value);
  },
  async models({ key }) {
    return (await make(key).models.list()).data.map((card) => card.id);
  },
  async retrieve({ key, model }) {
    return (await make(key).models.retrieve(model)).id;
  },
  async responses({ key, model }) {
    return (await make(key).responses.create({ model, input: 'Say hello.' })).output_text;
  },
  async responses_stream({ key, model }) {
    let text = '';
    for await (const event of await make(key).responses.create({ model, input: 'Say hello.', stream: true })) {
      if (event.type === 'response.output_text.delta') text += event.delta;
    }
    return text;
  },
  async embeddings({ key, model }) {
    return (await make(key).embeddings.create({ model, input: ['a', 'b'] })).data[1].embedding;
  },
  async usage({ key, model }) {
    let total;
    const asked = { model, messages: messages(), stream: true, stream_options: { include_usage: true } };
    for await (const event of await make(key).chat.completions.create(asked)) total = event.usage?.total_tokens ?? total;
    return total;
  },
  async tools({ key, model }) {
    const answer = await make(key).chat.completions.create({ model, messages: messages(), tools: [tool] });
    return answer.choices[0].message.tool_calls[0].function.arguments;
  },
  async tools_stream({ key, model }) {
    const runner = make(key).chat.completions.stream({ model, messages: messages(), tools: [tool] });
    return (await runner.finalChatCompletion()).choices[0].message.tool_calls[0].function.arguments;
  },
  async raw_response({ key, model }) {
    const { data, response } = await make(key).chat.completions.create({ model, messages: messages() }).withResponse();
    return Boolean(response.headers.get('x-request-id')) && data._request_id === response.headers.get('x-request-id');
  },
});
