// `/v1/jobs`, as docs/jobs.md writes it down.
import { call, query } from "./client";

export type State = "queued" | "in_progress" | "needs_input" | "completed" | "incomplete" | "failed" | "cancelled";

export interface Usage {
  input_tokens: number;
  cached_tokens: number;
  output_tokens: number;
  reasoning_tokens: number;
}

export interface Need {
  id: string;
  reason: string;
  text: string;
  choices: { id: string; label: string }[];
  default: string | null;
  takes_text: boolean;
}

export interface Job {
  id: string;
  number: number;
  state: State;
  revision: number;
  attempt: number;
  model: string;
  effort: string | null;
  strategy: string | null;
  budget: number | null;
  batch: string | null;
  custom_id: string | null;
  labels: string[];
  title: string;
  answer: string | null;
  answer_length: number;
  need: Need | null;
  error: { code: string; message: string } | null;
  votes: { agree: number; of: number; margin: number } | null;
  seen: boolean;
  usage: Usage | null;
  response_id: string | null;
  created_at: number;
  started_at: number | null;
  ended_at: number | null;
  changed: number;
}

export interface Progress {
  id: string;
  phase: "think" | "answer" | "tool" | "prefill";
  used: number;
  budget: number | null;
  samples: { begun: number; done: number; planned: number | null } | null;
  votes: [string, number][] | null;
  rate: number | null;
  elapsed: number;
}

export interface Attempt {
  attempt: number;
  kind: string;
  text: string | null;
  response_id: string | null;
  status: string;
  usage: Usage | null;
  dropped_turns: number;
  created_at: number;
  ended_at: number | null;
}

export interface BillLine extends Usage {
  strategy: string;
  role: string;
  model: string;
  refilled_tokens: number;
}

export interface Part {
  type: string;
  text?: string;
  refusal?: string;
}

export interface Item {
  type: string;
  role?: string;
  content?: string | Part[];
  summary?: Part[];
  name?: string;
  arguments?: string;
  output?: string | Part[];
}

export interface WholeJob extends Job {
  input: Item[] | string;
  instructions: string | null;
  output: Item[];
  follow_ups: string[];
  attempts: Attempt[];
  bill: BillLine[];
  window: number | null;
  progress: Progress | null;
}

/** What an event cost, as the engine counts; what is 0 may be left out. */
export interface Entry {
  n: number;
  at: number;
  attempt: number;
  type: string;
  strategy?: string;
  sample?: number;
  role?: string;
  model?: string;
  choice?: number | null;
  stop_reason?: string;
  text?: string;
  reasoning?: string;
  usage?: Usage | null;
  score?: number | null;
  status?: string;
  why?: string;
  votes?: { answer: string; samples: number[]; weight: number | null }[];
  margin?: number | null;
  steps?: string[];
  cut?: string | null;
  used?: number | null;
}

export interface Filters {
  batch?: string;
  model?: string;
  label?: string;
  q?: string;
}

export interface Page {
  data: Job[];
  has_more: boolean;
  next: string | null;
  last_event: number;
}

export interface Counts {
  total: number;
  states: Record<State, number>;
  unseen_incomplete: number;
  batches: { batch: string; total: number }[];
  last_event: number;
}

export interface NewJob {
  input: string;
  custom_id?: string;
  model?: string;
  effort?: string;
  strategy?: string;
  budget?: number;
  labels?: string[];
  instructions?: string;
}

export interface HandOver {
  defaults: Partial<NewJob> & { model: string };
  jobs: NewJob[];
  batch?: string;
  on_error: "reject_all" | "skip";
}

export interface HandedOver {
  data: Job[];
  errors: { index: number; param: string | null; code: string; message: string }[];
  last_event: number;
}

export interface BulkResult {
  changed: number;
  failed: { id: string; code: string; message: string }[];
  last_event: number;
}

export interface Model {
  id: string;
  max_model_len: number | null;
  parent: string | null;
}

const at = (id: string) => `jobs/${encodeURIComponent(id)}`;

function search(parameters: Filters, more: Record<string, string | number | undefined>, states: State[] = []) {
  const text = query({ ...parameters, ...more });
  const named = states.map((state) => `state=${state}`).join("&");
  return named ? `${text || "?"}${text ? "&" : ""}${named}` : text;
}

export const listJobs = (
  states: State[],
  filters: Filters,
  options: { sort?: string; limit?: number; after?: string; unseen?: boolean } = {},
) => {
  const { unseen, ...rest } = options;
  return call<Page>("GET", `jobs${search(filters, { ...rest, unseen: unseen ? "true" : undefined }, states)}`);
};

export const countJobs = (filters: Filters) => call<Counts>("GET", `jobs/counts${search(filters, {})}`);
export const getJob = (id: string) => call<WholeJob>("GET", `${at(id)}?include=reasoning.content`);
export const deleteJob = (id: string) => call<{ deleted: boolean }>("DELETE", at(id));

export const getTrace = (id: string, after: number) =>
  call<{ data: Entry[]; has_more: boolean; next: number }>(
    "GET",
    `${at(id)}/trace${query({ after, limit: 500, include: "reasoning.content" })}`,
  );

export const getLens = (id: string, attempt: string, signal: AbortSignal) =>
  call<unknown>("GET", `${at(id)}/lens${query({ attempt })}`, { signal });

export const branchJob = (id: string, body: { attempt?: number; place: number; token: number }) =>
  call<WholeJob>("POST", `${at(id)}/branch`, { body });

export const handOver = (body: HandOver, key: string) =>
  call<HandedOver>("POST", "jobs", { body, headers: { "Idempotency-Key": key } });

export const act = (id: string, action: string, body: Record<string, unknown> = {}) =>
  call<WholeJob>("POST", `${at(id)}/${action}`, { body });

export const actOnMany = (body: Record<string, unknown>, keepalive = false) =>
  call<BulkResult>("POST", "jobs/actions", { body, keepalive });

export const listModels = () => call<{ data: Model[] }>("GET", "models");

export const exportPath = (format: string, filters: Filters, states: State[] = []) =>
  `jobs/export${search(filters, { format }, states)}`;

/** The text of an item or of what was asked. */
export function textOf(content: string | Part[] | undefined): string {
  if (content === undefined) return "";
  if (typeof content === "string") return content;
  return content.map((part) => part.text ?? part.refusal ?? "").join("");
}

export const isLive = (state: State) => state === "queued" || state === "in_progress";
