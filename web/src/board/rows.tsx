// The list: the jobs of the board as rows of one table, the columns of the board one after the other.
import { useSignal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import { select, selected } from "../actions";
import type { Job } from "../api/jobs";
import { StatePill } from "../parts/state";
import { href } from "../router";
import { COLUMNS, columns, jobs, loadMore, now } from "../store";
import { ago, firstLine, short } from "../text/format";
import { shortStrategy, tookWord } from "./card";

const HEIGHT = 44;
const OVER = 6;
// What needs the reader comes first, what waits comes after what is done.
const ORDER = ["needs", "thinking", "done", "failed", "queued"] as const;

export function Rows() {
  const scroller = useRef<HTMLDivElement>(null);
  const first = useSignal(0);
  const fitting = useSignal(20);
  const ids = ORDER.flatMap((name) => columns[name].ids.value).filter((id) => jobs.has(id));
  const look = () => {
    const element = scroller.current;
    if (!element) return;
    first.value = Math.floor(element.scrollTop / HEIGHT);
    fitting.value = Math.ceil(element.clientHeight / HEIGHT);
    // A column ends where the next one begins: its next page is read when its end comes near.
    let end = 0;
    for (const name of ORDER) {
      end += columns[name].ids.value.length;
      if (first.value + 2 * fitting.value > end) void loadMore(COLUMNS.find((each) => each.name === name)!);
    }
  };
  useLayoutEffect(() => {
    look();
    const watch = new ResizeObserver(look);
    watch.observe(scroller.current!);
    return () => watch.disconnect();
  }, []);
  const from = Math.max(0, first.value - OVER);
  const drawn = ids.slice(from, first.value + fitting.value + OVER);
  const after = ids.length - from - drawn.length;
  return (
    <div class="rows" ref={scroller} onScroll={look}>
      <table aria-rowcount={ids.length + 1}>
        <thead>
          <tr>
            <th scope="col" class="pick">
              <span class="hidden">Select</span>
            </th>
            <th scope="col">State</th>
            <th scope="col">Question</th>
            <th scope="col">Answer</th>
            <th scope="col" class="how">
              How
            </th>
            <th scope="col" class="right">
              Tokens
            </th>
            <th scope="col" class="right">
              Took
            </th>
            <th scope="col" class="right when">
              Handed over
            </th>
          </tr>
        </thead>
        <tbody>
          {from > 0 && <Gap rows={from} />}
          {drawn.map((id, at) => (
            <Row key={id} job={jobs.get(id)!.value} index={from + at} />
          ))}
          {after > 0 && <Gap rows={after} />}
        </tbody>
      </table>
    </div>
  );
}

function Gap({ rows }: { rows: number }) {
  return (
    <tr class="gap" aria-hidden="true">
      <td colSpan={8} style={{ height: `${rows * HEIGHT}px` }} />
    </tr>
  );
}

function Row({ job, index }: { job: Job; index: number }) {
  const on = selected.value.has(job.id);
  return (
    <tr data-id={job.id} class={on ? "selected" : ""} aria-rowindex={index + 2}>
      <td class="pick">
        <label>
          <input
            type="checkbox"
            checked={on}
            aria-label={`Select ${job.title.slice(0, 60)}`}
            onChange={() => select(job.id)}
          />
        </label>
      </td>
      <td>
        <StatePill job={job} />
      </td>
      <td class="title">
        <a href={href(`/jobs/${job.id}`)}>{job.title || "(empty)"}</a>
      </td>
      <td class="said">{job.answer ? firstLine(job.answer) : (job.need?.text ?? job.error?.message ?? "")}</td>
      <td class="how">{[job.model, job.strategy && shortStrategy(job.strategy)].filter(Boolean).join(" · ")}</td>
      <td class="right tabular">{job.usage ? short(job.usage.output_tokens) : ""}</td>
      <td class="right tabular">{tookWord(job)}</td>
      <td class="right when">{ago(now.value - job.created_at)}</td>
    </tr>
  );
}
