// What can be done to jobs, from the board, the list and the page of one job.
import { signal } from "@preact/signals";
import { ApiError, wordsOf } from "./api/client";
import { act, actOnMany, type Job, type State } from "./api/jobs";
import { later, toast } from "./parts/toast";
import { go } from "./router";
import { jobs, takeNow } from "./store";
import { plural } from "./text/format";

export const selected = signal<ReadonlySet<string>>(new Set());

export function select(id: string, on = !selected.value.has(id)) {
  const next = new Set(selected.value);
  if (on) next.add(id);
  else next.delete(id);
  selected.value = next;
}

export const clearSelection = () => (selected.value = new Set());

export type Action = "cancel" | "retry" | "delete" | "finish" | "extend" | "seen";

const FITS: Record<Action, State[]> = {
  cancel: ["queued", "in_progress", "needs_input"],
  retry: ["completed", "incomplete", "failed", "cancelled"],
  finish: ["in_progress"],
  extend: ["incomplete", "needs_input"],
  seen: ["completed", "incomplete", "failed", "cancelled"],
  delete: ["queued", "in_progress", "needs_input", "completed", "incomplete", "failed", "cancelled"],
};

export const fits = (action: Action, job: Job) => FITS[action].includes(job.state);

const DONE: Record<Action, string> = {
  cancel: "cancelled",
  retry: "asked again",
  finish: "told to answer now",
  extend: "extended",
  seen: "marked as seen",
  delete: "deleted",
};

/** One action on one job; what the server refuses is said in its words. Returns whether it happened. */
export async function doOne(job: Job, action: string, body: Record<string, unknown> = {}): Promise<boolean> {
  try {
    takeNow(await act(job.id, action, { revision: job.revision, ...body }));
    return true;
  } catch (error) {
    const stale = error instanceof ApiError && error.code === "revision_conflict";
    toast(stale ? "This job changed meanwhile: look again." : wordsOf(error), { bad: true });
    return false;
  }
}

/** One action on the selected jobs that it fits, in five seconds unless it is taken back. */
export function doMany(action: Action, fields: Record<string, unknown> = {}) {
  const ids = [...selected.value].filter((id) => {
    const job = jobs.get(id)?.value;
    return job && fits(action, job);
  });
  if (!ids.length) {
    toast("None of the selected jobs can take that.", { bad: true });
    return;
  }
  clearSelection();
  later(`${plural(ids.length, "job")} will be ${DONE[action]}`, async (leaving) => {
    try {
      const body = { action, ids, expected_count: ids.length, ...fields };
      const result = await actOnMany(body, leaving);
      if (result.failed.length)
        toast(`${plural(result.failed.length, "job")} could not be ${DONE[action]}: ${result.failed[0]!.message}`, { bad: true });
    } catch (error) {
      toast(wordsOf(error), { bad: true });
    }
  });
}

export function compareSelected() {
  const ids = [...selected.value].slice(0, 3);
  if (ids.length < 2) toast("Select two or three jobs to compare.", { bad: true });
  else go("/compare", { ids: ids.join(",") });
}
