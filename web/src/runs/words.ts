// What the keys of a metrics file mean, in words, and which of them a reader wants first.

interface Meaning {
  title: string;
  says: string;
}

const MEANINGS: Record<string, Meaning> = {
  loss: { title: "Loss", says: "nats a token, in training" },
  held_out_loss: { title: "Held-out loss", says: "nats a token, on text that is never learned" },
  reward: { title: "Reward", says: "mean of the sampled answers" },
  solved: { title: "Solved", says: "share of the sampled answers" },
  score: { title: "Score", says: "mean grade of the sampled answers" },
  length: { title: "Length", says: "tokens of a sampled answer" },
  longest: { title: "Longest answer", says: "tokens" },
  entropy: { title: "Entropy", says: "nats a token: how open the choice is" },
  kl: { title: "KL", says: "from the weights that sampled" },
  reference_kl: { title: "KL from the start", says: "from the model that the stage began with" },
  truncated: { title: "Cut off", says: "share that ran out of tokens" },
  clipped: { title: "Clipped", says: "share of tokens" },
  flat: { title: "No signal", says: "share of groups with equal rewards" },
  gradient: { title: "Gradient norm", says: "before clipping" },
  lr: { title: "Learning rate", says: "" },
  tokens_per_second: { title: "Speed", says: "tokens a second" },
  rollout_seconds: { title: "Sampling", says: "seconds a step" },
  engine_difference: { title: "Engine difference", says: "largest, in log-probability" },
  trained: { title: "Trained tokens", says: "a step" },
  generated: { title: "Sampled tokens", says: "a step" },
};

const KINDS: Record<string, string> = {
  pass: "share of its samples that pass",
  solved: "share solved, held out and greedy",
  held_out: "on what is never learned",
  share: "share of the problems",
  level: "level of its problems",
};

const SHOWN_KINDS = ["held_out", "solved", "pass"];
const FIRST = ["loss", "held_out_loss", "reward", "solved", "score", "length", "entropy", "kl", "reference_kl"];
const FILL = ["lr", "gradient", "tokens_per_second"]; // where there is little else
const FEW = 4;
const POSITIONS = ["step", "tokens", "compute", "seconds"];

export function meaning(key: string): Meaning {
  const known = MEANINGS[key];
  if (known) return known;
  const [kind, name] = key.split(/\/(.*)/s);
  if (name && kind) return { title: capital(name.replaceAll("_", " ")), says: KINDS[kind] ?? kind.replaceAll("_", " ") };
  return { title: capital(key.replaceAll("_", " ")), says: "" };
}

const capital = (words: string) => words.charAt(0).toUpperCase() + words.slice(1);

export interface Ordered {
  /** Those that are shown large, the most telling first. */
  first: string[];
  /** Of each kind, a measure for each task: shown small, side by side. */
  groups: { says: string; keys: string[] }[];
  more: string[];
}

/** All keys that are drawn, each once. */
export function ordered(keys: string[]): Ordered {
  const drawn = keys.filter((key) => !POSITIONS.includes(key));
  const first = FIRST.filter((key) => drawn.includes(key));
  const groups = [];
  for (const [kind, says] of Object.entries(KINDS).filter(([kind]) => SHOWN_KINDS.includes(kind))) {
    const own = drawn.filter((key) => key.startsWith(`${kind}/`)).sort();
    if (own.length > FEW) groups.push({ says: capital(says), keys: own });
    else first.push(...own);
  }
  if (first.length < FEW) first.push(...FILL.filter((key) => drawn.includes(key)).slice(0, FEW - 1 - (first.length % (FEW - 1))));
  const shown = new Set([...first, ...groups.flatMap((group) => group.keys)]);
  return { first, groups, more: drawn.filter((key) => !shown.has(key)).sort() };
}

/** A value in at most about five characters. */
export function figure(value: number | null | undefined): string {
  if (value === undefined) return "";
  if (value === null) return "not a number";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e6 || size < 1e-4) return value.toExponential(1).replace("e+", "e");
  if (size >= 10_000) return `${(value / 1000).toFixed(size < 99_950 ? 1 : 0)}k`;
  if (size >= 1000) return Math.round(value).toLocaleString("en-US");
  return String(Number(value.toPrecision(4)));
}
