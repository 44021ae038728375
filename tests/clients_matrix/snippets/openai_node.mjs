import OpenAI from 'openai';

const client = new OpenAI({ timeout: 1800_000 }); // reads OPENAI_BASE_URL, which ends in /v1, and OPENAI_API_KEY
const stream = await client.chat.completions.create({
  model: process.env.MODEL, messages: [{ role: 'user', content: 'Say hello.' }], stream: true,
});
for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta.content ?? '');
