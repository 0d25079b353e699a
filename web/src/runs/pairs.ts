// Samples of two steps, side by side.
import type { Sample } from "../api/runs";

/** Rows of two: the same question where both steps have it, else the same task. Nothing is left out. */
export function pairs(left: Sample[], right: Sample[]): [Sample | undefined, Sample | undefined][] {
  const rest = [...right];
  const take = (fits: (sample: Sample) => boolean) => {
    const at = rest.findIndex(fits);
    return at < 0 ? undefined : rest.splice(at, 1)[0];
  };
  const same = left.map((one) => take((each) => each.question === one.question));
  const rows = left.map((one, at): [Sample | undefined, Sample | undefined] => [
    one,
    same[at] ?? take((each) => each.task === one.task && !left.some((other) => other.question === each.question)),
  ]);
  return [...rows, ...rest.map((each): [undefined, Sample] => [undefined, each])];
}
