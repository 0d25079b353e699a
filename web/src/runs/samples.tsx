// What a stage sampled, at two of its steps side by side.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { wordsOf } from "../api/client";
import { readSamples, type RunStage, type Sample } from "../api/runs";
import { route, setParams } from "../router";
import { count, plural } from "../text/format";
import { pairs } from "./pairs";
import { figure } from "./words";

const FEW = 12; // that are shown at first

export function Samples({ run, stage }: { run: string; stage: RunStage }) {
  const steps = stage.samples;
  const chosen = (name: string, otherwise: number) => {
    const said = Number(route.value.params.get(name));
    return steps.includes(said) ? said : otherwise;
  };
  const before = chosen("a", steps[0]!);
  const after = chosen("b", steps.at(-1)!);
  const left = useSamples(run, stage.name, before);
  const right = useSamples(run, stage.name, after);
  const all = useSignal(false);
  const rows = pairs(left.value.data, after === before ? [] : right.value.data);
  const problem = left.value.problem || right.value.problem;
  const pick = (name: string, label: string, step: number) => (
    <label>
      {label}
      <select value={step} onChange={(event) => setParams({ [name]: event.currentTarget.value })}>
        {steps.map((each) => (
          <option key={each} value={each}>
            step {count(each)}
          </option>
        ))}
      </select>
    </label>
  );
  return (
    <section class="samples" aria-label="Samples">
      <header class="row">
        <h2>Samples</h2>
        <span class="soft">
          {stage.name}, {plural(steps.length, "step")} written down
        </span>
        <span class="space" />
        {steps.length > 1 && pick("a", "Left", before)}
        {steps.length > 1 && pick("b", "Right", after)}
      </header>
      {problem && (
        <p class="wrong" role="alert">
          {problem}
        </p>
      )}
      <ol>
        {rows.slice(0, all.value ? undefined : FEW).map(([one, other], at) => (
          <li key={at} class="pair">
            <Question sample={(one ?? other)!} />
            <div class="sides">
              <Side sample={one} step={before} />
              {after !== before && <Side sample={other} step={after} own={one?.question !== other?.question} />}
            </div>
          </li>
        ))}
      </ol>
      {!all.value && rows.length > FEW && <button onClick={() => (all.value = true)}>Show all {count(rows.length)}</button>}
    </section>
  );
}

function Question({ sample }: { sample: Sample }) {
  return (
    <p class="asked">
      <span class="tag">{sample.task.replaceAll("_", " ")}</span> {sample.question}
      {sample.gold !== null && <span class="soft"> Right: {sample.gold}</span>}
    </p>
  );
}

function Side({ sample, step, own }: { sample: Sample | undefined; step: number; own?: boolean }) {
  const open = useSignal(false);
  if (!sample)
    return (
      <div class="side soft">
        <small>step {count(step)}</small>
        <p>No other sample of this task at this step.</p>
      </div>
    );
  const grade = sample.score >= 0.99 ? "done" : sample.score > 0 ? "queued" : "failed";
  const thought = [sample.thinking, ...sample.turns.slice(1).map((turn) => `${turn.role}: ${turn.text}`)].filter(Boolean).join("\n\n");
  return (
    <div class="side">
      <small class="row">
        <span class="soft">step {count(step)}</span>
        <span class={`pill ${grade}`}>{sample.score >= 0.99 ? "right" : sample.score > 0 ? `score ${figure(sample.score)}` : "wrong"}</span>
        <span class="soft tabular">
          reward {figure(sample.reward)}, {plural(sample.tokens, "token")}
          {sample.ended !== "end" && `, ended: ${sample.ended.replaceAll("_", " ")}`}
        </span>
      </small>
      {own && <p class="asked">{sample.question}</p>}
      <p class="said">{sample.answer || <em class="soft">no answer</em>}</p>
      {sample.why && sample.score < 0.99 && <p class="soft why">{sample.why}</p>}
      {thought && (
        <>
          <button class="link" aria-expanded={open.value} onClick={() => (open.value = !open.value)}>
            {open.value ? "Hide" : "Show"} its thinking
          </button>
          {open.value && (
            <pre class="plain" tabIndex={0}>
              {thought}
            </pre>
          )}
        </>
      )}
    </div>
  );
}

function useSamples(run: string, stage: string, step: number) {
  const found = useSignal<{ data: Sample[]; problem: string }>({ data: [], problem: "" });
  useEffect(() => {
    let gone = false;
    readSamples(run, stage, step)
      .then(({ data }) => !gone && (found.value = { data, problem: "" }))
      .catch((error) => !gone && (found.value = { data: [], problem: wordsOf(error) }));
    return () => void (gone = true);
  }, [run, stage, step]);
  return found;
}
