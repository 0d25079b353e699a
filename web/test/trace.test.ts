import { expect, test } from "vitest";
import type { Entry } from "../src/api/jobs";
import { chosenSample, promptOf, rowsOf, spanOf, type SampleRow } from "../src/job/trace";

let n = 0;
const entry = (type: string, at: number, more: Partial<Entry> = {}): Entry => ({ n: ++n, at, attempt: 1, type, ...more });
const VOTE = "approaches/consensus@2";

const ENTRIES = [
  entry("asked", 0, { strategy: "" }),
  entry("started", 1, { sample: 0, strategy: VOTE, role: "sample" }),
  entry("planned", 1.5, { strategy: "approaches", steps: ["by hand", "by parts"] }),
  entry("started", 2, { sample: 1, strategy: VOTE, role: "sample" }),
  entry("done", 3, { sample: 1, stop_reason: "end", text: "41" }),
  entry("graded", 4, { sample: 1, strategy: VOTE, score: 0, status: "graded", why: "too small" }),
  entry("done", 5, { sample: 0, stop_reason: "end", text: "42", usage: { input_tokens: 9, cached_tokens: 0, output_tokens: 30, reasoning_tokens: 0 } }),
  entry("voted", 6, { strategy: VOTE, votes: [{ answer: "42", samples: [0], weight: null }], margin: 0 }),
  entry("steered", 7, { text: "be brief", used: 1200 }),
  entry("started", 8, { sample: 0, attempt: 2 }),
];

test("samples stand under their strategy, in the order in which they began, with what became of them", () => {
  const rows = rowsOf(ENTRIES, 1);
  expect(rows.map((row) => [row.kind, row.depth])).toEqual([
    ["strategy", 0],
    ["strategy", 1],
    ["sample", 2],
    ["sample", 2],
    ["voted", 2],
    ["planned", 1],
    ["person", 0],
  ]);
  const second = rows[3] as SampleRow;
  expect([second.text, second.ended, second.grades[0]!.why]).toEqual(["41", 3, "too small"]);
  expect(rows.at(-1)).toMatchObject({ title: "You steered, at token 1,200", detail: "be brief" });
});

test("the chosen sample says what the answer says, and the span covers all", () => {
  const rows = rowsOf(ENTRIES, 1);
  expect(chosenSample(rows, "42")?.sample).toBe(0);
  expect(chosenSample(rows, "42")?.usage).toMatchObject({ input_tokens: 9, output_tokens: 30, reasoning_tokens: 0 });
  expect(promptOf(rows, rows[3] as SampleRow)).toBe(9);
  expect(chosenSample(rows, "43")).toBeUndefined();
  expect(spanOf(rows, 99)).toEqual({ from: 1, to: 7 });
  expect(spanOf(rowsOf(ENTRIES, 2), 99)).toEqual({ from: 8, to: 99 });
});
