// The events of a strategy, as rows: a tree, flat with depths, and bars over time. Pure, so that it can be tested.
import type { Entry, Usage } from "../api/jobs";

export interface SampleRow {
  kind: "sample";
  key: string;
  depth: number;
  sample: number;
  role: string;
  model: string;
  began: number;
  ended: number | undefined;
  stop: string | undefined;
  text: string | undefined;
  reasoning: string | undefined;
  usage: Usage | undefined;
  grades: { score: number | null; status: string; why: string }[];
}

export interface EventRow {
  kind: "strategy" | "planned" | "voted" | "stopped" | "person" | "answered";
  key: string;
  depth: number;
  at: number;
  title: string;
  detail: string;
  votes?: { answer: string; count: number }[];
}

export type TraceRow = SampleRow | EventRow;

const PEOPLE: Record<string, string> = {
  steered: "You steered",
  extended: "You gave it more",
  retried: "You asked again",
  replied: "You answered",
  restarted: "The server started again",
};

const CUTS: Record<string, string> = {
  seconds: "its time is over",
  tokens: "its tokens are spent",
  samples: "its samples are spent",
  cancelled: "it was cancelled",
  decided: "the leader cannot be overtaken",
  failed: "the model failed",
};

export const cutWord = (cut: string) => CUTS[cut] ?? cut;

/** The rows of one attempt, in the order in which they begin; the samples of a strategy stand under it. */
export function rowsOf(entries: Entry[], attempt: number): TraceRow[] {
  const groups = new Map<string, TraceRow[]>(); // by strategy, the rows under it
  const samples = new Map<number, SampleRow>();
  const top: TraceRow[] = [];

  const group = (strategy: string, at: number): TraceRow[] => {
    const known = groups.get(strategy);
    if (known) return known;
    const depth = strategy.split("/").length - 1;
    const rows: TraceRow[] = [];
    const head: EventRow = { kind: "strategy", key: `g${strategy}`, depth, at, title: strategy.split("/").pop()!, detail: "" };
    groups.set(strategy, rows);
    const above = depth ? group(strategy.slice(0, strategy.lastIndexOf("/")), at) : top;
    above.push(head);
    // A marker of where the group's rows go, so that they stay under their head however late they come.
    above.push({ kind: "strategy", key: `m${strategy}`, depth: -1, at, title: strategy, detail: "" });
    return rows;
  };

  for (const entry of entries) {
    if (entry.attempt !== attempt) continue;
    const strategy = entry.strategy ?? "";
    const depth = strategy ? strategy.split("/").length : 0;
    const rows = () => (strategy ? group(strategy, entry.at) : top);
    switch (entry.type) {
      case "started": {
        const row: SampleRow = {
          kind: "sample",
          key: `s${entry.sample}`,
          depth,
          sample: entry.sample!,
          role: entry.role ?? "sample",
          model: entry.model ?? "",
          began: entry.at,
          ended: undefined,
          stop: undefined,
          text: undefined,
          reasoning: undefined,
          usage: undefined,
          grades: [],
        };
        samples.set(entry.sample!, row);
        rows().push(row);
        break;
      }
      case "done": {
        const row = samples.get(entry.sample!);
        if (row)
          Object.assign(row, {
            ended: entry.at,
            stop: entry.stop_reason,
            text: entry.text,
            reasoning: entry.reasoning,
            usage: entry.usage ?? undefined,
          });
        break;
      }
      case "graded":
        samples.get(entry.sample!)?.grades.push({
          score: entry.score ?? null,
          status: entry.status ?? "",
          why: entry.why ?? "",
        });
        break;
      case "planned":
        rows().push(event(entry, "planned", depth, "Plan", (entry.steps ?? []).join("\n")));
        break;
      case "voted": {
        const votes = (entry.votes ?? []).map((each) => ({ answer: each.answer, count: each.samples.length }));
        const row = event(entry, "voted", depth, "Vote", "");
        rows().push({ ...row, votes });
        break;
      }
      case "stopped":
        rows().push(
          event(entry, "stopped", depth, `Ended early: ${cutWord(entry.cut ?? "")}`, entry.why ?? ""),
        );
        break;
      case "answered":
        top.push(event(entry, "answered", 0, entry.cut ? `Answered, because ${cutWord(entry.cut)}` : "Answered", ""));
        break;
      default:
        if (entry.type in PEOPLE)
          top.push(
            event(
              entry,
              "person",
              0,
              `${PEOPLE[entry.type]}${entry.used ? `, at token ${entry.used.toLocaleString("en-US")}` : ""}`,
              entry.text ?? "",
            ),
          );
    }
  }
  return flat(top, groups);
}

function event(entry: Entry, kind: EventRow["kind"], depth: number, title: string, detail: string): EventRow {
  return { kind, key: `e${entry.n}`, depth, at: entry.at, title, detail };
}

function flat(rows: TraceRow[], groups: Map<string, TraceRow[]>): TraceRow[] {
  return rows.flatMap((row) =>
    row.kind === "strategy" && row.depth < 0 ? flat(groups.get(row.title)!, groups) : [row],
  );
}

/** From the first to the last moment of the rows; what runs still ends now. */
export function spanOf(rows: TraceRow[], now: number): { from: number; to: number } {
  let from = Infinity;
  let to = -Infinity;
  for (const row of rows) {
    const began = row.kind === "sample" ? row.began : row.at;
    from = Math.min(from, began);
    to = Math.max(to, row.kind === "sample" ? (row.ended ?? now) : row.at);
  }
  return from < Infinity ? { from, to: Math.max(to, from + 0.001) } : { from: now, to: now + 1 };
}

/** The sample whose text the answer is: the first that says it. */
export function chosenSample(rows: TraceRow[], answer: string | null): SampleRow | undefined {
  const samples = rows.filter((row): row is SampleRow => row.kind === "sample" && row.text !== undefined);
  return samples.find((row) => row.text!.trim() === (answer ?? "").trim()) ?? (samples.length === 1 ? samples[0] : undefined);
}

/** How many tokens the prompt of a sample has. Of samples that are drawn together, the first alone is billed with it. */
export function promptOf(rows: TraceRow[], sample: SampleRow): number {
  const alike = rows.filter((row): row is SampleRow => row.kind === "sample" && row.role === sample.role && row.model === sample.model);
  return Math.max(0, ...alike.map((row) => row.usage?.input_tokens ?? 0));
}
