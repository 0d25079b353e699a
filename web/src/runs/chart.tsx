// One measure over a run, of every stage that is chosen. The cursor of all charts is one.
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { clock, count, short } from "../text/format";
import { smoothed, type Axis, type Track } from "./track";
import { figure, meaning } from "./words";

interface Props {
  curve: string;
  tracks: { track: Track; color: number }[];
  axis: Axis;
  smooth: boolean;
  /** One of many of its kind. */
  small?: boolean;
  /** Changes with the data. */
  version: number;
}

const HEIGHT = 190;
const SMALL = 110;
const ROUGH = 100; // points from which on a smoothed curve has the measured one under it
const DASHES = [[], [7, 3], [2, 3], [9, 3, 2, 3], [4, 4], [1, 3]];

export const WORDS: Record<Axis, string> = { step: "Step", tokens: "Tokens", seconds: "Time" };
const onAxis: Record<Axis, (value: number) => string> = { step: count, tokens: short, seconds: clock };

export function Chart({ curve, tracks, axis, smooth: wanted, small = false, version }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const at = useSignal<number | null>(null);
  const dark = useSignal(matchMedia("(prefers-color-scheme: dark)").matches);
  const shown = tracks.filter(({ track }) => track.curves.has(curve));
  const smooth = wanted && curve !== "lr"; // that one is exact
  const height = small ? SMALL : HEIGHT;
  const drawn = [
    ...shown.filter(({ track }) => smooth && track.curves.get(curve)!.steps.length >= ROUGH).map((each) => ({ ...each, rough: true })),
    ...shown.map((each) => ({ ...each, rough: false })),
  ];
  const tables = drawn.map(({ track, rough }) => {
    const { steps, values } = track.curves.get(curve)!;
    return [steps.map((step) => track.at(step, axis)), smooth && !rough ? smoothed(values) : values] as uPlot.AlignedData;
  });
  const data = tables.length ? uPlot.join(tables) : ([[]] as unknown as uPlot.AlignedData);
  const lines = drawn.map(({ color, rough }) => `${color}${rough}`).join();

  useEffect(() => {
    const media = matchMedia("(prefers-color-scheme: dark)");
    const change = () => (dark.value = media.matches);
    media.addEventListener("change", change);
    return () => media.removeEventListener("change", change);
  }, []);

  useEffect(() => {
    const element = place.current!;
    const paint = (name: string) => {
      element.style.color = `var(${name})`;
      const found = getComputedStyle(element).color;
      element.style.color = "";
      return found;
    };
    const soft = paint("--soft");
    const line = paint("--line");
    const axisOf = (values: uPlot.Axis.DynamicValues, size: number): uPlot.Axis => ({
      stroke: soft,
      font: "11px system-ui, sans-serif",
      grid: { stroke: line, width: 1 },
      ticks: { show: false },
      border: { show: false },
      gap: 6,
      size,
      values,
    });
    const made = new uPlot(
      {
        width: Math.max(160, element.clientWidth),
        height,
        legend: { show: false },
        padding: [8, 10, 0, 0],
        cursor: {
          sync: { key: "runs" },
          y: false,
          drag: { x: true, y: false },
          points: { size: 7, width: 2, stroke: paint("--paper"), fill: (self, series) => self.series[series]!.stroke as unknown as string },
        },
        scales: { x: { time: false } },
        axes: [
          { ...axisOf((_, found) => found.map((value) => onAxis[axis](value)), 26), space: 64 },
          { ...axisOf((_, found) => found.map((value) => figure(value)), small ? 40 : 52), space: small ? 28 : 34 },
        ],
        series: [
          {},
          ...drawn.map(({ color, rough }): uPlot.Series => ({
            stroke: rough ? faint(paint(`--series-${color}`)) : paint(`--series-${color}`),
            width: rough ? 1 : 1.75,
            dash: rough ? [] : (DASHES[color] ?? []),
            points: { show: (self, _, from, to) => to - from < 2 || self.data[0].length < 12, size: 5 },
          })),
        ],
        hooks: { setCursor: [(self) => void (at.value = self.cursor.idx ?? null)] },
      },
      data,
      element,
    );
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: Math.max(160, element.clientWidth), height }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = undefined;
    };
  }, [curve, axis, lines, dark.value]);

  useEffect(() => plot.current?.setData(data), [version, axis, smooth, lines]);

  const { title, says } = meaning(curve);
  return (
    <section class={`chart${small ? " small" : ""}`} aria-label={title}>
      <header>
        <h3 class={small ? "clip" : ""}>{title}</h3>
        {!small && <span class="soft">{says}</span>}
        {!small && at.value !== null && (
          <span class="soft where">
            {WORDS[axis].toLowerCase()} {onAxis[axis](data[0][at.value] ?? 0)}
          </span>
        )}
      </header>
      <ul class="values">
        {shown.map(({ track, color }, number) => (
          <li key={track.name} title={track.name}>
            <Swatch color={color} />
            {tracks.length > 1 && <span class="clip soft">{track.name}</span>}
            <b>{figure(valueAt(data[drawn.length - shown.length + number + 1] as (number | null | undefined)[], at.value))}</b>
          </li>
        ))}
      </ul>
      <div
        ref={place}
        class="plot"
        role="img"
        tabIndex={0}
        aria-label={`${title}. ${shown.map(({ track }) => described(track, curve)).join(" ")} Arrow keys move through it.`}
        onKeyDown={(event) => {
          const by = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
          const self = plot.current;
          if (!by || !self) return;
          event.preventDefault();
          event.stopPropagation();
          const last = self.data[0].length - 1;
          const next = Math.min(last, Math.max(0, (self.cursor.idx ?? (by > 0 ? -1 : last + 1)) + by * (event.shiftKey ? 20 : 1)));
          self.setCursor({ left: self.valToPos(self.data[0][next]!, "x"), top: 10 });
        }}
        onBlur={() => plot.current?.setCursor({ left: -10, top: -10 })}
      />
    </section>
  );
}

/** A colour as it is computed, almost transparent. */
const faint = (color: string) => color.replace(/\s*\)$/, " / 0.28)").replace(/^rgb\((\d+), (\d+), (\d+) \//, "rgb($1 $2 $3 /");

export function Swatch({ color }: { color: number }) {
  return (
    <svg class={`swatch series${color}`} width="18" height="8" viewBox="0 0 18 8" aria-hidden="true">
      <path d="M1 4h16" stroke-dasharray={DASHES[color]?.map((each) => each / 1.6).join(" ") ?? ""} />
    </svg>
  );
}

/** The value at a place, or the last one before it: the curves of two runs have no steps in common. */
function valueAt(values: (number | null | undefined)[], at: number | null) {
  for (let number = at ?? values.length - 1; number >= 0; number--) if (values[number] !== undefined) return values[number];
  return undefined;
}

function described(track: Track, key: string) {
  const { steps, values } = track.curves.get(key)!;
  const finite = values.filter((value) => value !== null);
  if (!finite.length) return `${track.name} has no finite value.`;
  const low = finite.reduce((a, b) => Math.min(a, b));
  const high = finite.reduce((a, b) => Math.max(a, b));
  const odd = values.length - finite.length;
  return (
    `${track.name}: ${figure(finite[0])} at step ${count(steps[0]!)}, ${figure(finite.at(-1))} at step ${count(steps.at(-1)!)}, ` +
    `from ${figure(low)} to ${figure(high)}${odd ? `, ${odd} not a number` : ""}.`
  );
}
