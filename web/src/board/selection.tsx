// What can be done with the selected jobs.
import { clearSelection, compareSelected, doMany, fits, selected, type Action } from "../actions";
import { Icon, type IconName } from "../parts/icon";
import { jobs } from "../store";
import { count } from "../text/format";

const ACTIONS: [Action, string, IconName][] = [
  ["cancel", "Cancel", "stop"],
  ["finish", "Answer now", "check"],
  ["retry", "Ask again", "retry"],
  ["seen", "Mark as seen", "check"],
  ["delete", "Delete", "trash"],
];

export function SelectionBar() {
  const ids = [...selected.value];
  if (!ids.length) return null;
  const all = ids.flatMap((id) => jobs.get(id)?.value ?? []);
  return (
    <div class="selection" role="toolbar" aria-label="Selected jobs">
      <span class="tabular">
        <b>{count(ids.length)}</b> selected
      </span>
      {ACTIONS.map(([action, says, icon]) => {
        const able = all.filter((job) => fits(action, job)).length;
        return (
          able > 0 && (
            <button key={action} onClick={() => doMany(action)}>
              <Icon name={icon} />
              {says}
              {able < ids.length && <span class="number">{able}</span>}
            </button>
          )
        );
      })}
      {ids.length > 1 && ids.length < 4 && (
        <button onClick={compareSelected}>
          <Icon name="compare" />
          Compare
        </button>
      )}
      <button class="square" onClick={clearSelection}>
        <Icon name="close" />
        <span class="hidden">Select none</span>
      </button>
    </div>
  );
}
