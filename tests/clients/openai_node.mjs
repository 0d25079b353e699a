// openai (Node): chat completions and responses.
import OpenAI from "openai";
import { zodFunction, zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

import {
  CALL, CALLED, CITY, JSON_, KEY, MODEL, PAIR, REMEMBER, SAID, SAY, URL, WHICH, WORD, equal, multiply, row, streamed,
} from "./cells.mjs";

const client = new OpenAI({ baseURL: URL, apiKey: KEY, maxRetries: 0 });
const City = z.object({ city: z.string(), people: z.number().int() });
const user = (content) => ({ role: "user", content });

async function ask(messages, more = {}) {
  const answer = await client.chat.completions.create({ model: MODEL, messages, ...more });
  return answer.choices[0].message;
}

await row("openai (Node), chat completions", "openai", {
  chat: async () => equal((await ask([user(SAY)])).content, SAID),
  async stream() {
    const pieces = [];
    const events = client.chat.completions.stream({ model: MODEL, messages: [user(SAY)] });
    events.on("content", (delta) => pieces.push(delta));
    equal(await events.finalContent(), SAID);
    streamed(pieces, SAID);
  },
  async tools() {
    const parameters = z.object({ a: z.number().int(), b: z.number().int() });
    const tool = zodFunction({ name: "multiply", parameters, function: multiply });
    const runner = client.chat.completions.runTools({ model: MODEL, messages: [user(CALL)], tools: [tool], stream: true });
    equal(await runner.finalContent(), CALLED);
  },
  async structured() {
    const response_format = zodResponseFormat(City, "city");
    const answer = await client.chat.completions.parse({ model: MODEL, messages: [user(JSON_)], response_format });
    equal(answer.choices[0].message.parsed, CITY);
  },
  async two_turns() {
    const first = await ask([user(REMEMBER)]);
    equal((await ask([user(REMEMBER), first, user(WHICH)])).content, WORD);
  },
});

await row("openai (Node), responses", "openai", {
  chat: async () => equal((await client.responses.create({ model: MODEL, input: SAY })).output_text, SAID),
  async stream() {
    const pieces = [];
    const events = client.responses.stream({ model: MODEL, input: SAY });
    events.on("response.output_text.delta", (event) => pieces.push(event.delta));
    equal((await events.finalResponse()).output_text, SAID);
    streamed(pieces, SAID);
  },
  async tools() {
    const tools = [{ type: "function", name: "multiply", parameters: PAIR, strict: true }];
    const first = await client.responses.stream({ model: MODEL, input: CALL, tools }).finalResponse();
    const call = first.output.find((item) => item.type === "function_call");
    const output = multiply(JSON.parse(call.arguments));
    const result = { type: "function_call_output", call_id: call.call_id, output };
    const input = [user(CALL), ...first.output, result];
    equal((await client.responses.create({ model: MODEL, input, tools })).output_text, CALLED);
  },
  async structured() {
    const text = { format: zodTextFormat(City, "city") };
    equal((await client.responses.parse({ model: MODEL, input: JSON_, text })).output_parsed, CITY);
  },
  async two_turns() {
    const first = await client.responses.create({ model: MODEL, input: REMEMBER });
    const second = await client.responses.create({ model: MODEL, input: WHICH, previous_response_id: first.id });
    equal(second.output_text, WORD);
  },
});
