import { useSignalEffect, type Signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useRef } from "preact/hooks";
import { Icon } from "./icon";

interface Props {
  open: Signal<boolean>;
  title: string;
  wide?: boolean;
  children: ComponentChildren;
}

/** A dialog over the page. The browser keeps the focus in it and gives it back. */
export function Dialog({ open, title, wide, children }: Props) {
  const element = useRef<HTMLDialogElement>(null);
  useSignalEffect(() => {
    const dialog = element.current;
    if (!dialog) return;
    if (open.value && !dialog.open) dialog.showModal();
    else if (!open.value && dialog.open) dialog.close();
  });
  return (
    <dialog
      ref={element}
      class={wide ? "wide" : ""}
      aria-label={title}
      onClose={() => (open.value = false)}
      onMouseDown={(event) => {
        if (event.target === element.current) open.value = false;
      }}
    >
      {open.value && (
        <div class="sheet">
          <header>
            <h2>{title}</h2>
            <button class="quiet square" onClick={() => (open.value = false)}>
              <Icon name="close" />
              <span class="hidden">Close</span>
            </button>
          </header>
          {children}
        </div>
      )}
    </dialog>
  );
}
