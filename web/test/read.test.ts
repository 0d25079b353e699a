import { expect, test } from "vitest";
import { guessFormat, guessMapping, readCsv, readJobs } from "../src/handover/read";

test("a list is a question a line, and empty lines are none", () => {
  const read = readJobs("one\n\n  two \r\nthree", "lines");
  expect(read.jobs).toEqual([{ input: "one" }, { input: "two" }, { input: "three" }]);
  expect(read.lines).toEqual([1, 3, 4]);
});

test("lines of JSON that cannot be read are named, and the others stay", () => {
  const text = '{"input": "a", "labels": ["x"], "budget": 20}\n{"input": 3}\nnot json\n{"prompt": "b", "id": 7}\n{"input": "c", "wrong": 1}\n[]\n{"input": "d", "budget": 1.5}';
  const read = readJobs(text, "jsonl");
  expect(read.jobs).toEqual([
    { input: "a", labels: ["x"], budget: 20 },
    { input: "b", custom_id: "7" },
  ]);
  expect(read.bad.map((each) => each.line)).toEqual([2, 3, 5, 6, 7]);
  expect(read.bad[2]!.why).toContain('"wrong"');
});

test("a CSV keeps line breaks and quotes in cells, and its rows keep their line numbers", () => {
  const rows = readCsv('question,id\r\n"a ""b""\nc, d",1\n\ne,2\n');
  expect(rows).toEqual([
    { line: 1, cells: ["question", "id"] },
    { line: 2, cells: ['a "b"\nc, d', "1"] },
    { line: 5, cells: ["e", "2"] },
  ]);
});

test("columns of a CSV become fields, as mapped", () => {
  const text = "id,problem,labels,note\n1,What?,a;b,z\n2,,x,z\n3,Why?\n";
  expect(guessMapping(["id", "problem", "labels", "note"])).toEqual({ id: "custom_id", problem: "input", labels: "labels", note: "" });
  const read = readJobs(text, "csv");
  expect(read.jobs).toEqual([{ custom_id: "1", input: "What?", labels: ["a", "b"] }]);
  expect(read.bad).toEqual([
    { line: 3, why: "has no question" },
    { line: 4, why: "has 2 cells, and the first line has 4" },
  ]);
  expect(readJobs(text, "csv", { id: "input", problem: "", labels: "", note: "" }).jobs[0]).toEqual({ input: "1" });
});

test("the format is guessed from the text and the file's name", () => {
  expect(guessFormat("What is 1, 2 and 3?\nWhy, then?")).toBe("lines");
  expect(guessFormat('{"input": "a"}\n{"input": "b"}')).toBe("jsonl");
  expect(guessFormat("question,id\na,1")).toBe("csv");
  expect(guessFormat("a,b", "x.csv")).toBe("csv");
});
