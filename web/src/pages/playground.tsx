// One question, asked in several ways: each try is a job, watched here from its first second, with its bill beside the
// others'. It goes on when the page is left.
import { signal, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { doOne, fits } from "../actions";
import { ApiError, wordsOf } from "../api/client";
import { handOver, isLive, listJobs, type Job, type NewJob } from "../api/jobs";
import { AnswerBox, Figures, shortStrategy, tookWord } from "../board/card";
import { EFFORTS, loadModels, models, STRATEGIES } from "../handover/dialog";
import { liveText, useLiveText } from "../job/live";
import { useShortcuts } from "../keys";
import { Icon } from "../parts/icon";
import { StatePill } from "../parts/state";
import { href, route } from "../router";
import { jobs, put, takeNow } from "../store";
import { count, plural } from "../text/format";
import { Markdown } from "../text/markdown";

const LABEL = "playground"; // by which its jobs are known
const MOST = 12; // tries that are shown
const THOUGHT = 420; // characters of a running thought that are shown

const tries = signal<string[]>([]);

const question = signal("");
const effort = signal("");
const strategy = signal("");
const model = signal("");
const budget = signal("");

const WAYS: Record<string, string> = {
  direct: "One answer",
  "consensus(samples=8)": "Eight answers, and a vote",
  "best_of(samples=4)": "Four answers, and the best",
  refine: "An answer, looked over",
  approaches: "Several ways to go about it",
  search: "A tree of steps",
};

export default function Playground() {
  const problem = useSignal("");
  const sending = useSignal(false);
  const field = useRef<HTMLTextAreaElement>(null);
  useEffect(() => {
    const given = route.value.params.get("q"); // filled in, not sent: an address never acts
    if (given) question.value = given;
    loadModels()
      .then(() => (model.value ||= models.value[0]?.id ?? ""))
      .catch((error) => (problem.value = wordsOf(error)));
    if (!tries.value.length)
      listJobs([], { label: LABEL }, { sort: "-created", limit: MOST })
        .then(({ data }) => {
          if (!tries.value.length) tries.value = data.map((job) => put(job).id);
        })
        .catch((error) => (problem.value = wordsOf(error)));
  }, []);
  useShortcuts([{ keys: ["e"], says: "Write the question", act: () => field.current?.focus() }]);

  async function ask() {
    if (!question.value.trim() || sending.value) return;
    sending.value = true;
    problem.value = "";
    const defaults: Partial<NewJob> & { model: string } = { model: model.value, labels: [LABEL] };
    if (effort.value) defaults.effort = effort.value;
    if (strategy.value) defaults.strategy = strategy.value;
    if (budget.value) defaults.budget = Number(budget.value);
    try {
      const key = crypto.getRandomValues(new Uint32Array(4)).join("-");
      const { data } = await handOver({ defaults, jobs: [{ input: question.value.trim() }], on_error: "reject_all" }, key);
      takeNow(data[0]!);
      tries.value = [data[0]!.id, ...tries.value].slice(0, MOST);
    } catch (error) {
      problem.value = error instanceof ApiError ? error.message.replace(/^jobs\[0\]: /, "") : wordsOf(error);
    } finally {
      sending.value = false;
    }
  }

  const shown = tries.value.flatMap((id) => jobs.get(id) ?? []);
  const running = shown.find((job) => isLive(job.value.state))?.value;
  useLiveText(running?.response_id ?? null, running?.state === "in_progress");

  return (
    <div class="playground" data-ready="playground">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void ask();
        }}
      >
        <h1>Playground</h1>
        <textarea
          ref={field}
          rows={4}
          aria-label="Question"
          placeholder="What is 4821 * 7093?"
          value={question.value}
          onInput={(event) => (question.value = event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
              event.preventDefault();
              void ask();
            }
          }}
        />
        <fieldset>
          <legend>How long to think</legend>
          <div class="choice">
            {["", ...EFFORTS].map((each) => (
              <button key={each} type="button" aria-pressed={effort.value === each} onClick={() => (effort.value = each)}>
                {each || "as usual"}
              </button>
            ))}
          </div>
        </fieldset>
        <fieldset>
          <legend>How to find the answer</legend>
          <div class="ways">
            {STRATEGIES.map((each) => (
              <button
                key={each}
                type="button"
                aria-pressed={(strategy.value || "direct") === each}
                onClick={() => (strategy.value = each === "direct" ? "" : each)}
              >
                <b>{WAYS[each] ?? each}</b>
                <code>{each}</code>
              </button>
            ))}
          </div>
        </fieldset>
        <div class="settings">
          <label>
            Model
            <select value={model.value} onChange={(event) => (model.value = event.currentTarget.value)}>
              {models.value.map((each) => (
                <option key={each.id}>{each.id}</option>
              ))}
            </select>
          </label>
          <label>
            Budget, tokens
            <input
              type="number"
              min={1}
              placeholder="no bound"
              value={budget.value}
              onInput={(event) => (budget.value = event.currentTarget.value)}
            />
          </label>
        </div>
        {problem.value && (
          <p class="wrong" role="alert">
            {problem.value}
          </p>
        )}
        <button class="primary large" disabled={!question.value.trim() || !model.value || sending.value}>
          <Icon name="send" />
          Ask
          <kbd>Ctrl ↵</kbd>
        </button>
      </form>
      <section class="tries" aria-label="Tries">
        {shown.map((job) => (
          <Try key={job.value.id} job={job.value} followed={job.value === running} />
        ))}
        {!shown.length && (
          <div class="blank">
            <span class="badge">
              <Icon name="thinking" size={20} />
            </span>
            <h2>Ask the same in several ways</h2>
            <p>Each try shows what it thinks, its speed and its bill. It is a job: it goes on when you leave, and stands on the board.</p>
          </div>
        )}
      </section>
    </div>
  );
}

