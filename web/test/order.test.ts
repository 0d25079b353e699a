import { expect, test } from "vitest";
import { readPrompts } from "../src/rank/read";
import { back, NONE, ordinal, put, rankOf, text, tie, type Order } from "../src/rank/order";

const typed = (keys: string) =>
  [...keys].reduce<Order>((order, key) => (key === "=" ? tie(order) : key === "<" ? back(order) : put(order, key)), NONE);

test("letters come best first, ties are said before the letter", () => {
  expect(text(typed("ba=cd"))).toBe("b > a = c > d");
  expect(text(typed("=ba"))).toBe("b > a");
});

test("a letter that stands there is taken out, and the last thing is taken back", () => {
  expect(text(typed("bab"))).toBe("a");
  expect(text(typed("ba=c<"))).toBe("b > a");
  expect(typed("ba=<")).toEqual({ groups: [["b"], ["a"]], tie: false });
  expect(typed("<")).toEqual(NONE);
});

test("ranks leave room for those that share one", () => {
  const order = typed("ba=cd");
  expect(["b", "c", "d", "e"].map((letter) => rankOf(order, letter))).toEqual([
    { rank: 1, shared: false },
    { rank: 2, shared: true },
    { rank: 4, shared: false },
    undefined,
  ]);
  expect([1, 2, 3, 4, 11, 12, 13, 21].map(ordinal)).toEqual(["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st"]);
});

test("prompts are lines, or objects with answers; what cannot be read is named by its line", () => {
  const read = readPrompts('plain\n\n{"prompt": "p", "answers": ["x", "y"]}\n{"prompt": "q"}\n{"answers": []}\n{oops\n{"prompt": "r", "answers": ["x"]}');
  expect(read.lines).toEqual(["plain", "q"]);
  expect(read.sets).toEqual([{ prompt: "p", answers: [{ text: "x" }, { text: "y" }] }]);
  expect(read.wrong.map((each) => each.line)).toEqual([5, 6, 7]);
});
