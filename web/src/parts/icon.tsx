// The icons: 16 × 16, drawn with lines of the text's colour. They are decoration: words stand beside them.
import type { JSX } from "preact";

const ICONS = {
  queued: <circle cx="8" cy="8" r="5.75" stroke-dasharray="2.4 2.1" />,
  thinking: (
    <>
      <circle cx="8" cy="8" r="5.75" />
      <path d="M8 4.4A3.6 3.6 0 0 1 8 11.6Z" fill="currentColor" stroke="none" />
    </>
  ),
  needs: (
    <>
      <circle cx="8" cy="8" r="5.75" />
      <path d="M8 4.9v3.6M8 11v.1" />
    </>
  ),
  done: (
    <>
      <circle cx="8" cy="8" r="5.75" />
      <path d="m5.4 8.2 1.8 1.8 3.4-3.8" />
    </>
  ),
  failed: (
    <>
      <circle cx="8" cy="8" r="5.75" />
      <path d="m6.1 6.1 3.8 3.8M9.9 6.1 6.1 9.9" />
    </>
  ),
  search: (
    <>
      <circle cx="7" cy="7" r="4.25" />
      <path d="m10.3 10.3 3.2 3.2" />
    </>
  ),
  lens: (
    <>
      <path d="M1.75 8C3.2 5.3 5.4 3.9 8 3.9s4.8 1.4 6.25 4.1C12.8 10.7 10.6 12.1 8 12.1S3.2 10.7 1.75 8z" />
      <circle cx="8" cy="8" r="1.9" />
    </>
  ),
  plus: <path d="M8 3.25v9.5M3.25 8h9.5" />,
  close: <path d="m4 4 8 8M12 4l-8 8" />,
  check: <path d="m3.25 8.5 3 3 6.5-7" />,
  left: <path d="M9.75 3.5 5.25 8l4.5 4.5" />,
  right: <path d="M6.25 3.5 10.75 8l-4.5 4.5" />,
  down: <path d="M3.5 6.25 8 10.75l4.5-4.5" />,
  board: <path d="M2.75 3.25h3v9.5h-3zM6.75 3.25h3v6.5h-3zM10.75 3.25h2.5v8h-2.5z" />,
  list: <path d="M2.75 4.25h10.5M2.75 8h10.5M2.75 11.75h10.5" />,
  copy: <path d="M5.75 5.75h7v7h-7zM10.25 5.75v-2.5h-7v7h2.5" />,
  stop: <rect x="4.25" y="4.25" width="7.5" height="7.5" rx="1.25" />,
  steer: <path d="M3 12.75V9.5a3 3 0 0 1 3-3h6.5M9.75 3.5l3 3-3 3" />,
  retry: <path d="M12.9 8A4.9 4.9 0 1 1 11 4.1M11.2 1.9l.1 2.6-2.6.1" />,
  send: <path d="M8 12.75v-9M4.25 7.25 8 3.5l3.75 3.75" />,
  more: <path d="M3.6 8h.1M8 8h.1M12.4 8h.1" stroke-width="2.2" />,
  trash: <path d="M3.25 4.75h9.5M6.25 4.5V3h3.5v1.5M4.5 4.9l.5 8h6l.5-8" />,
  compare: <path d="M6.25 3.25h-3.5v9.5h3.5M9.75 3.25h3.5v9.5h-3.5M8 1.75v12.5" />,
  export: <path d="M8 2.75v7M5 7l3 3 3-3M3 12.9h10" />,
  keyboard: <path d="M1.75 4.25h12.5v7.5H1.75zM4.25 6.9h.1M6.75 6.9h.1M9.25 6.9h.1M11.75 6.9h.1M5.25 9.4h5.5" />,
  key: (
    <>
      <circle cx="5.4" cy="10.6" r="2.65" />
      <path d="m7.4 8.6 5.4-5.4M10.4 5.6l2 2" />
    </>
  ),
  vote: <path d="M3.25 12.75v-4M8 12.75v-9.5M12.75 12.75v-6.5" />,
  branch: <path d="M4.5 3v10M4.5 9.5c5 0 7-1.5 7-4.5M9.6 6.6 11.5 4.6l1.9 2" />,
} satisfies Record<string, JSX.Element>;

export type IconName = keyof typeof ICONS;

export function Icon({ name, size = 16 }: { name: IconName; size?: number }) {
  return (
    <svg
      class={`icon icon-${name}`}
      width={size}
      height={size}
      viewBox="0 0 16 16"
      fill="none"
      stroke="currentColor"
      stroke-width="1.5"
      stroke-linecap="round"
      stroke-linejoin="round"
      aria-hidden="true"
      focusable="false"
    >
      {ICONS[name]}
    </svg>
  );
}
