// @anthropic-ai/sdk (Node): messages.
import Anthropic from "@anthropic-ai/sdk";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import { z } from "zod";

import {
  CALL, CALLED, CITY, JSON_, KEY, MODEL, PAIR, REMEMBER, ROOT, SAID, SAY, WHICH, WORD, equal, multiply, row, streamed,
} from "./cells.mjs";

const client = new Anthropic({ baseURL: ROOT, apiKey: KEY, maxRetries: 0 });
const City = z.object({ city: z.string(), people: z.number().int() });
const user = (content) => ({ role: "user", content });
const asking = (messages, more = {}) => ({ model: MODEL, max_tokens: 4000, messages, ...more });
const text = (answer) => answer.content.at(-1).text;

await row("@anthropic-ai/sdk (Node)", "@anthropic-ai/sdk", {
  chat: async () => equal(text(await client.messages.create(asking([user(SAY)]))), SAID),
  async stream() {
    const pieces = [];
    const events = client.messages.stream(asking([user(SAY)]));
    events.on("text", (delta) => pieces.push(delta));
    equal(text(await events.finalMessage()), SAID);
    streamed(pieces, SAID);
  },
  async tools() {
    const more = {
      tools: [{ name: "multiply", input_schema: PAIR }],
      thinking: { type: "enabled", budget_tokens: 1024 },
    };
    const first = await client.messages.stream(asking([user(CALL)], more)).finalMessage();
    const call = first.content.find((block) => block.type === "tool_use");
    const result = { type: "tool_result", tool_use_id: call.id, content: multiply(call.input) };
    const turns = [user(CALL), { role: "assistant", content: first.content }, user([result])];
    equal(text(await client.messages.create(asking(turns, more))), CALLED);
  },
  async structured() {
    const output_config = { format: zodOutputFormat(City) };
    const answer = await client.messages.parse(asking([user(JSON_)], { output_config }));
    equal(answer.parsed_output, CITY);
  },
  async two_turns() {
    const first = await client.messages.create(asking([user(REMEMBER)]));
    const turns = [user(REMEMBER), { role: "assistant", content: first.content }, user(WHICH)];
    equal(text(await client.messages.create(asking(turns))), WORD);
  },
});
