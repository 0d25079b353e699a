// Vercel's AI SDK: the provider of openai over both of that API's endpoints, and the provider of compatible servers.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

import {
  CALL, CALLED, CITY, JSON_, KEY, MODEL, REMEMBER, SAID, SAY, URL, WHICH, WORD, equal, multiply, row, streamed,
} from "./cells.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;
const City = z.object({ city: z.string(), people: z.number().int() });
const tools = {
  multiply: tool({ inputSchema: z.object({ a: z.number().int(), b: z.number().int() }), execute: async (pair) => multiply(pair) }),
};
const user = (content) => ({ role: "user", content });

function cells(model) {
  const options = { model, maxRetries: 0 };
  return {
    chat: async () => equal((await generateText({ ...options, prompt: SAY })).text, SAID),
    async stream() {
      const pieces = [];
      for await (const piece of streamText({ ...options, prompt: SAY }).textStream) pieces.push(piece);
      streamed(pieces, SAID);
    },
    async tools() {
      const asked = { ...options, tools, stopWhen: stepCountIs(3), prompt: CALL };
      equal((await generateText(asked)).text, CALLED);
      equal(await streamText(asked).text, CALLED);
    },
    async structured() {
      const asked = { ...options, output: Output.object({ schema: City }), prompt: JSON_ };
      equal((await generateText(asked)).output, CITY);
    },
    async two_turns() {
      const first = await generateText({ ...options, messages: [user(REMEMBER)] });
      const messages = [user(REMEMBER), ...first.response.messages, user(WHICH)];
      equal((await generateText({ ...options, messages })).text, WORD);
    },
  };
}

const openai = createOpenAI({ baseURL: URL, apiKey: KEY });
const compatible = createOpenAICompatible({ name: "ponder", baseURL: URL, apiKey: KEY, supportsStructuredOutputs: true });
await row("AI SDK, @ai-sdk/openai with responses", "@ai-sdk/openai", cells(openai(MODEL)));
await row("AI SDK, @ai-sdk/openai with chat completions", "@ai-sdk/openai", cells(openai.chat(MODEL)));
await row("AI SDK, @ai-sdk/openai-compatible", "@ai-sdk/openai-compatible", cells(compatible(MODEL)));
