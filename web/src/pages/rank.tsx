// People rank answers: the rankings that there are, a new one, and one of them.
import { signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { wordsOf } from "../api/client";
import { addSets, deleteRanking, drawAnswers, listRankings, type RankingInfo } from "../api/rankings";
import { EFFORTS, loadModels, models } from "../handover/dialog";
import type { PageProps } from "../pages";
import { Icon } from "../parts/icon";
import { later, toast } from "../parts/toast";
import { go, href } from "../router";
import { answersOfBatch } from "../rank/batch";
import { Judge } from "../rank/judge";
import { readPrompts } from "../rank/read";
import { counts } from "../store";
import { plural } from "../text/format";

const EXAMPLES = ["Name a colour of the sea.", "Explain in one sentence why the sky is blue.", "Write a line of thanks to a teacher."];

export default function Rank({ rest }: PageProps) {
  return rest ? <Judge key={rest} name={rest} /> : <Overview />;
}

interface Making {
  name: string;
  done: number;
  of: number;
  added: number;
  stop: AbortController;
}

/** Answers that are being drawn; it goes on while other pages are looked at. */
const making = signal<Making | undefined>(undefined);

function Overview() {
  const found = useSignal<{ data: RankingInfo[]; kept: boolean } | undefined>(undefined);
  const problem = useSignal("");
  const read = () =>
    listRankings().then(
      (list) => (found.value = list),
      (error) => (problem.value = wordsOf(error)),
    );
  useEffect(() => void read(), [making.value?.added]);
  const remove = (ranking: RankingInfo) => {
    found.value = { ...found.value!, data: found.value!.data.filter((each) => each !== ranking) };
    later(`“${ranking.id}” will be deleted`, () => void deleteRanking(ranking.id).catch((error) => toast(wordsOf(error), { bad: true })));
  };
  return (
    <div class="rankpage" data-ready={found.value || problem.value ? "rank" : undefined}>
      <header>
        <h1>Rank answers</h1>
        <p class="soft">
          Several answers to one prompt, without their authors and in an order of your own. What you prefer becomes data: a reward model,
          or a policy, learns from it.
        </p>
      </header>
      {problem.value && (
        <p class="wrong" role="alert">
          {problem.value}
        </p>
      )}
      {making.value && <MakingBar making={making.value} />}
      {found.value && found.value.data.length > 0 && (
        <section aria-label="Rankings">
          <ul class="rankings">
            {found.value.data.map((each) => (
              <li key={each.id}>
                <a href={href(`/rank/${each.id}`)}>
                  <b>{each.id}</b>
                  <span class="soft">
                    {plural(each.sets, "prompt")}, {plural(each.judgements, "judgement")}
                  </span>
                </a>
                <button class="quiet square" title="Delete" onClick={() => remove(each)}>
                  <Icon name="trash" />
                  <span class="hidden">Delete {each.id}</span>
                </button>
              </li>
            ))}
          </ul>
        </section>
      )}
      <NewRanking taken={found.value?.data.map((each) => each.id) ?? []} />
      {found.value && !found.value.kept && (
        <p class="soft note">
          Rankings last as long as this server runs. <code>ponder serve --rankings FOLDER</code> keeps them, in the files of{" "}
          <code>ponder rank</code>.
        </p>
      )}
    </div>
  );
}

function MakingBar({ making: { name, done, of, added, stop } }: { making: Making }) {
  return (
    <div class="making" role="status">
      <span class="progressbar" aria-hidden="true">
        <span style={{ transform: `scaleX(${done / of})` }} />
      </span>
      <span class="tabular">
        Answers to {done} of {plural(of, "prompt")}
      </span>
      <span class="space" />
      {added > 0 && (
        <a class="button" href={href(`/rank/${name}`)}>
          Begin with {plural(added, "set")}
        </a>
      )}
      <button onClick={() => stop.abort()}>
        <Icon name="stop" />
        Stop
      </button>
    </div>
  );
}

function NewRanking({ taken }: { taken: string[] }) {
  const name = useSignal(freeName(taken));
  const prompts = useSignal("");
  const count = useSignal(4);
  const temperature = useSignal("1");
  const model = useSignal("");
  const effort = useSignal("");
  const batch = useSignal("");
  const problem = useSignal("");
  useEffect(() => {
    if (!name.value || taken.includes(name.value)) name.value = freeName(taken);
  }, [taken.join()]);
  useEffect(() => {
    loadModels()
      .then(() => (model.value ||= models.value[0]?.id ?? ""))
      .catch((error) => (problem.value = wordsOf(error)));
  }, []);
  const { lines, sets, wrong } = readPrompts(prompts.value);
  const total = batch.value ? 1 : lines.length + sets.length;
  const batches = counts.value?.batches ?? [];

  const takeBatch = async () => {
    problem.value = "";
    try {
      const found = await answersOfBatch(batch.value);
      for (let at = 0; at < found.length; at += 100) await addSets(name.value, found.slice(at, at + 100));
      if (found.length) go(`/rank/${name.value}`);
      else problem.value = "No question of this batch has two finished jobs with different answers: hand each over several times.";
    } catch (error) {
      problem.value = wordsOf(error);
    }
  };

  const begin = async () => {
    if (batch.value) return takeBatch();
    problem.value = "";
    const stop = new AbortController();
    const run: Making = { name: name.value, done: 0, of: lines.length, added: 0, stop };
    try {
      if (sets.length) {
        const { added, left_out } = await addSets(name.value, sets);
        if (left_out.length) toast(`${plural(left_out.length, "prompt")} left out: ${left_out[0]!.why}`, { bad: true });
        run.added += added;
      }
      if (lines.length) making.value = run;
      for (const line of lines) {
        const drawn = await drawAnswers(line, { model: model.value, n: count.value, temperature: Number(temperature.value), effort: effort.value }, stop.signal);
        run.done++;
        if (drawn.answers.length < 2) toast(`Fewer than 2 whole answers to “${line.slice(0, 60)}”: left out`, { bad: true });
        else {
          const { added, left_out } = await addSets(name.value, [drawn], stop.signal);
          run.added += added;
          if (left_out.length) toast(`“${line.slice(0, 60)}” left out: ${left_out[0]!.why}`, { bad: true });
        }
        making.value = { ...run };
      }
      if (run.added) go(`/rank/${name.value}`);
      else problem.value = "No prompt got two different answers: raise the temperature, or ask for more answers.";
    } catch (error) {
      if (!stop.signal.aborted) problem.value = wordsOf(error);
    } finally {
      making.value = undefined;
    }
  };

  return (
    <form
      class="newranking"
      onSubmit={(event) => {
        event.preventDefault();
        if (total && !making.value) void begin();
      }}
    >
      <h2>New ranking</h2>
      {batches.length > 0 && (
        <label>
          Answers
          <select value={batch.value} onChange={(event) => (batch.value = event.currentTarget.value)}>
            <option value="">drawn for this ranking, or pasted</option>
            {batches.map((each) => (
              <option key={each.batch} value={each.batch}>
                of finished jobs: {each.batch}
              </option>
            ))}
          </select>
        </label>
      )}
      <label hidden={Boolean(batch.value)}>
        Prompts
        <textarea
          rows={5}
          placeholder={'A prompt a line. Or JSON lines with answers that you have: {"prompt": "…", "answers": ["…", "…"]}'}
          value={prompts.value}
          onInput={(event) => (prompts.value = event.currentTarget.value)}
        />
      </label>
      {!prompts.value && !batch.value && (
        <p class="soft">
          Nothing at hand?{" "}
          <button type="button" class="link" onClick={() => (prompts.value = EXAMPLES.join("\n"))}>
            Take three examples
          </button>
        </p>
      )}
      {wrong.length > 0 && (
        <p class="wrong" role="alert">
          Line {wrong[0]!.line} {wrong[0]!.why}
          {wrong.length > 1 && `, and ${wrong.length - 1} more`}
        </p>
      )}
      <div class="settings">
        <label>
          Name
          <input required pattern="[A-Za-z0-9][A-Za-z0-9_\-]{0,63}" title="letters, digits, _ and -" value={name.value} onInput={(event) => (name.value = event.currentTarget.value)} />
        </label>
        <label hidden={Boolean(batch.value)}>
          Model
          <select value={model.value} onChange={(event) => (model.value = event.currentTarget.value)}>
            {models.value.map((each) => (
              <option key={each.id}>{each.id}</option>
            ))}
          </select>
        </label>
        <label hidden={Boolean(batch.value)}>
          Answers to each
          <input type="number" min={2} max={8} required value={count.value} onInput={(event) => (count.value = event.currentTarget.valueAsNumber)} />
        </label>
        <label hidden={Boolean(batch.value)}>
          Temperature
          <input type="number" min={0.1} max={2} step={0.1} required value={temperature.value} onInput={(event) => (temperature.value = event.currentTarget.value)} />
        </label>
        <label hidden={Boolean(batch.value)}>
          Effort
          <select value={effort.value} onChange={(event) => (effort.value = event.currentTarget.value)}>
            <option value="">as usual</option>
            {EFFORTS.map((each) => (
              <option key={each}>{each}</option>
            ))}
          </select>
        </label>
      </div>
      {problem.value && (
        <p class="wrong" role="alert">
          {problem.value}
        </p>
      )}
      <footer class="row">
        <span class="soft">
          {!batch.value && sets.length > 0 && `${plural(sets.length, "prompt")} with answers. `}
          {!batch.value && lines.length > 0 && `${lines.length * (count.value || 0)} answers to draw.`}
        </span>
        <span class="space" />
        <button class="primary large" disabled={!total || wrong.length > 0 || Boolean(making.value) || (lines.length > 0 && !model.value)}>
          {batch.value ? "Rank its answers" : lines.length ? `Draw answers to ${plural(lines.length, "prompt")}` : sets.length ? `Rank ${plural(sets.length, "set")}` : "Draw answers"}
        </button>
      </footer>
    </form>
  );
}

function freeName(taken: string[]) {
  for (let number = 1; ; number++) if (!taken.includes(`ranking-${number}`)) return `ranking-${number}`;
}
