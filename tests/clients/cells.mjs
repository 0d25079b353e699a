// What the JavaScript scripts of this folder share: a client runs its cells of the table, and says how each went.
import { readFileSync } from "node:fs";

export const URL = process.env.PONDER_URL ?? "http://127.0.0.1:8000/v1";
export const ROOT = URL.replace(/\/v1$/, "");
export const MODEL = "said";
export const KEY = "none";
const LENGTH = 200; // of a reason, in characters

// The cells' questions, and what a client has to make of the answers.
export const SAY = "say The answer is four.";
export const SAID = "The answer is four.";
export const CALL = 'call multiply {"a": 6, "b": 7}';
export const CALLED = "The tool said: 42";
export const CITY = { city: "Paris", people: 2100000 };
export const JSON_ = `say ${JSON.stringify(CITY)}`;
export const SCHEMA = {
  type: "object",
  properties: { city: { type: "string" }, people: { type: "integer" } },
  required: ["city", "people"],
  additionalProperties: false,
};
export const PAIR = {
  type: "object",
  properties: { a: { type: "integer" }, b: { type: "integer" } },
  required: ["a", "b"],
  additionalProperties: false,
};
export const REMEMBER = "remember cobalt";
export const WHICH = "which word";
export const WORD = "cobalt";
export const multiply = ({ a, b }) => String(a * b);

// Run a client's cells. A text in the place of a function is the reason why the client has no such cell.
export async function row(client, name, cells) {
  const { version } = JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8"));
  for (const [cell, run] of Object.entries(cells)) {
    const ran = typeof run === "function";
    const why = ran ? await outcome(run) : run;
    console.log("CELL", JSON.stringify({ client, version, cell, ran, why }));
  }
}

// "" where the cell holds, else why not, on one line.
async function outcome(run) {
  try {
    await run();
  } catch (error) {
    return `${error?.name}: ${error?.message}`.replace(/\s+/g, " ").slice(0, LENGTH);
  }
  return "";
}

export function equal(found, expected) {
  const [left, right] = [found, expected].map((value) => JSON.stringify(value));
  if (left !== right) throw new Error(`${left}, not ${right}`);
}

// The pieces join to the text, and there is more than one.
export function streamed(pieces, expected) {
  equal(pieces.join(""), expected);
  if (pieces.filter(Boolean).length < 2) throw new Error("the stream came in one piece");
}
