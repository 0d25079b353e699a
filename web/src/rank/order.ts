// The order that a person gives: letters, the best first, some of them alike.

export const LETTERS = "abcdefghijklmnopqrstuvwxyz";

export interface Order {
  /** Letters that are alike stand in one group. */
  groups: string[][];
  /** Whether the next letter is as good as the last one. */
  tie: boolean;
}

export const NONE: Order = { groups: [], tie: false };

export const placed = (order: Order) => order.groups.flat();

/** The letter comes next; a letter that stands there already is taken out. */
export function put(order: Order, letter: string): Order {
  if (placed(order).includes(letter))
    return { groups: order.groups.map((group) => group.filter((each) => each !== letter)).filter((group) => group.length), tie: false };
  const last = order.groups.at(-1);
  if (order.tie && last) return { groups: [...order.groups.slice(0, -1), [...last, letter]], tie: false };
  return { groups: [...order.groups, [letter]], tie: false };
}

export const tie = (order: Order): Order => (order.groups.length ? { ...order, tie: !order.tie } : order);

/** Takes back the last thing that was said. */
export function back(order: Order): Order {
  if (order.tie) return { ...order, tie: false };
  const last = order.groups.at(-1);
  if (!last) return order;
  const rest = last.slice(0, -1);
  return { groups: rest.length ? [...order.groups.slice(0, -1), rest] : order.groups.slice(0, -1), tie: false };
}

/** As `ponder rank` and the API read it: "b > a = c". */
export const text = (order: Order) => order.groups.map((group) => group.join(" = ")).join(" > ");

/** The rank of a letter, 1 for the best, and whether it shares it. */
export function rankOf(order: Order, letter: string): { rank: number; shared: boolean } | undefined {
  let rank = 1;
  for (const group of order.groups) {
    if (group.includes(letter)) return { rank, shared: group.length > 1 };
    rank += group.length;
  }
  return undefined;
}

export const ordinal = (rank: number) => `${rank}${["th", "st", "nd", "rd"][rank % 100 > 10 && rank % 100 < 14 ? 0 : rank % 10] ?? "th"}`;
