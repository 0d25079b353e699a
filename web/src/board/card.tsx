// One card: at most four lines, and as high as all others of its column.
import { useSignal, type Signal } from "@preact/signals";
import { doOne, fits, select, selected } from "../actions";
import type { Job, Progress } from "../api/jobs";
import { Icon } from "../parts/icon";
import { href } from "../router";
import { columnOf, now, progressOf, usualSeconds, type ColumnName } from "../store";
import { about, ago, clock, firstLine, short } from "../text/format";

interface Props {
  job: Signal<Job>;
  column: ColumnName;
  /** Whether Tab comes to this card: one in each column does, and arrow keys go on from there. */
  entry: boolean;
}

export function Card({ job: known, column, entry }: Props) {
  const job = known.value;
  const moved = columnOf(job) !== column; // it is held where it was, because the reader is here
  const on = selected.value.has(job.id);
  return (
    <article class={`card ${columnOf(job)}${on ? " selected" : ""}${moved ? " moved" : ""}`}>
      <label class="pick">
        <input
          type="checkbox"
          tabIndex={-1}
          checked={on}
          aria-label={`Select ${job.title.slice(0, 60)}`}
          onChange={() => select(job.id)}
        />
      </label>
      <Inside job={job} entry={entry} />
    </article>
  );
}

function Inside({ job, entry }: { job: Job; entry: boolean }) {
  switch (columnOf(job)) {
    case "queued":
      return <Queued job={job} entry={entry} />;
    case "thinking":
      return <Thinking job={job} entry={entry} />;
    case "needs":
      return <Needs job={job} entry={entry} />;
    case "done":
      return <Done job={job} entry={entry} />;
    case "failed":
      return <Failed job={job} entry={entry} />;
  }
}

function Title({ job, entry, children, class: name }: { job: Job; entry: boolean; children: string; class?: string }) {
  return (
    <h3 class={`title${name ? ` ${name}` : ""}`}>
      <a href={href(`/jobs/${job.id}`)} tabIndex={entry ? 0 : -1}>
        {children || "(empty)"}
      </a>
    </h3>
  );
}

export function Facts({ job }: { job: Job }) {
  return (
    <span class="facts">
      {[job.model, job.effort, job.strategy && shortStrategy(job.strategy), ...job.labels].filter(Boolean).map((each, at) => (
        <span key={at}>{each}</span>
      ))}
    </span>
  );
}

/** consensus(samples=8) as consensus ×8 */
export function shortStrategy(strategy: string) {
  return strategy.replace(/\(samples=(\d+)\)/g, " ×$1");
}

function Queued({ job, entry }: { job: Job; entry: boolean }) {
  const usual = usualSeconds(job);
  return (
    <>
      <Title job={job} entry={entry} class="two">
        {job.title}
      </Title>
      <p class="line">
        <Facts job={job} />
        <span class="end">{usual === undefined ? ago(now.value - job.created_at) : about(usual)}</span>
      </p>
    </>
  );
}

const PHASES = { prefill: "reading", think: "thinking", answer: "answering", tool: "calling a tool" };
const STALLED = 30; // seconds

function Thinking({ job, entry }: { job: Job; entry: boolean }) {
  return (
    <>
      <Title job={job} entry={entry}>
        {job.title}
      </Title>
      <Figures job={job} />
    </>
  );
}

/** How far a running job is, in numbers from its first second on. */
export function Figures({ job }: { job: Job }) {
  const moving = progressOf(job.id).value;
  const elapsed = now.value - job.created_at; // since it was handed over: waiting counts for who waits
  const share = moving?.budget ? Math.min(1, moving.used / moving.budget) : undefined;
  return (
    <>
      <p class="line votes">{moving ? <Votes moving={moving} /> : <Facts job={job} />}</p>
      <Bar share={share} moving={moving} />
      <p class="line">
        <span class="facts">
          <span>{moving ? PHASES[moving.phase] : "starting"}</span>
          {moving && (
            <span class="tabular">
              {short(moving.used)}
              {moving.budget ? ` of ${short(moving.budget)}` : " tokens"}
            </span>
          )}
          {moving?.rate != null && moving.phase !== "prefill" && <Rate moving={moving} />}
        </span>
        <span class="end tabular">{clock(elapsed)}</span>
      </p>
    </>
  );
}

const lastMove = new Map<string, { used: number; at: number }>();

function Rate({ moving }: { moving: Progress }) {
  const last = lastMove.get(moving.id);
  if (!last || last.used !== moving.used) lastMove.set(moving.id, { used: moving.used, at: now.value });
  const still = now.value - (lastMove.get(moving.id)?.at ?? now.value);
  if (still > STALLED) return <span class="warn">no token for {clock(still)}</span>;
  return <span class="tabular">{Math.round(moving.rate!)}/s</span>;
}

function Bar({ share, moving }: { share: number | undefined; moving: Progress | undefined }) {
  const samples = moving?.samples;
  const many = samples?.planned && samples.planned > 1;
  const part = share ?? (many ? samples.done / samples.planned! : undefined);
  const said = part === undefined ? "No end is known" : `${Math.round(part * 100)}%`;
  return (
    <div
      class={`meter${part === undefined ? " open" : ""}`}
      role="progressbar"
      aria-label={share === undefined ? "Samples that are done" : "Tokens of the budget"}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={part === undefined ? undefined : Math.round(part * 100)}
      aria-valuetext={said}
    >
      <span style={{ transform: `scaleX(${part ?? 0})` }} />
    </div>
  );
}

