import { expect, test } from "vitest";
import { diffWords, firstDifference } from "../src/text/diff";

test("both texts can be read off a diff", () => {
  const texts = ["", "one", "one two three", "two three four", "one 2 three", "a b c d e f", "f e d c b a"];
  for (const before of texts)
    for (const after of texts) {
      const pieces = diffWords(before, after);
      const read = (kind: string) => pieces.filter((each) => each.kind !== kind).map((each) => each.text).join("");
      expect(read("new")).toBe(before);
      expect(read("gone").trim()).toBe(after);
    }
  expect(diffWords("the sum is 41", "the sum is 42").map((each) => each.kind)).toEqual(["same", "gone", "new"]);
});

test("the first line that differs", () => {
  expect(firstDifference("a\nb", "a\nb")).toBeUndefined();
  expect(firstDifference("a\nb", "a\nc")).toBe(2);
  expect(firstDifference("a", "a\nb")).toBe(2);
});
