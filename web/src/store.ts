// The jobs that the page knows: a signal for each, so that a change draws one card again; and the columns of the board
// as lists of ids, kept up to date one job at a time.
import { batch, computed, signal, type Signal } from "@preact/signals";
import { countJobs, isLive, listJobs, type Counts, type Filters, type Job, type Progress, type State } from "./api/jobs";
import { startFeed, type FeedEvent } from "./api/feed";
import { wordsOf } from "./api/client";

export type ColumnName = "queued" | "thinking" | "needs" | "done" | "failed";

export interface Column {
  name: ColumnName;
  title: string;
  states: State[];
  sort: string;
}

export const COLUMNS: Column[] = [
  { name: "queued", title: "Queued", states: ["queued"], sort: "created" },
  { name: "thinking", title: "Thinking", states: ["in_progress"], sort: "created" },
  { name: "needs", title: "Needs you", states: ["needs_input"], sort: "-changed" },
  { name: "done", title: "Done", states: ["completed", "incomplete"], sort: "-changed" },
  { name: "failed", title: "Failed", states: ["failed", "cancelled"], sort: "-changed" },
];

export interface Loaded {
  ids: Signal<string[]>;
  /** Where the next page begins; null: all is here. */
  next: Signal<string | null>;
}

const PAGE = 100;
const FLUSH = 250; // milliseconds over which changes are gathered: painting is what costs

export const jobs = new Map<string, Signal<Job>>();
export const progress = new Map<string, Signal<Progress | undefined>>();
export const counts = signal<Counts | undefined>(undefined);
export const filters = signal<Filters>({});
export const loading = signal(true);
export const failure = signal("");
export const now = signal(Date.now() / 1000);
export const columns: Record<ColumnName, Loaded> = {
  queued: emptyColumn(),
  thinking: emptyColumn(),
  needs: emptyColumn(),
  done: emptyColumn(),
  failed: emptyColumn(),
};
export const needing = computed(() => (counts.value ? counts.value.states.needs_input + counts.value.unseen_incomplete : 0));

/** What happened, in words for a screen reader: those that need the reader, and those that are done. */
export const news = signal("");

export function columnOf(job: Job): ColumnName {
  if (job.state === "queued") return "queued";
  if (job.state === "in_progress") return "thinking";
  if (job.state === "needs_input" || (job.state === "incomplete" && !job.seen)) return "needs";
  return job.state === "completed" || job.state === "incomplete" ? "done" : "failed";
}

let stopFeed: (() => void) | undefined;
let generation = 0;
let reading: Promise<void> | undefined;

/** Reads everything again, under the filters of now, and follows what happens from there. */
export function load(): Promise<void> {
  const mine = ++generation;
  loading.value = true;
  reading = (async () => {
    try {
      const [found, unseen, ...pages] = await Promise.all([
        countJobs(filters.value),
        listJobs(["incomplete"], filters.value, { unseen: true, limit: PAGE, sort: "-changed" }),
        ...COLUMNS.map((column) => listJobs(column.states, filters.value, { limit: PAGE, sort: column.sort })),
      ]);
      if (mine !== generation) return;
      batch(() => {
        counts.value = found;
        failure.value = "";
        // The pages are read one beside the other: a job that moved meanwhile stands in two, and its newer state counts.
        for (const page of [unseen, ...pages]) page.data.forEach(put);
        COLUMNS.forEach((column, at) => {
          const page = pages[at]!;
          const extra = column.name === "needs" ? unseen.data : [];
          const read = [...page.data, ...extra].map((job) => jobs.get(job.id)!.value);
          const own = read.filter((job) => columnOf(job) === column.name);
          columns[column.name].ids.value = ordered(own, column).map((job) => job.id);
          columns[column.name].next.value = page.has_more ? page.next : null;
        });
        loading.value = false;
      });
      if (pages.some((page) => page.last_event !== found.last_event)) recountSoon();
      stopFeed?.();
      stopFeed = startFeed(found.last_event, take);
    } catch (error) {
      if (mine !== generation) return;
      failure.value = wordsOf(error);
      loading.value = false;
    }
  })();
  return reading;
}

export async function loadMore(column: Column) {
  const { ids, next } = columns[column.name];
  const after = next.value;
  if (after === null) return;
  const mine = generation;
  next.value = null; // one at a time
  try {
    const page = await listJobs(column.states, filters.value, { limit: PAGE, sort: column.sort, after });
    if (mine !== generation) return;
    const known = new Set(ids.value);
    const fresh = page.data.map(put).filter((job) => columnOf(job) === column.name && !known.has(job.id));
    batch(() => {
      ids.value = [...ids.value, ...fresh.map((job) => job.id)];
      next.value = page.has_more ? page.next : null;
    });
  } catch {
    if (mine === generation) next.value = after;
  }
}

/** Takes a job as the server gave it, unless a newer revision is known. */
export function put(job: Job): Job {
  const known = jobs.get(job.id);
  if (!known) {
    jobs.set(job.id, signal(job));
    return job;
  }
  if (job.revision >= known.value.revision) known.value = job;
  return known.value;
}

export const progressOf = (id: string) => {
  let found = progress.get(id);
  if (!found) progress.set(id, (found = signal<Progress | undefined>(undefined)));
  return found;
};

// Changes ---------------------------------------------------------------------------------------------------------

const waiting: FeedEvent[] = [];
let flushing = false;
const listeners = new Set<(job: Job) => void>();

