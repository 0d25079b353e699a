// `/v1/runs`, as docs/serving.md writes it down.
import { call, query } from "./client";

export interface RunStage {
  name: string;
  done: boolean;
  step: number;
  target_steps: number | null;
  target_tokens: number | null;
  updated_at: number;
  samples: number[];
  latest: Record<string, number | null>;
}

export interface Run {
  id: string;
  live: boolean;
  stages: RunStage[];
}

export interface RunMetrics {
  live: boolean;
  done: boolean;
  truncate: number | null;
  last_step: number;
  mark: number;
  records: number;
  knots: [number, number, number, number][];
  curves: { key: string; steps: number[]; values: (number | null)[] }[];
}

export interface Sample {
  task: string;
  level: number;
  question: string;
  gold: string | null;
  thinking: string;
  answer: string;
  turns: { role: string; thinking: string; text: string }[];
  reward: number;
  score: number;
  status: string;
  why: string;
  ended: string;
  tokens: number;
}

export async function listRuns(): Promise<Run[]> {
  const found: Run[] = [];
  for (let after: string | undefined; ; ) {
    const page = await call<{ data: Run[]; has_more: boolean }>("GET", `runs${query({ after })}`);
    found.push(...page.data);
    if (!page.has_more) return found;
    after = page.data.at(-1)!.id;
  }
}

export const readMetrics = (run: string, stage: string, cursor: { after_step: number; mark: number } | undefined) =>
  call<RunMetrics>("GET", `runs/metrics${query({ run, stage, ...cursor })}`);

export const readSamples = (run: string, stage: string, step: number) =>
  call<{ data: Sample[]; has_more: boolean }>("GET", `runs/samples${query({ run, stage, step, limit: 100 })}`);

export const readRecipe = (run: string) => call<{ toml: string }>("GET", `runs/recipe${query({ run })}`);
