import { render } from "preact";
import { readKeyFromAddress } from "./api/key";
import { startShortcuts } from "./keys";
import { startRouter } from "./router";
import { Shell } from "./shell";
import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/shell.css";
import "./styles/board.css";
import "./styles/job.css";
import "./styles/playground.css";
import "./styles/rank.css";
import "./styles/runs.css";

readKeyFromAddress();
startRouter();
startShortcuts();
render(<Shell />, document.getElementById("app")!);