/** Calls back with each job that changed. Returns what ends it. */
export function onChange(listener: (job: Job) => void) {
  listeners.add(listener);
  return () => void listeners.delete(listener);
}

export function take(event: FeedEvent) {
  if (event.kind === "reset") {
    void load();
    return;
  }
  waiting.push(event);
  if (flushing) return;
  flushing = true;
  setTimeout(() => {
    flushing = false;
    flush();
  }, FLUSH);
}

/** A job that an action gave back: shown at once. */
export function takeNow(job: Job) {
  waiting.push({ kind: "job", id: job.changed, job });
  flush();
}

function flush() {
  const events = waiting.splice(0);
  batch(() => {
    for (const event of events) {
      if (event.kind === "progress") for (const each of event.progress) moved(each);
      else if (event.kind === "job") changed(event.job);
      else if (event.kind === "deleted") gone(event.job);
    }
  });
}

function moved(each: Progress) {
  const job = jobs.get(each.id);
  if (job && !isLive(job.value.state)) return; // it has ended: nothing revives it
  progressOf(each.id).value = each;
}

function changed(job: Job) {
  const known = jobs.get(job.id);
  const before = known?.value;
  if (before && job.revision <= before.revision) return;
  put(job);
  if (!isLive(job.state)) progressOf(job.id).value = undefined;
  const shown = matches(job, filters.value);
  const from = before && columnOf(before);
  const to = shown ? columnOf(job) : undefined;
  if (from !== to) {
    if (from) leave(from, job.id);
    if (to) enter(to, job.id);
  }
  recount(before, job, shown);
  tell(job, from, to);
  for (const listener of listeners) listener(job);
}

function gone(id: string) {
  const known = jobs.get(id);
  if (!known) return;
  leave(columnOf(known.value), id);
  recount(known.value, undefined, matches(known.value, filters.value));
  jobs.delete(id);
  progress.delete(id);
}

function leave(column: ColumnName, id: string) {
  const { ids } = columns[column];
  if (ids.value.includes(id)) ids.value = ids.value.filter((each) => each !== id);
}

function enter(column: ColumnName, id: string) {
  const { ids, next } = columns[column];
  if (ids.value.includes(id)) return;
  const newestFirst = COLUMNS.find((each) => each.name === column)!.sort.startsWith("-");
  if (newestFirst) ids.value = [id, ...ids.value];
  else if (next.value === null) ids.value = [...ids.value, id]; // else it is on a page that is not here yet
}

function recount(before: Job | undefined, after: Job | undefined, shown: boolean) {
  if (!counts.value || !shown) return;
  recountSoon(); // what follows is at once; what was not seen here is put right
  if (!before && after && after.revision > 1) return; // its state before is not known here
  const states = { ...counts.value.states };
  let { total, unseen_incomplete } = counts.value;
  if (before) states[before.state] -= 1;
  else total += 1;
  if (after) states[after.state] += 1;
  else total -= 1;
  const unseen = (job: Job | undefined) => Number(job?.state === "incomplete" && !job.seen);
  unseen_incomplete += unseen(after) - unseen(before);
  if (before || after) counts.value = { ...counts.value, total, states, unseen_incomplete };
}

let recounting = false;
const RECOUNT = 2000; // milliseconds

function recountSoon() {
  if (recounting) return;
  recounting = true;
  setTimeout(async () => {
    recounting = false;
    const mine = generation;
    const found = await countJobs(filters.value).catch(() => undefined);
    if (found && mine === generation) counts.value = found;
  }, RECOUNT);
}

function tell(job: Job, from: ColumnName | undefined, to: ColumnName | undefined) {
  if (from === to) return;
  if (to === "needs") news.value = `Needs you: ${job.title.slice(0, 80)}`;
  else if (to === "done") news.value = `Done: ${(job.answer ?? "").slice(0, 60)} – ${job.title.slice(0, 80)}`;
}

/** Whether a job is among those that the filters let through, as the server decides it. */
export function matches(job: Job, { batch, model, label, q }: Filters) {
  if (batch && job.batch !== batch) return false;
  if (model && job.model !== model) return false;
  if (label && !job.labels.includes(label)) return false;
  if (!q) return true;
  const texts = [job.title, job.answer, job.batch, job.custom_id, ...job.labels];
  return texts.some((text) => text?.toLowerCase().includes(q.toLowerCase()));
}

function ordered(found: Job[], column: Column) {
  return column.sort.startsWith("-") ? found.sort((a, b) => b.changed - a.changed) : found;
}

function emptyColumn(): Loaded {
  return { ids: signal<string[]>([]), next: signal<string | null>(null) };
}

/** Seconds that a job of this kind takes, from the finished ones that are here; undefined below five of them. */
export function usualSeconds(job: Job): number | undefined {
  const key = kindOf(job);
  const known = usual.get(key);
  if (known && known.at > Date.now() - 10_000) return known.seconds;
  const seconds: number[] = [];
  for (const each of jobs.values()) {
    const other = each.peek();
    if (other.ended_at && other.started_at && other.state === "completed" && kindOf(other) === key)
      seconds.push(other.ended_at - other.started_at);
  }
  const median = seconds.length < 5 ? undefined : seconds.sort((a, b) => a - b)[seconds.length >> 1];
  usual.set(key, { at: Date.now(), seconds: median });
  return median;
}

const usual = new Map<string, { at: number; seconds: number | undefined }>();
const kindOf = (job: Job) => `${job.model}\n${job.strategy}\n${job.effort}`;

setInterval(() => {
  if (document.visibilityState === "visible") now.value = Date.now() / 1000;
}, 1000);
