import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useRef } from "preact/hooks";
import { Icon } from "./icon";

interface Props {
  title: string;
  facts?: string;
  open?: boolean;
  /** Given where something outside folds and unfolds it too. */
  state?: { value: boolean };
  children: ComponentChildren;
}

/** A part that folds. Its bar stays in sight while it is read, and the margin beside a long text folds it too. */
export function Fold({ title, facts, open = false, state, children }: Props) {
  const own = useSignal(open);
  const shown = state ?? own;
  const bar = useRef<HTMLButtonElement>(null);
  const toggle = () => {
    shown.value = !shown.value;
    if (!shown.value) requestAnimationFrame(() => bar.current?.scrollIntoView({ block: "nearest" }));
  };
  return (
    <section class={`fold${shown.value ? " open" : ""}`}>
      <h2>
        <button ref={bar} aria-expanded={shown.value} onClick={toggle}>
          <Icon name={shown.value ? "down" : "right"} size={14} />
          {title}
          {facts && <span class="number">{facts}</span>}
        </button>
      </h2>
      {shown.value && (
        <div class="folded">
          <button class="margin" tabIndex={-1} aria-hidden="true" onClick={toggle} title="Fold" />
          <div class="content">{children}</div>
        </div>
      )}
    </section>
  );
}