function Try({ job, followed }: { job: Job; followed: boolean }) {
  const live = isLive(job.state);
  const { thought, answer } = liveText.value;
  return (
    <article class="try" data-state={job.state}>
      <header class="row">
        <StatePill job={job} />
        <span class="soft">{[job.model, job.effort ?? "effort as usual", job.strategy ? shortStrategy(job.strategy) : "direct"].join(" · ")}</span>
        <span class="space" />
        {fits("cancel", job) && (
          <button onClick={() => void doOne(job, "cancel")}>
            <Icon name="stop" />
            Stop
          </button>
        )}
        {!live && job.response_id && (
          <a class="button" href={href(`/lens/${job.id}`)}>
            Lens
          </a>
        )}
        <a class="button" href={href(`/jobs/${job.id}`)}>
          Open
        </a>
      </header>
      <p class="soft asked clip">{job.title}</p>
      {live && (
        <div class="progressing">
          <Figures job={job} />
        </div>
      )}
      {live && followed && thought && !answer && (
        <pre class="lastline" aria-label="What it thinks">
          {thought.length > THOUGHT ? `…${thought.slice(-THOUGHT)}` : thought}
        </pre>
      )}
      {live && followed && answer && <Markdown text={answer} />}
      {job.need && (
        <>
          <p class="warn">{job.need.text}</p>
          <AnswerBox job={job} />
        </>
      )}
      {!live && job.state === "failed" && <p class="wrong">{job.error?.message ?? "It failed."}</p>}
      {!live && job.answer && (
        <div class={`hero${job.answer.length < 40 ? " big" : ""}`}>
          <Markdown text={job.answer + (job.answer_length > job.answer.length ? " …" : "")} />
        </div>
      )}
      {!live && job.usage && (
        <dl class="figures">
          <Figure name="thinking" value={count(job.usage.reasoning_tokens)} />
          <Figure name="answer" value={count(Math.max(0, job.usage.output_tokens - job.usage.reasoning_tokens))} />
          <Figure name="prompt" value={`${count(job.usage.input_tokens)}${job.usage.cached_tokens ? ` + ${count(job.usage.cached_tokens)} cached` : ""}`} />
          {tookWord(job) && <Figure name="time" value={tookWord(job)} />}
          {job.votes && <Figure name="agree" value={`${job.votes.agree} of ${plural(job.votes.of, "sample")}`} />}
        </dl>
      )}
    </article>
  );
}

function Figure({ name, value }: { name: string; value: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}
