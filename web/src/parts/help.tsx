import { signal } from "@preact/signals";
import { currentShortcuts, keysOn, switchKeys } from "../keys";
import { Dialog } from "./dialog";

const open = signal(false);

export const openHelp = () => (open.value = true);

const NAMES: Record<string, string> = {
  ArrowDown: "↓",
  ArrowUp: "↑",
  ArrowLeft: "←",
  ArrowRight: "→",
  Enter: "Enter",
  Escape: "Esc",
};

export function HelpDialog() {
  return (
    <Dialog open={open} title="Keys">
      <KeyList />
    </Dialog>
  );
}

/** Drawn when the dialog opens: the keys of the page that is shown then. */
function KeyList() {
  return (
    <>
      <label class="switch">
        <input type="checkbox" checked={keysOn.value} onChange={(event) => switchKeys(event.currentTarget.checked)} />
        Single keys act on this page
      </label>
      <dl class={`keys${keysOn.value ? "" : " off"}`}>
        {currentShortcuts().map((each) => (
          <div key={each.says}>
            <dt>
              {each.keys.map((key) => (
                <kbd key={key}>{NAMES[key] ?? key}</kbd>
              ))}
            </dt>
            <dd>{each.says}</dd>
          </div>
        ))}
      </dl>
      <p class="soft">No key acts while you write in a field.</p>
    </>
  );
}
