// The pages: a line and a file each. The first word of a path chooses; what follows it is the page's own.
import type { ComponentType } from "preact";
import { Board } from "./pages/board";

export interface PageProps {
  /** What follows the page's name in the path: an id, or "". */
  rest: string;
}

export interface PageEntry {
  /** The first word of its path; "" for the first page. */
  name: string;
  title: string;
  /** Whether the navigation lists it. */
  listed: boolean;
  /** Its component, or what loads it when it is first opened. */
  page: ComponentType<PageProps> | (() => Promise<{ default: ComponentType<PageProps> }>);
  lazy: boolean;
}

export const PAGES: PageEntry[] = [
  { name: "", title: "Board", listed: true, page: Board, lazy: false },
  { name: "playground", title: "Playground", listed: true, page: () => import("./pages/playground"), lazy: true },
  { name: "rank", title: "Rank", listed: true, page: () => import("./pages/rank"), lazy: true },
  { name: "runs", title: "Runs", listed: true, page: () => import("./pages/runs"), lazy: true },
  { name: "jobs", title: "Job", listed: false, page: () => import("./pages/job"), lazy: true },
  { name: "lens", title: "Lens", listed: false, page: () => import("./pages/lens"), lazy: true },
  { name: "compare", title: "Compare", listed: false, page: () => import("./pages/compare"), lazy: true },
];
