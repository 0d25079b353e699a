// Handing over work: one box for a question, a list, JSON lines or CSV, with what becomes of it before it is sent.
import { signal, useComputed, useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { ApiError, wordsOf } from "../api/client";
import { handOver, listModels, type Model, type NewJob } from "../api/jobs";
import { Dialog } from "../parts/dialog";
import { toast } from "../parts/toast";
import { go, route } from "../router";
import { jobs as known, load } from "../store";
import { plural, short } from "../text/format";
import { FIELDS, guessFormat, guessMapping, readJobs, type BadLine, type Format, type Mapping } from "./read";

const open = signal(false);
const text = signal("");
const MOST = 1000; // jobs of one request
const SHOWN = 6;

export const models = signal<Model[]>([]);
const chosen = signal({ model: "", effort: "", strategy: "", budget: "", batch: "", labels: "" });

export const STRATEGIES = ["direct", "consensus(samples=8)", "best_of(samples=4)", "refine", "approaches", "search"];
export const EFFORTS = ["none", "minimal", "low", "medium", "high"];

export async function loadModels() {
  models.value = (await listModels()).data;
  if (!models.value.some((each) => each.id === chosen.value.model))
    chosen.value = { ...chosen.value, model: models.value[0]?.id ?? "" };
}

/** Opens the box, with a text that may stand in it already. It is sent only when its button is pressed. */
export function openHandOver(begin?: string) {
  if (begin !== undefined) text.value = begin;
  open.value = true;
}

export function HandOverDialog() {
  return (
    <Dialog open={open} title="Hand over work" wide>
      <Form />
    </Dialog>
  );
}

function Form() {
  const format = useSignal<Format | "auto">("auto");
  const file = useSignal("");
  const mapping = useSignal<Mapping | undefined>(undefined);
  const sending = useSignal(false);
  const problem = useSignal("");
  const refused = useSignal<BadLine[]>([]);
  const box = useRef<HTMLTextAreaElement>(null);
  // The same request sent again, because no answer came, must not hand over its jobs twice.
  const keys = useRef(new Map<string, string>());
  const used = useComputed(() => (format.value === "auto" ? guessFormat(text.value, file.value) : format.value));
  const read = useComputed(() => readJobs(text.value, used.value, mapping.value));
  useEffect(() => {
    box.current?.focus();
    loadModels().catch((error) => (problem.value = wordsOf(error)));
  }, []);

  const { jobs, bad, columns, lines } = read.value;

  async function takeFile(dropped: File | undefined) {
    if (!dropped) return;
    text.value = await dropped.text();
    file.value = dropped.name;
    mapping.value = undefined;
    format.value = "auto";
  }

  async function send(skip: boolean) {
    if (sending.value || !jobs.length) return;
    sending.value = true;
    problem.value = "";
    const { model, effort, strategy, budget, batch, labels } = chosen.value;
    const defaults: Partial<NewJob> & { model: string } = { model };
    if (effort) defaults.effort = effort;
    if (strategy) defaults.strategy = strategy;
    if (budget) defaults.budget = Number(budget);
    if (labels.trim()) defaults.labels = labels.split(/[,\s]+/).filter(Boolean);
    let sent = 0;
    const failed: BadLine[] = [];
    try {
      for (let from = 0; from < jobs.length; from += MOST) {
        const part = jobs.slice(from, from + MOST);
        const body = { defaults, jobs: part, ...(batch ? { batch } : {}), on_error: skip ? ("skip" as const) : ("reject_all" as const) };
        const said = JSON.stringify(body);
        const key = keys.current.get(said) ?? crypto.getRandomValues(new Uint32Array(4)).join("-");
        keys.current.set(said, key);
        const answer = await handOver(body, key);
        sent += answer.data.length;
        failed.push(...answer.errors.map((each) => ({ line: lines[from + each.index]!, why: each.message })));
      }
      toast(`${plural(sent, "job")} handed over`);
      keys.current.clear();
      refused.value = failed;
      text.value = "";
      file.value = "";
      if (!failed.length) open.value = false;
      if (route.value.path !== "/" && sent > 1) go("/");
      void load();
    } catch (error) {
      const at = error instanceof ApiError ? /^jobs\[(\d+)\]/.exec(error.param) : null;
      problem.value = `${at ? `Line ${lines[Number(at[1])]}: ` : ""}${wordsOf(error)}`;
      if (sent) problem.value += ` (${plural(sent, "job")} before it were handed over.)`;
    } finally {
      sending.value = false;
    }
  }

  return (
    <form
      class="handover"
      onSubmit={(event) => {
        event.preventDefault();
        void send(false);
      }}
      onDragOver={(event) => event.preventDefault()}
      onDrop={(event) => {
        event.preventDefault();
        void takeFile(event.dataTransfer?.files[0]);
      }}
    >
      <label class="hidden" for="handover-text">
        Questions
      </label>
      <textarea
        id="handover-text"
        ref={box}
        rows={7}
        placeholder={"One question a line.\nOr paste JSON lines or CSV, or drop a file here."}
        value={text.value}
        onInput={(event) => {
          text.value = event.currentTarget.value;
          file.value = "";
          refused.value = [];
        }}
        onKeyDown={(event) => {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) void send(false);
        }}
        spellcheck={false}
      />
      <div class="row">
        <label>
          Read as
          <select value={format.value} onChange={(event) => (format.value = event.currentTarget.value as Format)}>
            <option value="auto">
              {text.value.trim() ? `As it looks: ${FORMATS[used.value].toLowerCase()}` : "As it looks"}
            </option>
            {Object.entries(FORMATS).map(([name, says]) => (
              <option key={name} value={name}>
                {says}
              </option>
            ))}
          </select>
        </label>
        <label class="file">
          <span>Choose a file</span>
          <input
            type="file"
            accept=".txt,.jsonl,.ndjson,.csv,.tsv"
            onChange={(event) => void takeFile(event.currentTarget.files?.[0])}
          />
        </label>
        {file.value && <span class="soft">{file.value}</span>}
      </div>

      {used.value === "csv" && columns.length > 0 && (
        <fieldset class="mapping">
          <legend>Columns</legend>
          {columns.map((column) => (
            <label key={column}>
              {column}
              <select
                value={(mapping.value ?? guessMapping(columns))[column]}
                onChange={(event) =>
                  (mapping.value = { ...(mapping.value ?? guessMapping(columns)), [column]: event.currentTarget.value })
                }
              >
                <option value="">left out</option>
                {FIELDS.map((field) => (
                  <option key={field}>{field}</option>
                ))}
              </select>
            </label>
          ))}
        </fieldset>
      )}

      {(jobs.length > 0 || bad.length > 0) && (
        <section class="preview" aria-label="What will be handed over">
          <ol>
            {jobs.slice(0, SHOWN).map((job, at) => (
              <li key={at}>
                <span>{job.input.slice(0, 300)}</span>
                {[job.custom_id, job.effort, job.strategy, ...(job.labels ?? [])].filter(Boolean).map((each) => (
                  <span key={each} class="tag">
                    {each}
                  </span>
                ))}
              </li>
            ))}
          </ol>
          {jobs.length > SHOWN && <p class="soft">and {plural(jobs.length - SHOWN, "more", "more")}</p>}
          <BadLines lines={bad} says="cannot be read and will not go" />
        </section>
      )}
      <BadLines lines={refused.value} says="were refused by the server; all others are handed over" />

      <div class="settings">
        <Setting label="Model">
          <select value={chosen.value.model} onChange={(event) => choose("model", event.currentTarget.value)}>
            {models.value.map((each) => (
              <option key={each.id}>{each.id}</option>
            ))}
          </select>
        </Setting>
        <Setting label="Effort">
          <select value={chosen.value.effort} onChange={(event) => choose("effort", event.currentTarget.value)}>
            <option value="">the model's</option>
            {EFFORTS.map((each) => (
              <option key={each}>{each}</option>
            ))}
          </select>
        </Setting>
        <Setting label="Strategy">
          <input
            list="strategies"
            placeholder="direct"
            value={chosen.value.strategy}
            onInput={(event) => choose("strategy", event.currentTarget.value)}
          />
        </Setting>
        <Setting label="Budget, tokens">
          <input
            type="number"
            min={1}
            placeholder="no bound"
            value={chosen.value.budget}
            onInput={(event) => choose("budget", event.currentTarget.value)}
          />
        </Setting>
        <Setting label="Batch">
          <input
            placeholder="none"
            maxLength={64}
            value={chosen.value.batch}
            onInput={(event) => choose("batch", event.currentTarget.value)}
          />
        </Setting>
        <Setting label="Labels">
          <input placeholder="none" value={chosen.value.labels} onInput={(event) => choose("labels", event.currentTarget.value)} />
        </Setting>
        <Strategies />
      </div>

      {problem.value && (
        <p class="wrong" role="alert">
          {problem.value}{" "}
          {jobs.length > 1 && (
            <button type="button" class="link" onClick={() => void send(true)}>
              Hand over the others
            </button>
          )}
        </p>
      )}
      <footer>
        <p class="soft">{estimate(jobs)}</p>
        <button class="primary large" disabled={!jobs.length || sending.value || !chosen.value.model}>
          {sending.value ? "Handing over…" : jobs.length ? `Hand over ${plural(jobs.length, "job")}` : "Hand over"}
        </button>
      </footer>
    </form>
  );
}

