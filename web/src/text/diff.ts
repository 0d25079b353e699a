// What differs between two texts, word by word.

export interface Piece {
  text: string;
  kind: "same" | "gone" | "new";
}

const MOST = 600; // words of each text that are compared

/** The longest common subsequence of words, and what stands between. */
export function diffWords(before: string, after: string): Piece[] {
  const a = words(before);
  const b = words(after);
  const lengths = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      lengths[i]![j] = a[i] === b[j] ? lengths[i + 1]![j + 1]! + 1 : Math.max(lengths[i + 1]![j]!, lengths[i]![j + 1]!);
  const pieces: Piece[] = [];
  const add = (text: string, kind: Piece["kind"]) => {
    const last = pieces.at(-1);
    if (last?.kind === kind) last.text += text;
    else pieces.push({ text, kind });
  };
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      add(a[i]!, "same");
      i++;
      j++;
    } else if (j >= b.length || (i < a.length && lengths[i + 1]![j]! >= lengths[i]![j + 1]!)) add(a[i++]!, "gone");
    else add(b[j++]!, "new");
  }
  return pieces;
}

/** The number of the first line in which two texts differ, from 1; undefined: they are the same. */
export function firstDifference(one: string, other: string): number | undefined {
  const a = one.split("\n");
  const b = other.split("\n");
  for (let at = 0; at < Math.max(a.length, b.length); at++) if (a[at] !== b[at]) return at + 1;
  return undefined;
}

const words = (text: string) => text.match(/\s*\S+/g)?.slice(0, MOST) ?? [];
