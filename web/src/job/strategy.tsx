// How an answer was found: the strategy's events as a tree, and over time. Flat rows, however deep it goes.
import { useSignal } from "@preact/signals";
import type { Entry } from "../api/jobs";
import { Icon, type IconName } from "../parts/icon";
import { now } from "../store";
import { clock, firstLine, plural, short } from "../text/format";
import { rowsOf, spanOf, type EventRow, type SampleRow, type TraceRow } from "./trace";

const SHOWN = 300; // rows drawn before one asks for more

interface Props {
  entries: Entry[];
  /** Whether the entries were read already. */
  read: boolean;
  attempt: number;
  live: boolean;
}

export function Strategy({ entries, read, attempt, live }: Props) {
  const view = useSignal<"tree" | "timeline">("tree");
  const all = useSignal(false);
  const rows = rowsOf(entries, attempt);
  if (!read) return <p class="soft">Reading its events …</p>;
  if (!rows.length) return <p class="soft">{live ? "Nothing has happened yet." : "No events are kept of this attempt."}</p>;
  const shown = all.value ? rows : rows.slice(0, SHOWN);
  return (
    <>
      <div class="choice" role="group" aria-label="View of the events">
        <button aria-pressed={view.value === "tree"} onClick={() => (view.value = "tree")}>
          Tree
        </button>
        <button aria-pressed={view.value === "timeline"} onClick={() => (view.value = "timeline")}>
          Timeline
        </button>
      </div>
      {view.value === "tree" ? <Tree rows={shown} /> : <Timeline rows={shown} live={live} />}
      {shown.length < rows.length && (
        <button onClick={() => (all.value = true)}>Show {plural(rows.length - shown.length, "more row")}</button>
      )}
    </>
  );
}

function Tree({ rows }: { rows: TraceRow[] }) {
  const open = useSignal<ReadonlySet<string>>(new Set());
  const most = Math.max(1, ...rows.map((row) => (row.kind === "sample" ? (row.usage?.output_tokens ?? 0) : 0)));
  const toggle = (key: string) => {
    const next = new Set(open.value);
    if (!next.delete(key)) next.add(key);
    open.value = next;
  };
  return (
    <ul class="tree" aria-label="Events">
      {rows.map((row) => (
        <li key={row.key} class={`depth${Math.min(4, row.depth)}`}>
          {row.kind === "sample" ? (
            <Sample row={row} most={most} open={open.value.has(row.key)} toggle={() => toggle(row.key)} />
          ) : (
            <Event row={row} />
          )}
        </li>
      ))}
    </ul>
  );
}

interface SampleProps {
  row: SampleRow;
  most: number;
  open: boolean;
  toggle: () => void;
}

function Sample({ row, most, open, toggle }: SampleProps) {
  const done = row.ended !== undefined;
  const took = (row.ended ?? now.value) - row.began;
  const share = row.usage ? row.usage.output_tokens / most : 0;
  return (
    <>
      <button class="sample" aria-expanded={done ? open : undefined} disabled={!done} onClick={toggle}>
        <span class={`pill ${done ? "done" : "thinking"}`}>
          <Icon name={done ? (row.stop === "end" || row.stop === "stop" ? "done" : "needs") : "thinking"} size={14} />
        </span>
        <span class="name">
          {row.role} {row.sample + 1}
        </span>
        <span class="text clip">{done ? firstLine(row.text ?? "") || "(no answer)" : "thinking"}</span>
        {row.grades.map((grade, at) => (
          <span key={at} class={`tag ${grade.score !== null && grade.score >= 0.5 ? "good" : "poor"}`} title={grade.why}>
            {grade.score === null ? grade.status : `verifier ${grade.score.toFixed(2).replace(/\.?0+$/, "")}`}
          </span>
        ))}
        {done && row.stop && row.stop !== "end" && <span class="tag">{row.stop}</span>}
        <span class="size" aria-hidden="true">
          <span style={{ transform: `scaleX(${share})` }} />
        </span>
        <span class="tabular right cost">{row.usage ? `${short(row.usage.output_tokens)} tokens` : ""}</span>
        <span class="tabular right time">{clock(took)}</span>
      </button>
      {open && (
        <div class="inside">
          {row.reasoning && <pre class="plain thought">{row.reasoning}</pre>}
          <pre class="plain">{row.text}</pre>
          {row.grades.map((grade, at) => grade.why && <p key={at}>Verifier: {grade.why}</p>)}
          {row.model && <p class="soft">drawn by {row.model}</p>}
        </div>
      )}
    </>
  );
}

const EVENT_ICONS: Record<Exclude<EventRow["kind"], "strategy">, IconName> = {
  planned: "list",
  voted: "vote",
  stopped: "stop",
  person: "steer",
  answered: "check",
};

function Event({ row }: { row: EventRow }) {
  return (
    <div class={`event ${row.kind}`}>
      {row.kind !== "strategy" && <Icon name={EVENT_ICONS[row.kind]} size={14} />}
      <b>{row.title}</b>
      {row.votes && <Ballot votes={row.votes} />}
      {row.detail && <span class="soft detail">{row.detail}</span>}
    </div>
  );
}

export function Ballot({ votes }: { votes: { answer: string; count: number }[] }) {
  const all = votes.reduce((sum, each) => sum + each.count, 0) || 1;
  return (
    <span class="ballot">
      {votes.slice(0, 5).map((each, at) => (
        <span key={at} class={at ? "" : "first"}>
          <span class="share" style={{ width: `${(100 * each.count) / all}%` }} />
          <span class="clip">{firstLine(each.answer)}</span>
          <span class="tabular">{each.count}</span>
        </span>
      ))}
    </span>
  );
}

function Timeline({ rows, live }: { rows: TraceRow[]; live: boolean }) {
  const { from, to } = spanOf(rows, live ? now.value : 0);
  const share = (at: number) => `${(100 * (at - from)) / (to - from)}%`;
  const marks = rows.filter((row): row is EventRow => row.kind !== "sample" && row.kind !== "strategy");
  const samples = rows.filter((row): row is SampleRow => row.kind === "sample");
  return (
    <div class="timeline">
      <ul aria-label="Samples over time">
        {samples.map((row) => {
          const end = row.ended ?? to;
          return (
            <li key={row.key}>
              <span class="name clip">
                {row.role} {row.sample + 1}
              </span>
              <span class="lane">
                <span
                  class={`span${row.ended === undefined ? " live" : ""}`}
                  style={{ left: share(row.began), width: `max(3px, ${(100 * (end - row.began)) / (to - from)}%)` }}
                />
                {marks.map((mark) => (
                  <span key={mark.key} class={`rule ${mark.kind}`} style={{ left: share(mark.at) }} />
                ))}
              </span>
              <span class="tabular right">{clock(end - row.began)}</span>
              <span class="hidden">
                from {clock(row.began - from)}, {row.ended === undefined ? "still thinking" : firstLine(row.text ?? "")}
              </span>
            </li>
          );
        })}
      </ul>
      <div class="axis tabular" aria-hidden="true">
        <span>0:00</span>
        <span>{clock((to - from) / 2)}</span>
        <span>{clock(to - from)}</span>
      </div>
      {marks.length > 0 && (
        <ul class="marks">
          {marks.map((mark) => (
            <li key={mark.key}>
              <span class={`key ${mark.kind}`} aria-hidden="true" />
              <span class="tabular soft">{clock(mark.at - from)}</span> {mark.title}
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}
