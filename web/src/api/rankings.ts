// `/v1/rankings`, as docs/serving.md writes it down.
import { call, query } from "./client";

export interface RankingInfo {
  id: string;
  sets: number;
  judgements: number;
  kept: boolean;
}

export interface OfferedSet {
  prompt: string;
  answers: { text: string; reasoning?: string; made?: string }[];
}

export interface Shown {
  ticket: string;
  prompt: { role: string; text: string }[];
  answers: string[];
}

export interface NextSet {
  rater: string;
  judged: number;
  left: number;
  shown: Shown | null;
}

export interface Agreed {
  value: number;
  low: number | null;
  high: number | null;
  count: number;
}

export interface Agreement {
  raters: { rater: string; judged: number; skipped: number }[];
  pairs: Agreed | null;
  alpha: Agreed | null;
  with_self: Agreed | null;
}

export interface Added {
  added: number;
  left_out: { number: number; why: string }[];
}

const at = (name: string) => `rankings/${encodeURIComponent(name)}`;

export const listRankings = () => call<{ data: RankingInfo[]; kept: boolean }>("GET", "rankings");
export const nextSet = (name: string, rater: string) => call<NextSet>("GET", `${at(name)}/next${query({ rater })}`);
export const readAgreement = (name: string) => call<Agreement>("GET", `${at(name)}/agreement`);
export const deleteRanking = (name: string) => call<unknown>("DELETE", at(name));
export const exportOf = (name: string, kind: "rankings" | "pairs") => `${at(name)}/export${query({ kind })}`;
export const addSets = (name: string, sets: OfferedSet[], signal?: AbortSignal) =>
  call<Added>("POST", `${at(name)}/sets`, { body: { sets }, ...(signal && { signal }) });

export const judge = (
  name: string,
  body: { rater: string; ticket: string; order?: string; skip?: boolean; reason?: string; seconds: number },
) => call<NextSet>("POST", `${at(name)}/judgements`, { body });

interface Choice {
  finish_reason: string;
  message: { content: string | null };
}

/** Whole answers to a prompt, drawn independently. One that ran out of tokens is left out: nobody can judge it. */
export async function drawAnswers(
  prompt: string,
  settings: { model: string; n: number; temperature: number; effort: string },
  signal: AbortSignal,
): Promise<OfferedSet> {
  const { model, n, temperature, effort } = settings;
  const body = {
    model,
    n,
    temperature,
    messages: [{ role: "user", content: prompt }],
    ...(effort && { reasoning_effort: effort }),
  };
  const { choices } = await call<{ choices: Choice[] }>("POST", "chat/completions", { body, signal });
  const whole = choices.filter((choice) => choice.finish_reason === "stop" && choice.message.content?.trim());
  const made = `${model}, temperature ${temperature}${effort && `, effort ${effort}`}`;
  return { prompt, answers: whole.map((choice) => ({ text: choice.message.content!, made })) };
}
