// One job: the answer first, then what led to it.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { doOne, fits } from "../actions";
import { ApiError, wordsOf } from "../api/client";
import { deleteJob, getJob, getTrace, isLive, textOf, type Entry, type Job, type WholeJob } from "../api/jobs";
import { AnswerBox, Facts, Figures, reasonWord } from "../board/card";
import { Bill, Context } from "../job/bill";
import { Composer } from "../job/composer";
import { liveText, useLiveText } from "../job/live";
import { Strategy } from "../job/strategy";
import { chosenSample, rowsOf } from "../job/trace";
import { useShortcuts } from "../keys";
import type { PageProps } from "../pages";
import { Fold } from "../parts/fold";
import { Icon } from "../parts/icon";
import { StatePill } from "../parts/state";
import { later, toast } from "../parts/toast";
import { go, href, route } from "../router";
import { columnOf, columns, jobs, now, onChange, takeNow, type ColumnName } from "../store";
import { ago, clock, count, plural } from "../text/format";
import { Markdown } from "../text/markdown";

const POLL = 1500; // milliseconds between two looks at the events of a running strategy
const LAST_LINE = 160;

export default function JobPage({ rest: id }: PageProps) {
  const found = useSignal<WholeJob | undefined>(undefined);
  const entries = useSignal<Entry[] | undefined>(undefined); // undefined: not read yet
  const failed = useSignal("");
  const thoughtOpen = useSignal(false);

  useEffect(() => {
    let gone = false;
    found.value = undefined;
    entries.value = undefined;
    failed.value = "";
    const read = async () => {
      try {
        const whole = await getJob(id);
        if (gone) return;
        found.value = whole;
        takeNow(whole);
        await readTrace();
      } catch (error) {
        if (!gone) failed.value = error instanceof ApiError && error.status === 404 ? "There is no such job." : wordsOf(error);
      }
    };
    let reading = false;
    let again = false; // something may have come after the page that is being read
    const readTrace = async () => {
      if (gone) return;
      if (reading) {
        again = true;
        return;
      }
      reading = true;
      try {
        for (let more = true; more && !gone; ) {
          again = false;
          const page = await getTrace(id, entries.value?.at(-1)?.n ?? 0);
          if (gone) return;
          entries.value = [...(entries.value ?? []), ...page.data];
          more = page.has_more || again;
        }
      } catch {
        // Looked at again while it runs, and when it changes.
      } finally {
        reading = false;
      }
    };
    void read();
    const stop = onChange((job) => {
      if (job.id === id) void read();
    });
    const look = setInterval(() => {
      if (found.value?.state === "in_progress" && document.visibilityState === "visible") void readTrace();
    }, POLL);
    return () => {
      gone = true;
      stop();
      clearInterval(look);
    };
  }, [id]);

  const whole = found.value?.id === id ? found.value : undefined;
  const job = whole && { ...whole, ...fresher(whole) };
  useLiveText(job?.response_id ?? null, job?.state === "in_progress");

  const act = (action: string, able: boolean, body: Record<string, unknown> = {}) => {
    if (job && able) void doOne(job, action, body);
  };
  const neighbours = job ? around(job) : undefined;
  const write = route.value.params.get("write");
  const compose = () => document.querySelector<HTMLTextAreaElement>(".composer textarea")?.focus();
  useShortcuts([
    { keys: ["j", "ArrowRight"], says: "Next job of its column", act: () => neighbours?.next && go(`/jobs/${neighbours.next}`) },
    { keys: ["k", "ArrowLeft"], says: "Job before", act: () => neighbours?.before && go(`/jobs/${neighbours.before}`) },
    { keys: ["t"], says: "Fold or unfold the reasoning", act: () => (thoughtOpen.value = !thoughtOpen.value) },
    { keys: ["s", "f"], says: "Steer or follow up", act: compose },
    { keys: ["c"], says: "Cancel", act: () => job && act("cancel", fits("cancel", job)) },
    { keys: ["r"], says: "Ask again", act: () => job && act("retry", fits("retry", job)) },
    { keys: ["Escape"], says: "Back to the board", act: () => go("/") },
  ]);

  if (failed.value)
    return (
      <div class="blank" data-ready="job" role="alert">
        <h1>{failed.value}</h1>
        <p>It may have been deleted, or belong to another key.</p>
        <a class="button" href={href("/")}>
          Back to the board
        </a>
      </div>
    );
  if (!job) return <div class="blank" aria-busy="true" />;

  const running = isLive(job.state);
  const attempt = job.attempt;
  const rows = rowsOf(entries.value ?? [], attempt);
  const { earlier, asked } = turnsOf(job);

  return (
    <div class="jobpage" data-ready="job" data-state={job.state}>
      <div class="jobbar">
        <a class="back" href={href("/")}>
          <Icon name="left" />
          Board
        </a>
        {neighbours && neighbours.of > 1 && (
          <span class="steps">
            <button
              class="quiet square"
              disabled={!neighbours.before}
              onClick={() => go(`/jobs/${neighbours.before}`)}
            >
              <Icon name="left" />
              <span class="hidden">Job before</span>
            </button>
            <span class="soft tabular">
              {count(neighbours.at)} of {count(neighbours.of)}
            </span>
            <button class="quiet square" disabled={!neighbours.next} onClick={() => go(`/jobs/${neighbours.next}`)}>
              <Icon name="right" />
              <span class="hidden">Next job</span>
            </button>
          </span>
        )}
        <span class="space" />
        <Actions job={job} />
      </div>

      <div class="jobgrid">
        <div class="main">
          <header class="question">
            <p class="row">
              <StatePill job={job} />
              <span class="soft">
                <Facts job={job} />
              </span>
              <span class="soft">{ago(now.value - job.created_at)}</span>
              {job.attempt > 1 && <span class="tag">attempt {job.attempt}</span>}
              {job.attempts[0]?.kind === "branch" && (
                <span class="tag" title={job.attempts[0].text ?? ""}>
                  from another token
                </span>
              )}
            </p>
            <h1 class={asked.length > 140 ? "long" : ""}>{asked}</h1>
          </header>

          <Answer job={job} />

          {(running || reasoningOf(job)) && (
            <Fold title="Reasoning" facts={thoughtFacts(job)} state={thoughtOpen}>
              <pre class="plain thought">
                {reasoningOf(job) || liveText.value.thought || "What it thinks is shown when it is done."}
              </pre>
            </Fold>
          )}

          <Fold title="How it was found" facts={job.strategy ?? "direct"} open>
            <Strategy entries={entries.value ?? []} read={entries.value !== undefined} attempt={attempt} live={running} />
          </Fold>

          {earlier.length > 0 && (
            <Fold title="Earlier in this conversation" facts={plural(earlier.length, "message")}>
              <ol class="turns">
                {earlier.map((turn, at) => (
                  <li key={at} class={turn.role}>
                    <b>{turn.role === "assistant" ? "Answer" : turn.role === "user" ? "You" : turn.role}</b>
                    <div>{turn.role === "assistant" ? <Markdown text={turn.text} /> : <pre class="said">{turn.text}</pre>}</div>
                  </li>
                ))}
              </ol>
            </Fold>
          )}

          {job.attempts.length > 1 && (
            <Fold title="Attempts" facts={String(job.attempts.length)}>
              <ol class="attempts">
                {job.attempts.map((each) => (
                  <li key={each.attempt}>
                    <b>{each.attempt}</b> <span>{KINDS[each.kind] ?? each.kind}</span>
                    {each.text && <span class="soft">“{each.text.slice(0, 200)}”</span>}
                    <span class="soft end">
                      {each.status.replace("_", " ")}
                      {each.usage && `, ${count(each.usage.output_tokens)} tokens`}
                    </span>
                  </li>
                ))}
              </ol>
            </Fold>
          )}

          <Composer job={job} focus={write !== null} />
        </div>

        <aside aria-label="Bill and context">
          <section>
            <h2>Bill</h2>
            <Bill job={job} />
          </section>
          <section>
            <h2>What the next turn sees</h2>
            <Context job={job} chosen={chosenSample(rows, job.answer)} rows={rows} />
          </section>
          <section>
            <h2>Facts</h2>
            <dl class="factlist">
              {factsOf(job).map(([name, value]) => (
                <div key={name}>
                  <dt>{name}</dt>
                  <dd>{value}</dd>
                </div>
              ))}
            </dl>
          </section>
        </aside>
      </div>
    </div>
  );
}

