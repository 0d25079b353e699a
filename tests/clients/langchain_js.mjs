// LangChain (JS): its model of openai over both of that API's endpoints.
import { HumanMessage, ToolMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import { ChatOpenAI } from "@langchain/openai";
import { z } from "zod";

import {
  CALL, CALLED, CITY, JSON_, KEY, MODEL, REMEMBER, SAID, SAY, URL, WHICH, WORD, equal, multiply, row, streamed,
} from "./cells.mjs";

const City = z.object({ city: z.string(), people: z.number().int() });
const MULTIPLY = tool(multiply, {
  name: "multiply",
  description: "The product of two numbers.",
  schema: z.object({ a: z.number().int(), b: z.number().int() }),
});

function cells(useResponsesApi) {
  const configuration = { baseURL: URL };
  const model = new ChatOpenAI({ model: MODEL, apiKey: KEY, maxRetries: 0, useResponsesApi, configuration });
  return {
    chat: async () => equal((await model.invoke(SAY)).text, SAID),
    async stream() {
      const pieces = [];
      for await (const chunk of await model.stream(SAY)) pieces.push(chunk.text);
      streamed(pieces, SAID);
    },
    async tools() {
      const able = model.bindTools([MULTIPLY]);
      let first;
      for await (const chunk of await able.stream(CALL)) first = first ? first.concat(chunk) : chunk;
      const [call] = first.tool_calls;
      const result = new ToolMessage({ content: await MULTIPLY.invoke(call.args), tool_call_id: call.id });
      equal((await able.invoke([new HumanMessage(CALL), first, result])).text, CALLED);
    },
    async structured() {
      equal(await model.withStructuredOutput(City, { method: "jsonSchema" }).invoke(JSON_), CITY);
      const called = model.withStructuredOutput(City, { name: "City", method: "functionCalling" });
      equal(await called.invoke(JSON_.replace("say", "call City")), CITY);
    },
    async two_turns() {
      const first = await model.invoke(REMEMBER);
      equal((await model.invoke([new HumanMessage(REMEMBER), first, new HumanMessage(WHICH)])).text, WORD);
    },
  };
}

await row("LangChain (JS), ChatOpenAI", "@langchain/openai", cells(false));
await row("LangChain (JS), ChatOpenAI with responses", "@langchain/openai", cells(true));
