// The board: five columns, one for each state of a job. Only the cards in view are drawn. The list is the same jobs in
// rows.
import { useSignal, useSignalEffect, type Signal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { clearSelection, compareSelected, doMany, doOne, fits, select, selected } from "../actions";
import type { Filters, Job } from "../api/jobs";
import { Card } from "../board/card";
import { Rows } from "../board/rows";
import { Toolbar } from "../board/toolbar";
import { SelectionBar } from "../board/selection";
import { openHandOver } from "../handover/dialog";
import { useShortcuts } from "../keys";
import { COLUMN_ICONS } from "../parts/state";
import { Icon } from "../parts/icon";
import { go, route, setParams } from "../router";
import {
  COLUMNS,
  columns,
  counts,
  failure,
  filters,
  jobs,
  load,
  loading,
  loadMore,
  type Column,
  type ColumnName,
} from "../store";
import { count } from "../text/format";

/** Heights of cards with the gap under them, in pixels: they are all known, so no card has to be measured. */
export const HEIGHTS: Record<ColumnName, number> = { queued: 94, thinking: 112, needs: 176, done: 104, failed: 122 };
const OVER = 2; // cards drawn above and below those in view

/** Where the keyboard is: a column and a card. */
const place: { column: ColumnName; id: string } = { column: "queued", id: "" };
/** What each column shows: a column that is held shows less than there is. */
const showing: Record<ColumnName, string[]> = { queued: [], thinking: [], needs: [], done: [], failed: [] };

export function Board() {
  const params = route.value.params;
  const wanted: Filters = {};
  for (const name of ["q", "batch", "model", "label"] as const) {
    const value = params.get(name);
    if (value) wanted[name] = value;
  }
  const said = JSON.stringify(wanted);
  useEffect(() => {
    if (said === JSON.stringify(filters.value)) return;
    filters.value = wanted;
    void load();
  }, [said]);
  const asList = params.get("view") === "list";
  const total = counts.value?.total ?? 0;
  const empty = !loading.value && !failure.value && total === 0;

  useShortcuts([
    { keys: ["j", "ArrowDown"], says: "Next card", act: () => move(1) },
    { keys: ["k", "ArrowUp"], says: "Card before", act: () => move(-1) },
    { keys: ["l", "ArrowRight"], says: "Next column", act: () => cross(1) },
    { keys: ["h", "ArrowLeft"], says: "Column before", act: () => cross(-1) },
    { keys: ["Enter"], says: "Open", act: openFocused },
    { keys: ["x"], says: "Select", act: () => withFocused((job) => select(job.id)) },
    { keys: ["c"], says: "Cancel", act: () => onFocused("cancel") },
    { keys: ["r"], says: "Ask again", act: () => onFocused("retry") },
    { keys: ["s"], says: "Steer", act: () => withFocused((job) => go(`/jobs/${job.id}`, { write: "steer" })) },
    { keys: ["f"], says: "Follow up", act: () => withFocused((job) => go(`/jobs/${job.id}`, { write: "follow-up" })) },
    { keys: ["="], says: "Compare the selected", act: compareSelected },
    {
      keys: ["v"],
      says: "Board or list",
      act: () => setParams({ view: asList ? undefined : "list" }),
    },
    { keys: ["Escape"], says: "Select none", act: clearSelection },
  ]);

  return (
    <div class="boardpage" data-ready={loading.value ? undefined : "board"} aria-busy={loading.value}>
      <h1 class="hidden">{asList ? "List of jobs" : "Board"}</h1>
      <Toolbar asList={asList} />
      {failure.value ? (
        <div class="blank" role="alert">
          <h2>The jobs cannot be shown</h2>
          <p>{failure.value}</p>
          <button onClick={() => void load()}>Try again</button>
        </div>
      ) : empty ? (
        <Empty filtered={said !== "{}"} />
      ) : asList ? (
        <Rows />
      ) : (
        <Columns />
      )}
      <SelectionBar />
    </div>
  );
}

function Columns() {
  const shown = useSignal<ColumnName>("thinking"); // on a narrow screen, where one column fits
  return (
    <>
      <div class="tabs" role="group" aria-label="Column">
        {COLUMNS.map((column) => (
          <button
            key={column.name}
            class={column.name}
            aria-pressed={shown.value === column.name}
            onClick={() => (shown.value = column.name)}
          >
            <Icon name={COLUMN_ICONS[column.name]} size={14} />
            {column.title}
            <span class="number">{count(totalOf(column.name))}</span>
          </button>
        ))}
      </div>
      <div class="columns" role="list" aria-label="Columns">
        {COLUMNS.map((column) => (
          <ColumnView key={column.name} column={column} narrow={shown.value === column.name} />
        ))}
      </div>
    </>
  );
}

export function totalOf(column: ColumnName): number {
  const found = counts.value;
  if (!found) return 0;
  const { queued, in_progress, needs_input, completed, incomplete, failed, cancelled } = found.states;
  const unseen = found.unseen_incomplete;
  return {
    queued,
    thinking: in_progress,
    needs: needs_input + unseen,
    done: completed + incomplete - unseen,
    failed: failed + cancelled,
  }[column];
}

function ColumnView({ column, narrow }: { column: Column; narrow: boolean }) {
  const { ids } = columns[column.name];
  const held = useSignal(false);
  const shown = useSignal(ids.value);
  const scroller = useRef<HTMLDivElement>(null);
  // Cards never move under the pointer or the focus: what came meanwhile waits for a press.
  useSignalEffect(() => {
    if (!held.value) shown.value = ids.value;
  });
  const came = held.value ? difference(ids.value, shown.value) : 0;
  const total = totalOf(column.name);
  return (
    <section
      class={`column ${column.name}${narrow ? " shown" : ""}`}
      role="listitem"
      aria-label={`${column.title}, ${count(total)}`}
      onMouseEnter={() => (held.value = true)}
      onMouseLeave={(event) => (held.value = event.currentTarget.contains(document.activeElement))}
      onFocusIn={() => (held.value = true)}
      onFocusOut={(event) => {
        if (!event.currentTarget.contains(event.relatedTarget as Node)) held.value = event.currentTarget.matches(":hover");
      }}
    >
      <header>
        <h2>
          <Icon name={COLUMN_ICONS[column.name]} />
          {column.title}
        </h2>
        <span class="number">{count(total)}</span>
        {came > 0 && (
          <button class="came" onClick={() => (shown.value = ids.value)}>
            {came} new
          </button>
        )}
      </header>
      <Window column={column} ids={shown} scroller={scroller} />
    </section>
  );
}

function difference(now: string[], before: string[]) {
  if (now === before) return 0;
  const known = new Set(before);
  return now.filter((id) => !known.has(id)).length;
}

interface WindowProps {
  column: Column;
  ids: Signal<string[]>;
  scroller: { current: HTMLDivElement | null };
}

/** Draws the cards in view, at their places in a list as high as all of them. */
function Window({ column, ids, scroller }: WindowProps) {
  const height = HEIGHTS[column.name];
  const first = useSignal(0);
  const fitting = useSignal(8);
  const list = (showing[column.name] = ids.value.filter((id) => jobs.has(id)));
  const focused = useSignal("");

  const look = () => {
    const element = scroller.current;
    if (!element) return;
    first.value = Math.floor(element.scrollTop / height);
    fitting.value = Math.ceil(element.clientHeight / height) || 8;
    if (element.scrollTop + element.clientHeight * 3 > list.length * height) void loadMore(column);
  };
  useLayoutEffect(() => {
    look();
    const watch = new ResizeObserver(look);
    watch.observe(scroller.current!);
    return () => watch.disconnect();
  }, []);

  const from = Math.max(0, Math.min(first.value, list.length - 1) - OVER);
  const drawn = list.slice(from, first.value + fitting.value + OVER).map((id, at) => ({ id, at: from + at }));
  const kept = focused.value ? list.indexOf(focused.value) : -1; // what has the focus stays, wherever it is
  if (kept >= 0 && !drawn.some((each) => each.at === kept)) drawn.push({ id: focused.value, at: kept });
  const entry = list.includes(place.id) ? place.id : list[0];

  return (
    <div class="scroller" ref={scroller} onScroll={look} data-column={column.name}>
      {list.length === 0 ? (
        <p class="none">{loading.value ? "" : NOTHING[column.name]}</p>
      ) : (
        <ul
          aria-label={`Jobs: ${column.title}`}
          style={{ height: `${list.length * height}px` }}
          onFocusIn={(event) => {
            const id = (event.target as HTMLElement).closest("li")?.dataset["id"] ?? "";
            focused.value = id;
            place.column = column.name;
            place.id = id;
          }}
          onFocusOut={() => (focused.value = "")}
        >
          {drawn.map(({ id, at }) => (
            <li
              key={id}
              data-id={id}
              aria-setsize={Math.max(list.length, totalOf(column.name))}
              aria-posinset={at + 1}
              style={{ top: `${at * height}px`, height: `${height - 8}px` }}
            >
              <Card job={jobs.get(id)!} column={column.name} entry={id === entry} />
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

const NOTHING: Record<ColumnName, string> = {
  queued: "Nothing waits.",
  thinking: "Nothing is being worked on.",
  needs: "Nothing needs you.",
  done: "Nothing is done yet.",
  failed: "Nothing failed.",
};

const SAMPLE = [
  "What is 4821 * 7093?",
  "What is 9384 - 2718?",
  "Sort these numbers: 31, 7, 19, 4, 25",
  "How many r are in strawberry?",
  "A farmer has 17 sheep. All but 9 run away. How many are left?",
].join("\n");

function Empty({ filtered }: { filtered: boolean }) {
  if (filtered)
    return (
      <div class="blank">
        <h2>No job is like that</h2>
        <p>Nothing matches this search and these filters.</p>
        <button onClick={() => go("/")}>Show all jobs</button>
      </div>
    );
  return (
    <div class="blank">
      <span class="badge">
        <Icon name="board" size={20} />
      </span>
      <h2>Hand over your first questions</h2>
      <p>Paste as many as you like, one a line. The models think while you do something else, and ask where they need you.</p>
      <div class="row center">
        <button class="primary large" onClick={() => openHandOver()}>
          <Icon name="plus" />
          Hand over work
        </button>
        <button class="large" onClick={() => openHandOver(SAMPLE)}>
          Try five samples
        </button>
      </div>
    </div>
  );
}

// The keyboard ----------------------------------------------------------------------------------------------------

function focusedJob(): Job | undefined {
  const id = (document.activeElement?.closest("[data-id]") as HTMLElement | null)?.dataset["id"];
  return id ? jobs.get(id)?.value : undefined;
}

function withFocused(act: (job: Job) => void) {
  const job = focusedJob();
  if (job) act(job);
}

function openFocused() {
  const job = focusedJob();
  // On a button or a link inside a card, Enter is that button's.
  if (job && !document.activeElement?.matches("button, a")) go(`/jobs/${job.id}`);
  else (document.activeElement as HTMLElement | null)?.click();
}

function onFocused(action: "cancel" | "retry") {
  if (selected.value.size) doMany(action);
  else
    withFocused((job) => {
      if (fits(action, job)) void doOne(job, action);
    });
}

function focusCard(column: ColumnName, at: number) {
  const id = showing[column][at];
  const scroller = document.querySelector<HTMLElement>(`.scroller[data-column=${column}]`);
  if (!id || !scroller) return;
  place.column = column;
  place.id = id;
  const link = () => scroller.querySelector<HTMLElement>(`[data-id="${CSS.escape(id)}"] .title a`);
  const focus = () => {
    link()?.focus({ preventScroll: true });
    link()?.closest("li")?.scrollIntoView({ block: "nearest" });
  };
  if (link()) focus();
  else {
    scroller.scrollTop = Math.max(0, (at - 1) * HEIGHTS[column]); // it is drawn once it is in view
    requestAnimationFrame(() => requestAnimationFrame(focus));
  }
}

function move(by: number) {
  const rows = document.querySelector<HTMLElement>(".rows");
  if (rows) {
    const all = [...rows.querySelectorAll<HTMLElement>("[data-id] .title a, [data-id].title a")];
    const at = all.findIndex((link) => link.closest("[data-id]") === document.activeElement?.closest("[data-id]"));
    const next = all[at < 0 ? 0 : at + by];
    next?.focus({ preventScroll: true });
    next?.closest("tr")?.scrollIntoView({ block: "nearest" });
  } else if (document.activeElement?.closest(".column")) {
    const ids = showing[place.column];
    focusCard(place.column, Math.max(0, Math.min(ids.length - 1, ids.indexOf(place.id) + by)));
  } else {
    const known = showing[place.column].indexOf(place.id);
    const first = COLUMNS.find((each) => showing[each.name].length && visible(each.name));
    if (known >= 0 && visible(place.column)) focusCard(place.column, known);
    else if (first) focusCard(first.name, 0);
  }
}

function cross(by: number) {
  const names = COLUMNS.map((column) => column.name);
  for (let at = names.indexOf(place.column) + by; at >= 0 && at < names.length; at += by) {
    const name = names[at]!;
    const scroller = document.querySelector<HTMLElement>(`.scroller[data-column=${name}]`);
    if (!scroller || !showing[name].length || !visible(name)) continue;
    focusCard(name, Math.min(showing[name].length - 1, Math.round(scroller.scrollTop / HEIGHTS[name])));
    return;
  }
}

/** On a narrow screen one column is shown. */
const visible = (name: ColumnName) =>
  Boolean(document.querySelector<HTMLElement>(`.scroller[data-column=${name}]`)?.offsetParent);
