// @openai/agents (JS): an agent over responses, and over chat completions.
import {
  Agent, MemorySession, OpenAIChatCompletionsModel, OpenAIResponsesModel, run, setTracingDisabled, tool,
} from "@openai/agents";
import OpenAI from "openai";
import { z } from "zod";

import {
  CALL, CALLED, CITY, JSON_, KEY, MODEL, REMEMBER, SAID, SAY, URL, WHICH, WORD, equal, multiply, row, streamed,
} from "./cells.mjs";

setTracingDisabled(true);
const client = new OpenAI({ baseURL: URL, apiKey: KEY, maxRetries: 0 });
const City = z.object({ city: z.string(), people: z.number().int() });
const MULTIPLY = tool({
  name: "multiply",
  description: "The product of two numbers.",
  parameters: z.object({ a: z.number().int(), b: z.number().int() }),
  execute: async (pair) => multiply(pair),
});

function cells(Kind) {
  const agent = (more = {}) => new Agent({ name: "agent", instructions: "Be brief.", model: new Kind(client, MODEL), ...more });
  return {
    chat: async () => equal((await run(agent(), SAY)).finalOutput, SAID),
    async stream() {
      const pieces = [];
      const result = await run(agent(), SAY, { stream: true });
      for await (const piece of result.toTextStream()) pieces.push(piece);
      await result.completed;
      equal(result.finalOutput, SAID);
      streamed(pieces, SAID);
    },
    async tools() {
      const able = agent({ tools: [MULTIPLY] });
      equal((await run(able, CALL)).finalOutput, CALLED);
      const result = await run(able, CALL, { stream: true });
      await result.completed;
      equal(result.finalOutput, CALLED);
    },
    structured: async () => equal((await run(agent({ outputType: City }), JSON_)).finalOutput, CITY),
    async two_turns() {
      const session = new MemorySession();
      await run(agent(), REMEMBER, { session });
      equal((await run(agent(), WHICH, { session })).finalOutput, WORD);
    },
  };
}

await row("@openai/agents (JS), responses", "@openai/agents", cells(OpenAIResponsesModel));
await row("@openai/agents (JS), chat completions", "@openai/agents", cells(OpenAIChatCompletionsModel));