function Actions({ job }: { job: WholeJob }) {
  return (
    <>
      {fits("finish", job) && (
        <button onClick={() => void doOne(job, "finish")}>
          <Icon name="check" />
          Answer now
        </button>
      )}
      {fits("cancel", job) && (
        <button onClick={() => void doOne(job, "cancel")}>
          <Icon name="stop" />
          Cancel
        </button>
      )}
      {job.response_id && !isLive(job.state) && (
        <a class="button" href={href(`/lens/${job.id}`)}>
          <Icon name="lens" />
          Lens
        </a>
      )}
      {fits("retry", job) && (
        <>
          <button onClick={() => void doOne(job, "retry")}>
            <Icon name="retry" />
            Ask again
          </button>
          {job.effort !== "high" && (
            <button onClick={() => void doOne(job, "retry", { effort: "high" })}>With high effort</button>
          )}
        </>
      )}
      <button
        class="quiet square"
        title="Delete"
        onClick={() => {
          go("/");
          later("This job will be deleted", () => void deleteJob(job.id).catch((error) => toast(wordsOf(error), { bad: true })));
        }}
      >
        <Icon name="trash" />
        <span class="hidden">Delete this job</span>
      </button>
    </>
  );
}

function Answer({ job }: { job: WholeJob }) {
  if (job.state === "needs_input" && job.need)
    return (
      <section class="answer needs" aria-label="Needs you">
        <p class="reason">{reasonWord(job.need.reason)}</p>
        <div class="says">
          <Markdown text={job.need.text} />
        </div>
        <AnswerBox job={job} large />
      </section>
    );
  if (job.state === "in_progress" || job.state === "queued")
    return (
      <section class="answer thinking" aria-label="Progress">
        {job.state === "queued" ? (
          <p class="soft">It waits for its turn, since {clock(now.value - job.created_at)}.</p>
        ) : (
          <>
            <div class="progressing">
              <Figures job={job} />
            </div>
            {liveText.value.answer ? (
              <div class="hero">
                <Markdown text={liveText.value.answer} />
              </div>
            ) : (
              liveText.value.thought && <p class="lastline">{lastLine(liveText.value.thought)}</p>
            )}
          </>
        )}
      </section>
    );
  if (job.state === "failed" || job.state === "cancelled")
    return (
      <section class="answer failed" aria-label="Outcome">
        <p class="says">{job.state === "cancelled" ? "Cancelled." : (job.error?.message ?? "It failed.")}</p>
        {job.answer && <Markdown text={job.answer} />}
      </section>
    );
  return (
    <section class="answer done" aria-label="Answer">
      <div class={`hero${(job.answer ?? "").length < 40 ? " big" : ""}`}>
        {job.answer ? <Markdown text={job.answer} /> : <p class="soft">It ended without an answer.</p>}
      </div>
      <div class="row under">
        {job.votes && (
          <span class="agree">
            <span class="dots" aria-hidden="true">
              {Array.from({ length: Math.min(16, job.votes.of) }, (_, at) => (
                <i key={at} class={at < job.votes!.agree ? "yes" : ""} />
              ))}
            </span>
            {job.votes.agree} of {job.votes.of} samples agree
          </span>
        )}
        {job.state === "incomplete" && <span class="warn">cut short: its tokens were spent</span>}
        <span class="space" />
        {job.state === "incomplete" && (
          <button onClick={() => void doOne(job, "extend", { tokens: job.budget ?? 2048 })}>Give it more</button>
        )}
        {job.answer && <Copy text={job.answer} />}
      </div>
    </section>
  );
}