export function Votes({ moving }: { moving: Progress }) {
  const votes = moving.votes ?? [];
  const samples = moving.samples;
  if (!votes.length)
    return (
      <span class="facts">
        {samples && (samples.planned ?? samples.begun) > 1 ? (
          <span>
            {samples.done} of {samples.planned ?? samples.begun} samples
          </span>
        ) : (
          <span>no answer yet</span>
        )}
      </span>
    );
  return (
    <span class="facts tally">
      {votes.slice(0, 3).map(([answer, number], at) => (
        <span key={at}>
          <b>{firstLine(answer).slice(0, 24)}</b> ×{number}
        </span>
      ))}
      {samples && <span>{samples.done} of {samples.planned ?? samples.begun}</span>}
    </span>
  );
}

const REASONS: Record<string, string> = {
  budget: "Budget spent",
  tie: "Samples disagree",
  tool: "Calls a tool",
  review: "Ready for review",
  question: "Asks you",
  contradiction: "Contradiction",
};

export const reasonWord = (reason: string) => REASONS[reason] ?? reason;

function Needs({ job, entry }: { job: Job; entry: boolean }) {
  const need = job.need;
  return (
    <>
      <p class="reason">{need ? reasonWord(need.reason) : "Cut short"}</p>
      <Title job={job} entry={entry}>
        {job.title}
      </Title>
      <p class="says">{need ? need.text : job.answer ? `Best so far: ${firstLine(job.answer)}` : "It ended without an answer."}</p>
      {need ? <AnswerBox job={job} /> : <Unseen job={job} />}
    </>
  );
}

export function AnswerBox({ job, large = false }: { job: Job; large?: boolean }) {
  const text = useSignal("");
  const need = job.need!;
  const many = need.choices.length > 3;
  return (
    <form
      class={`answerbox${large ? " large" : ""}`}
      onSubmit={(event) => {
        event.preventDefault();
        if (text.value.trim()) void doOne(job, "answer", { need: need.id, text: text.value.trim() });
      }}
    >
      <div class="row">
        {need.choices.slice(0, large ? 12 : 3).map((choice) => (
          <button
            key={choice.id}
            type="button"
            class={choice.id === need.default ? "tinted" : ""}
            title={choice.label}
            onClick={() => void doOne(job, "answer", { need: need.id, choice: choice.id })}
          >
            <span class="clip">{choiceWord(need.reason, choice)}</span>
          </button>
        ))}
        {many && !large && <span class="soft">…</span>}
      </div>
      {need.takes_text && (
        <div class="type">
          <input
            value={text.value}
            aria-label="Your own answer"
            placeholder={PLACEHOLDERS[need.reason] ?? "Or type the answer"}
            onInput={(event) => (text.value = event.currentTarget.value)}
          />
          <button class="square" disabled={!text.value.trim()}>
            <Icon name="send" />
            <span class="hidden">Send</span>
          </button>
        </div>
      )}
    </form>
  );
}

const PLACEHOLDERS: Record<string, string> = { tool: "Result of the call", review: "Say what to change", question: "Your answer" };

const CHOICES: Record<string, string> = {
  accept: "Accept",
  extend: "Give it more",
  decline: "Decline",
  decide: "Let it decide",
  again: "Look again",
};

const choiceWord = (reason: string, choice: { id: string; label: string }) =>
  reason === "tie" ? firstLine(choice.label) : (CHOICES[choice.id] ?? choice.label);

function Unseen({ job }: { job: Job }) {
  return (
    <div class="row">
      <button class="tinted" onClick={() => void doOne(job, "seen")}>
        Accept
      </button>
      <button onClick={() => void doOne(job, "extend", { tokens: job.budget ?? 2048 })}>Give it more</button>
      <button onClick={() => void doOne(job, "retry")}>Ask again</button>
    </div>
  );
}

function Done({ job, entry }: { job: Job; entry: boolean }) {
  return (
    <>
      <Title job={job} entry={entry} class="answer">
        {job.answer ? firstLine(job.answer) : "(no answer)"}
      </Title>
      <p class="asked">{job.title}</p>
      <p class="line">
        <span class="facts">
          {job.votes && (
            <span>
              {job.votes.agree} of {job.votes.of} agree
            </span>
          )}
          {job.usage && <span class="tabular">{short(job.usage.output_tokens)} tokens</span>}
          {job.attempt > 1 && <span>attempt {job.attempt}</span>}
          {job.state === "incomplete" && <span class="warn">cut short</span>}
        </span>
        <span class="end tabular">{tookWord(job)}</span>
      </p>
    </>
  );
}

export const tookWord = (job: Job) =>
  job.ended_at && job.started_at ? clock(job.ended_at - job.started_at) : "";

function Failed({ job, entry }: { job: Job; entry: boolean }) {
  return (
    <>
      <Title job={job} entry={entry}>
        {job.title}
      </Title>
      <p class="says">{job.state === "cancelled" ? "Cancelled" : (job.error?.message ?? "Failed")}</p>
      <div class="row">
        {fits("retry", job) && <button onClick={() => void doOne(job, "retry")}>Ask again</button>}
        <span class="end soft">{job.ended_at ? ago(now.value - job.ended_at) : ""}</span>
      </div>
    </>
  );
}
