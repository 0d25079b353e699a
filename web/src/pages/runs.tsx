// Training runs: their curves, live, on one cursor; what they sampled; their recipes.
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { ApiError, wordsOf } from "../api/client";
import { listRuns, readMetrics, readRecipe, type Run, type RunStage } from "../api/runs";
import { useShortcuts } from "../keys";
import { Fold } from "../parts/fold";
import { Icon } from "../parts/icon";
import { route, setParams } from "../router";
import { Chart, Swatch, WORDS } from "../runs/chart";
import { Samples } from "../runs/samples";
import { Track, type Axis } from "../runs/track";
import { ordered } from "../runs/words";
import { ago, plural, short } from "../text/format";
import "uplot/dist/uPlot.min.css";

const POLL = 2000; // milliseconds between two looks at what is live
const LIST = 5; // looks between two looks at the list
const MOST = 6; // stages at once: one colour each
const AXES: Axis[] = ["step", "tokens", "seconds"];

interface Chosen {
  run: Run;
  stage: RunStage;
}

const idOf = (run: Run, stage: RunStage) => `${encodeURIComponent(run.id)}:${encodeURIComponent(stage.name)}`;

export default function Runs() {
  const runs = useSignal<Run[] | undefined>(undefined);
  const problem = useSignal<ApiError | undefined>(undefined);
  const version = useSignal(0);
  const smooth = useSignal(true);
  const more = useSignal(false);
  const tracks = useRef(new Map<string, Track>());
  const colors = useRef(new Map<string, number>());

  const chosen = runs.value ? chosenStages(runs.value, route.value.params.get("on")) : [];
  const ids = chosen.map(({ run, stage }) => idOf(run, stage));
  const latest = useRef(chosen);
  latest.current = chosen;
  const reread = useRef<() => void>(() => {});

  useEffect(() => {
    let gone = false;
    let looks = 0;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const look = async () => {
      if (document.visibilityState === "visible" || looks === 0) {
        try {
          if (looks % LIST === 0) runs.value = await listRuns();
          if (gone) return;
          await readAll();
          problem.value = undefined;
        } catch (error) {
          problem.value = error instanceof ApiError ? error : new ApiError(0, "", wordsOf(error));
        }
        looks++;
      }
      if (!gone) timer = setTimeout(look, POLL);
    };
    const readAll = async () => {
      const stages = runs.value ? chosenStages(runs.value, route.value.params.get("on")) : latest.current;
      const changed = await Promise.all(
        stages.map(async ({ run, stage }) => {
          const id = idOf(run, stage);
          const track = tracks.current.get(id) ?? new Track(run.id, stage.name, readMetrics);
          tracks.current.set(id, track);
          return track.begun && !run.live && track.done === stage.done && looks % LIST ? false : track.read();
        }),
      );
      if (changed.some(Boolean)) version.value++;
    };
    reread.current = () => readAll().catch((error) => (problem.value = error as ApiError));
    void look();
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, []);
  useEffect(() => reread.current(), [ids.join()]);

  const axis = AXES.find((each) => each === route.value.params.get("x")) ?? "step";
  useShortcuts([
    { keys: ["x"], says: "Next axis: step, tokens, time", act: () => setParams({ x: AXES[(AXES.indexOf(axis) + 1) % 3] }) },
    { keys: ["m"], says: "Smooth the curves", act: () => (smooth.value = !smooth.value) },
  ]);

  if (problem.value?.code === "no_runs") return <NoRuns />;
  if (!runs.value)
    return problem.value ? (
      <div class="blank" role="alert" data-ready="runs">
        <h1>The runs cannot be read</h1>
        <p>{problem.value.message}</p>
      </div>
    ) : (
      <div class="blank" aria-busy="true" />
    );
  if (!runs.value.some((run) => run.stages.length)) return <NoneYet />;

  for (const id of [...colors.current.keys()]) if (!ids.includes(id)) colors.current.delete(id);
  for (const id of ids) {
    if (colors.current.has(id)) continue;
    const used = new Set(colors.current.values());
    colors.current.set(id, Array.from({ length: MOST }, (_, number) => number).find((each) => !used.has(each)) ?? 0);
  }
  const drawn = chosen.flatMap(({ run, stage }) => {
    const id = idOf(run, stage);
    const track = tracks.current.get(id);
    return track?.begun ? [{ track, color: colors.current.get(id)! }] : [];
  });
  const keys = ordered([...new Set(drawn.flatMap(({ track }) => [...track.curves.keys()]))]);
  const toggle = (id: string) => {
    const next = ids.includes(id) ? ids.filter((each) => each !== id) : [...ids, id].slice(-MOST);
    setParams({ on: next.join() || "none", a: undefined, b: undefined });
  };
  const sampled = chosen.filter(({ stage }) => stage.samples.length);
  const ready = drawn.length === chosen.length;

  return (
    <div class="runspage" data-ready={ready ? "runs" : undefined}>
      <aside aria-label="Runs">
        <h1>Runs</h1>
        <ul>
          {runs.value.map((run) => (
            <RunRows key={run.id} run={run} on={ids} colors={colors.current} toggle={toggle} />
          ))}
        </ul>
      </aside>
      <div class="curves">
        <header class="row">
          <div class="choice" role="group" aria-label="Horizontal axis">
            {AXES.map((each) => (
              <button key={each} aria-pressed={axis === each} onClick={() => setParams({ x: each === "step" ? undefined : each })}>
                {WORDS[each]}
              </button>
            ))}
          </div>
          <label class="switch">
            <input type="checkbox" checked={smooth.value} onChange={(event) => (smooth.value = event.currentTarget.checked)} />
            Smooth
          </label>
          <span class="space" />
          {problem.value && (
            <span class="pill failed" role="alert">
              <Icon name="failed" size={14} />
              {problem.value.message}
            </span>
          )}
          <span class="soft tabular">
            {plural(
              drawn.reduce((sum, { track }) => sum + track.records, 0),
              "record",
            )}
          </span>
        </header>
        {!chosen.length && (
          <div class="blank">
            <h2>Choose a stage</h2>
            <p>Up to {MOST} stages are drawn together, each in its own colour.</p>
          </div>
        )}
        <div class="charts">
          {keys.first.map((key) => (
            <Chart key={key} curve={key} tracks={drawn} axis={axis} smooth={smooth.value} version={version.value} />
          ))}
        </div>
        {keys.groups.map((group) => (
          <section key={group.says} class="group" aria-label={group.says}>
            <h2>
              {group.says} <span class="number">{plural(group.keys.length, "task")}</span>
            </h2>
            <div class="charts small">
              {group.keys.map((key) => (
                <Chart key={key} curve={key} tracks={drawn} axis={axis} smooth={false} small version={version.value} />
              ))}
            </div>
          </section>
        ))}
        {keys.more.length > 0 && (
          <Fold title="More curves" facts={String(keys.more.length)} state={more}>
            <div class="charts">
              {keys.more.map((key) => (
                <Chart key={key} curve={key} tracks={drawn} axis={axis} smooth={smooth.value} version={version.value} />
              ))}
            </div>
          </Fold>
        )}
        {sampled.map(({ run, stage }) => (
          <Samples key={idOf(run, stage)} run={run.id} stage={stage} />
        ))}
        {[...new Set(chosen.map(({ run }) => run.id))].map((run) => (
          <Recipe key={run} run={run} />
        ))}
      </div>
    </div>
  );
}

function RunRows(props: { run: Run; on: string[]; colors: Map<string, number>; toggle: (id: string) => void }) {
  const { run, on, colors, toggle } = props;
  return (
    <li class="run">
      <p class="row">
        <b class="clip" title={run.id}>
          {run.id === "." ? "this folder" : run.id}
        </b>
        {run.live && (
          <span class="pill thinking">
            <Icon name="thinking" size={13} />
            live
          </span>
        )}
      </p>
      {!run.stages.length && <p class="soft">no metrics yet</p>}
      {run.stages.map((stage) => {
        const id = idOf(run, stage);
        const color = colors.get(id);
        return (
          <label key={id} class="stage">
            <input type="checkbox" checked={on.includes(id)} onChange={() => toggle(id)} />
            <span class="name clip">{stage.name}</span>
            {color !== undefined && <Swatch color={color} />}
            <span class="soft tabular">{far(run, stage)}</span>
          </label>
        );
      })}
    </li>
  );
}

function far(run: Run, stage: RunStage) {
  if (stage.done) return `done, ${short(stage.step)}`;
  const tokens = stage.latest["tokens"];
  const share =
    stage.target_steps !== null ? stage.step / stage.target_steps : stage.target_tokens && tokens ? tokens / stage.target_tokens : undefined;
  const percent = share === undefined ? `step ${short(stage.step)}` : `${Math.min(99, Math.floor(100 * share))}%`;
  return run.live ? percent : `${percent}, ${ago(Date.now() / 1000 - stage.updated_at)}`;
}

function Recipe({ run }: { run: string }) {
  const open = useSignal(false);
  const text = useSignal("");
  useEffect(() => {
    if (open.value && !text.value)
      readRecipe(run)
        .then(({ toml }) => (text.value = toml))
        .catch((error) => (text.value = wordsOf(error)));
  }, [open.value]);
  return (
    <Fold title="Recipe" facts={run === "." ? "" : run} state={open}>
      <pre class="plain" tabIndex={0}>
        {text.value}
      </pre>
    </Fold>
  );
}

function NoRuns() {
  return (
    <div class="blank" data-ready="runs">
      <span class="badge">
        <Icon name="vote" size={20} />
      </span>
      <h1>Training runs, live</h1>
      <p>This server shows no runs. Start it with the folder that they are in; it is only read.</p>
      <pre class="plain command">ponder serve --runs runs</pre>
    </div>
  );
}

function NoneYet() {
  return (
    <div class="blank" data-ready="runs">
      <span class="badge">
        <Icon name="vote" size={20} />
      </span>
      <h1>No run has written metrics yet</h1>
      <p>A run appears here with its first step. This one takes under two minutes:</p>
      <pre class="plain command">ponder train recipes/smoke/all.toml</pre>
    </div>
  );
}

/** The stages that the address names; without one, that which was written to last. */
function chosenStages(runs: Run[], on: string | null): Chosen[] {
  const all = runs.flatMap((run) => run.stages.map((stage) => ({ run, stage })));
  if (on === "none") return [];
  const named = (on ?? "").split(",").flatMap((id) => all.find(({ run, stage }) => idOf(run, stage) === id) ?? []);
  if (named.length) return named.slice(0, MOST);
  const best = all.sort((a, b) => Number(b.run.live) - Number(a.run.live) || b.stage.updated_at - a.stage.updated_at)[0];
  return best ? [best] : [];
}
