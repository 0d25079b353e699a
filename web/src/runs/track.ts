// One stage of one run as the page holds it: its curves grow from a cursor, and shrink where the run was resumed.
import type { readMetrics, RunMetrics } from "../api/runs";

export const MOST_POINTS = 2000; // of a curve that is drawn: more than a screen has pixels

export interface Curve {
  steps: number[];
  values: (number | null)[];
}

export type Axis = "step" | "tokens" | "seconds";
const PLACE: Record<Axis, number> = { step: 0, tokens: 1, seconds: 3 };

export class Track {
  readonly curves = new Map<string, Curve>();
  /** Step, tokens, compute and seconds of some records. */
  knots: number[][] = [];
  records = 0;
  live = false;
  done = false;
  /** Whether anything has been read. */
  begun = false;
  private cursor: { after_step: number; mark: number } | undefined;
  private reading: Promise<boolean> | undefined;

  constructor(
    readonly run: string,
    readonly stage: string,
    private readonly ask: typeof readMetrics,
  ) {}

  get name() {
    return `${this.run === "." ? "this run" : this.run} · ${this.stage}`;
  }

  /** Reads what has come since, once at a time. Returns whether anything changed. */
  read(): Promise<boolean> {
    this.reading ??= this.ask(this.run, this.stage, this.cursor)
      .then((found) => this.take(found))
      .finally(() => (this.reading = undefined));
    return this.reading;
  }

  take(found: RunMetrics): boolean {
    const first = !this.begun;
    const changed = first || found.truncate !== null || found.curves.length > 0 || found.done !== this.done || found.live !== this.live;
    if (found.truncate !== null) this.forget(found.truncate);
    for (const { key, steps, values } of found.curves) {
      const curve = this.curves.get(key) ?? { steps: [], values: [] };
      this.curves.set(key, thinned({ steps: [...curve.steps, ...steps], values: [...curve.values, ...values] }, MOST_POINTS));
    }
    this.knots = [...this.knots, ...found.knots];
    this.records = found.records;
    this.live = found.live;
    this.done = found.done;
    this.begun = true;
    if (found.last_step >= 0) this.cursor = { after_step: found.last_step, mark: found.mark };
    else this.cursor = undefined;
    return changed;
  }

  /** Where a step stands on an axis, between the records that are known. */
  at(step: number, axis: Axis): number {
    const place = PLACE[axis];
    if (place === 0 || !this.knots.length) return step;
    let low = 0;
    let high = this.knots.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.knots[middle]![0]! <= step) low = middle;
      else high = middle;
    }
    const a = this.knots[low]!;
    const b = this.knots[high]!;
    const share = b[0]! > a[0]! ? (step - a[0]!) / (b[0]! - a[0]!) : 0;
    return a[place]! + share * (b[place]! - a[place]!);
  }

  private forget(step: number) {
    for (const [key, curve] of this.curves) {
      const kept = curve.steps.filter((each) => each <= step).length;
      if (kept) this.curves.set(key, { steps: curve.steps.slice(0, kept), values: curve.values.slice(0, kept) });
      else this.curves.delete(key);
    }
    this.knots = this.knots.filter((knot) => knot[0]! <= step);
  }
}

/** At most that many points: of each bucket of neighbours the lowest, the highest, and one that is not a number. */
export function thinned(curve: Curve, most: number): Curve {
  const { steps, values } = curve;
  if (steps.length <= 1.5 * most) return curve;
  const buckets = Math.floor(most / 3);
  const kept: number[] = [];
  for (let bucket = 0; bucket < buckets; bucket++) {
    const begin = Math.floor((bucket * steps.length) / buckets);
    const end = Math.floor(((bucket + 1) * steps.length) / buckets);
    let low = -1;
    let high = -1;
    let odd = -1;
    for (let at = begin; at < end; at++) {
      const value = values[at]!;
      if (value === null) odd = at;
      else {
        if (low < 0 || value < values[low]!) low = at;
        if (high < 0 || value > values[high]!) high = at;
      }
    }
    kept.push(...[...new Set([low, high, odd])].filter((at) => at >= 0).sort((a, b) => a - b));
  }
  return { steps: kept.map((at) => steps[at]!), values: kept.map((at) => values[at]!) };
}

/** At each point the mean of its neighbours, about 2% of the curve; a gap stays a gap. */
export function smoothed(values: (number | null)[]): (number | null)[] {
  const reach = Math.floor(values.length / 100);
  const sums = [0];
  const counts = [0];
  for (const value of values) {
    sums.push(sums.at(-1)! + (value ?? 0));
    counts.push(counts.at(-1)! + (value === null ? 0 : 1));
  }
  return values.map((value, at) => {
    if (value === null) return null;
    const own = Math.min(reach, at, values.length - 1 - at); // as far on both sides, so that the ends do not lag
    return (sums[at + own + 1]! - sums[at - own]!) / (counts[at + own + 1]! - counts[at - own]!);
  });
}
