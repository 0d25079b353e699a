import { expect, test } from "vitest";
import type { RunMetrics, Sample } from "../src/api/runs";
import { pairs } from "../src/runs/pairs";
import { smoothed, thinned, Track } from "../src/runs/track";
import { figure, ordered } from "../src/runs/words";

const found = (more: Partial<RunMetrics>): RunMetrics => ({
  live: true,
  done: false,
  truncate: null,
  last_step: 0,
  mark: 0,
  records: 0,
  knots: [],
  curves: [],
  ...more,
});

test("a track grows from its cursor, and forgets what a resumed run forgot", () => {
  const track = new Track("one", "sft", () => Promise.reject(new Error("not asked")));
  track.take(found({ last_step: 3, curves: [{ key: "loss", steps: [1, 2, 3], values: [9, null, 7] }], knots: [[1, 10, 0, 5], [3, 30, 0, 9]] }));
  track.take(found({ last_step: 4, curves: [{ key: "loss", steps: [4], values: [6] }] }));
  expect(track.curves.get("loss")).toEqual({ steps: [1, 2, 3, 4], values: [9, null, 7, 6] });
  expect(track.take(found({ truncate: 2, last_step: 2 }))).toBe(true);
  expect(track.curves.get("loss")).toEqual({ steps: [1, 2], values: [9, null] });
  track.take(found({ truncate: -1, last_step: -1 }));
  expect(track.curves.size).toBe(0);
});

test("a step stands between the records that are known", () => {
  const track = new Track("one", "sft", () => Promise.reject(new Error("not asked")));
  track.take(found({ knots: [[1, 10, 0, 5], [3, 30, 0, 9]] }));
  expect([track.at(2, "tokens"), track.at(2, "seconds"), track.at(2, "step")]).toEqual([20, 7, 2]);
});

test("a long curve keeps its peaks and what is not a number", () => {
  const steps = Array.from({ length: 9000 }, (_, at) => at);
  const values = steps.map((step) => (step === 700 ? null : step === 333 ? 50 : 1));
  const few = thinned({ steps, values }, 300);
  expect(few.steps.length).toBeLessThanOrEqual(300);
  expect(few.values[few.steps.indexOf(333)]).toBe(50);
  expect(few.values[few.steps.indexOf(700)]).toBe(null);
  expect(few.steps).toEqual([...few.steps].sort((a, b) => a - b));
});

test("smoothing leaves gaps where they are", () => {
  expect(smoothed([1, null, 1])).toEqual([1, null, 1]);
  const wave = Array.from({ length: 300 }, (_, at) => (at === 150 ? null : 5 + (at % 2)));
  const flat = smoothed(wave);
  expect(flat[150]).toBe(null);
  expect([flat[0], flat[299]]).toEqual([wave[0], wave[299]]);
  expect(Math.abs(flat[100]! - 5.5)).toBeLessThan(0.11);
});

test("measures come in the order in which a reader wants them, and none is lost", () => {
  const keys = ["step", "tokens", "lr", "zeal", "reward", "loss", "pass/gcd"];
  const { first, groups, more } = ordered(keys);
  expect(first.slice(0, 3)).toEqual(["loss", "reward", "pass/gcd"]);
  expect(groups).toEqual([]);
  expect([...first, ...more].sort()).toEqual(["loss", "lr", "pass/gcd", "reward", "zeal"]);
  const tasks = ["a", "b", "c", "d", "e"].map((name) => `solved/${name}`);
  expect(ordered(["loss", ...tasks]).groups).toEqual([{ says: "Share solved, held out and greedy", keys: tasks }]);
  expect([figure(0.0001234), figure(12345), figure(1e-7), figure(null)]).toEqual(["0.0001234", "12.3k", "1.0e-7", "not a number"]);
});

test("samples of two steps are paired by question, then by task, and none is left out", () => {
  const sample = (task: string, question: string) => ({ task, question }) as Sample;
  const left = [sample("a", "1?"), sample("a", "2?")];
  const right = [sample("b", "9?"), sample("a", "2?"), sample("a", "3?")];
  expect(pairs(left, right).map((row) => row.map((each) => each?.question))).toEqual([["1?", "3?"], ["2?", "2?"], [undefined, "9?"]]);
});
