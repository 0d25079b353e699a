import { expect, test } from "vitest";
import { about, ago, clock, short } from "../src/text/format";

test("numbers as people read them", () => {
  expect([950, 1000, 1240, 9960, 34_400, 999_600].map(short)).toEqual(["950", "1k", "1.2k", "10k", "34k", "1M"]);
  expect([0, 59.9, 727, 3753].map(clock)).toEqual(["0:00", "0:59", "12:07", "1:02:33"]);
  expect([5, 50, 3600, 90_000].map(ago)).toEqual(["just now", "1 min ago", "1 h ago", "yesterday"]);
  expect([0.2, 240, 7200].map(about)).toEqual(["about 1 s", "about 4 min", "about 2 h"]);
});
