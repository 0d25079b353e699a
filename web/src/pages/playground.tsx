// One question, with effort and strategy: a job like any other, opened at once.
import { signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { ApiError, wordsOf } from "../api/client";
import { handOver, type NewJob } from "../api/jobs";
import { EFFORTS, loadModels, models, STRATEGIES } from "../handover/dialog";
import { Icon } from "../parts/icon";
import { go, route } from "../router";
import { takeNow } from "../store";

const question = signal("");
const effort = signal("");
const strategy = signal("");
const model = signal("");

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
  useEffect(() => {
    const given = route.value.params.get("q"); // filled in, not sent: an address never acts
    if (given) question.value = given;
    loadModels()
      .then(() => (model.value ||= models.value[0]?.id ?? ""))
      .catch((error) => (problem.value = wordsOf(error)));
  }, []);

  async function ask() {
    if (!question.value.trim() || sending.value) return;
    sending.value = true;
    problem.value = "";
    const defaults: Partial<NewJob> & { model: string } = { model: model.value };
    if (effort.value) defaults.effort = effort.value;
    if (strategy.value) defaults.strategy = strategy.value;
    try {
      const key = crypto.getRandomValues(new Uint32Array(4)).join("-");
      const { data } = await handOver({ defaults, jobs: [{ input: question.value.trim() }], on_error: "reject_all" }, key);
      takeNow(data[0]!);
      go(`/jobs/${data[0]!.id}`);
    } catch (error) {
      problem.value = error instanceof ApiError ? error.message.replace(/^jobs\[0\]\.?/, "") : wordsOf(error);
    } finally {
      sending.value = false;
    }
  }

  return (
    <form
      class="playground"
      data-ready="playground"
      onSubmit={(event) => {
        event.preventDefault();
        void ask();
      }}
    >
      <h1>Ask one question</h1>
      <textarea
        rows={5}
        aria-label="Question"
        placeholder="What is 4821 * 7093?"
        value={question.value}
        onInput={(event) => (question.value = event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) void ask();
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
              <b>{WAYS[each]}</b>
              <code>{each}</code>
            </button>
          ))}
        </div>
      </fieldset>
      {problem.value && (
        <p class="wrong" role="alert">
          {problem.value}
        </p>
      )}
      <div class="row">
        <label class="inline">
          Model
          <select value={model.value} onChange={(event) => (model.value = event.currentTarget.value)}>
            {models.value.map((each) => (
              <option key={each.id}>{each.id}</option>
            ))}
          </select>
        </label>
        <span class="space" />
        <button class="primary large" disabled={!question.value.trim() || !model.value || sending.value}>
          <Icon name="send" />
          Ask
        </button>
      </div>
    </form>
  );
}