function Copy({ text }: { text: string }) {
  const copied = useSignal(false);
  return (
    <button
      onClick={async () => {
        try {
          await navigator.clipboard.writeText(text);
          copied.value = true;
          setTimeout(() => (copied.value = false), 1500);
        } catch {
          toast("This browser lets no page copy here: select the text.", { bad: true });
        }
      }}
    >
      <Icon name={copied.value ? "check" : "copy"} />
      {copied.value ? "Copied" : "Copy"}
    </button>
  );
}

const KINDS: Record<string, string> = {
  first: "as handed over",
  restart: "the server started again",
  retry: "asked again",
  extend: "with more tokens",
  steer: "steered",
  follow_up: "follow-up",
  answer: "after your answer",
  finish: "answered at once",
  branch: "from another token",
};

/** What the board knows may be newer than what this page read. */
function fresher(whole: WholeJob): Partial<Job> {
  const known = jobs.get(whole.id)?.value;
  if (!known || known.revision <= whole.revision) return {};
  const { answer: _, ...rest } = known;
  return rest;
}

function around(job: Job): { at: number; of: number; before?: string; next?: string } | undefined {
  const name: ColumnName = columnOf(job);
  const ids = columns[name].ids.value;
  const at = ids.indexOf(job.id);
  if (at < 0) return undefined;
  const found: { at: number; of: number; before?: string; next?: string } = { at: at + 1, of: ids.length };
  if (ids[at - 1]) found.before = ids[at - 1]!;
  if (ids[at + 1]) found.next = ids[at + 1]!;
  return found;
}

