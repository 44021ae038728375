// How the matrix's JavaScript programs are asked: as driver.py says.
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

export const BASE = process.env.MATRIX_BASE;
export const PARAMETERS = {
  type: 'object', properties: { city: { type: 'string' } }, required: ['city'], additionalProperties: false,
};

export function versions(...packages) {
  return () => packages
    .map((name) => `${name} ${JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url))).version}`)
    .concat(`Node ${process.versions.node}`).join(', ');
}

export async function serve(operations) {
  for await (const line of createInterface({ input: process.stdin })) {
    const { do: name, ...asked } = JSON.parse(line);
    let result;
    try {
      result = { value: await operations[name](asked) };
    } catch (error) {
      const status = error.status ?? error.statusCode ?? error.lastError?.statusCode ?? null;
      const name = error.name && error.name !== 'Error' ? error.name : error.constructor.name;
      result = { error: { classes: [name], status, message: String(error.message).slice(0, 500) } };
    }
    console.log(JSON.stringify(result));
  }
}