const FORMATS: Record<Format, string> = {
  lines: "A question a line",
  whole: "One question",
  jsonl: "JSON lines",
  csv: "CSV",
};

export function Strategies() {
  return (
    <datalist id="strategies">
      {STRATEGIES.map((each) => (
        <option key={each} value={each} />
      ))}
    </datalist>
  );
}

function Setting({ label, children }: { label: string; children: ComponentChildren }) {
  return (
    <label>
      {label}
      {children}
    </label>
  );
}

function BadLines({ lines, says }: { lines: BadLine[]; says: string }) {
  if (!lines.length) return null;
  return (
    <div class="wrong" role="alert">
      <p>
        {plural(lines.length, "line")} {says}:
      </p>
      <ul>
        {lines.slice(0, 8).map((each) => (
          <li key={each.line}>
            Line {each.line} {each.why}
          </li>
        ))}
      </ul>
      {lines.length > 8 && <p>and {lines.length - 8} more</p>}
    </div>
  );
}

function choose(name: keyof typeof chosen.value, value: string) {
  chosen.value = { ...chosen.value, [name]: value };
}

/** What these jobs may cost, where at least five like them are done; else nothing is guessed. */
function estimate(jobs: NewJob[]) {
  if (!jobs.length) return "Ctrl+Enter hands over.";
  const { model, effort, strategy } = chosen.value;
  const spent: number[] = [];
  for (const each of known.values()) {
    const job = each.peek();
    const like = job.model === model && (job.effort ?? "") === effort && (job.strategy ?? "") === strategy;
    if (like && job.usage && job.state === "completed") spent.push(job.usage.output_tokens);
  }
  if (spent.length < 5) return "Ctrl+Enter hands over.";
  const median = spent.sort((a, b) => a - b)[spent.length >> 1]!;
  return `About ${short(median * jobs.length)} tokens, as jobs like these took.`;
}