interface Turn {
  role: string;
  text: string;
}

/** The conversation before what was asked last, and that. */
function turnsOf(job: WholeJob): { earlier: Turn[]; asked: string } {
  if (typeof job.input === "string") return { earlier: [], asked: job.input };
  const turns = job.input
    .filter((item) => item.type === "message" || item.type === undefined || item.role)
    .map((item) => ({ role: item.role ?? "user", text: textOf(item.content) }));
  const last = turns.findLastIndex((turn) => turn.role === "user");
  return { earlier: turns.slice(0, Math.max(0, last)), asked: turns[last]?.text ?? job.title };
}

function reasoningOf(job: WholeJob) {
  return job.output
    .filter((item) => item.type === "reasoning")
    .map((item) => textOf(item.content) || textOf(item.summary))
    .filter(Boolean)
    .join("\n\n");
}

function thoughtFacts(job: WholeJob) {
  const tokens = job.attempts.at(-1)?.usage?.reasoning_tokens ?? job.usage?.reasoning_tokens;
  const seconds = job.started_at && job.ended_at ? clock(job.ended_at - job.started_at) : "";
  return [tokens && `${count(tokens)} tokens`, seconds].filter(Boolean).join(", ");
}

const lastLine = (text: string) => {
  const line = text.trimEnd().split("\n").at(-1) ?? "";
  return line.length > LAST_LINE ? `…${line.slice(-LAST_LINE)}` : line;
};

function factsOf(job: WholeJob): [string, string][] {
  const facts: [string, string | null | undefined][] = [
    ["Number", String(job.number)],
    ["Model", job.model],
    ["Strategy", job.strategy ?? "direct"],
    ["Effort", job.effort],
    ["Budget", job.budget ? `${count(job.budget)} tokens` : null],
    ["Batch", job.batch],
    ["Your name for it", job.custom_id],
    ["Labels", job.labels.join(", ")],
    ["Handed over", new Date(job.created_at * 1000).toLocaleString()],
    ["Waited", job.started_at ? clock(job.started_at - job.created_at) : null],
    ["Took", job.started_at && job.ended_at ? clock(job.ended_at - job.started_at) : null],
  ];
  return facts.filter((each): each is [string, string] => Boolean(each[1]));
}
