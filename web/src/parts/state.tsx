// A state as icon, word and colour.
import type { Job, State } from "../api/jobs";
import { columnOf, type ColumnName } from "../store";
import { Icon, type IconName } from "./icon";

export const COLUMN_ICONS: Record<ColumnName, IconName> = {
  queued: "queued",
  thinking: "thinking",
  needs: "needs",
  done: "done",
  failed: "failed",
};

const WORDS: Record<State, string> = {
  queued: "Queued",
  in_progress: "Thinking",
  needs_input: "Needs you",
  completed: "Done",
  incomplete: "Incomplete",
  failed: "Failed",
  cancelled: "Cancelled",
};

export const stateWord = (state: State) => WORDS[state];

export function StatePill({ job }: { job: Job }) {
  const column = columnOf(job);
  return (
    <span class={`pill ${column}`}>
      <Icon name={COLUMN_ICONS[column]} size={14} />
      {WORDS[job.state]}
    </span>
  );
}
