// Draws what a model computed over one answer, for the file of `ponder inspect` and for the application. Nothing is
// fetched; text never becomes markup.

const NATS_A_BIT = Math.log(2);
const MOST_SURPRISE = 8; // bits that are drawn as the strongest colour
const MEASURES = {
  surprise: "Stronger: the model thought this token less likely (in bits: 1 is one chance in two, 7 one in a hundred).",
  entropy: "Stronger: the model was less sure what would come here, whatever came (in bits; 0 is quite sure).",
  attention: "Stronger: the chosen head looked more at this token. It says where it looked, not why.",
  phase: "Grey: what the model was given. Violet: its thinking. Green: its answer. Yellow: a call of a tool.",
};

// Reading -------------------------------------------------------------------------------------------------------

async function inflated(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

async function column(stored) {
  const kinds = { f4: Float32Array, u1: Uint8Array, i4: Int32Array };
  const values = new kinds[stored.type](await inflated(stored.data));
  return { values, width: stored.shape.length > 1 ? stored.shape[1] : 1, height: stored.shape[0] };
}

async function readContext(stored) {
  const names = ["kinds", "ids", "logprobs", "entropy", "top_ids", "top_logprobs", "next_ids", "next_logprobs",
    "layer_ids", "layer_logprobs", "queries"];
  const read = await Promise.all(names.map((name) => column(stored[name])));
  const context = Object.fromEntries(names.map((name, i) => [name, read[i]]));
  context.length = stored.length;
  context.begin = stored.begin;
  context.forced = new Set(stored.forced);
  context.heads = stored.heads;
  context.opened = new Map(); // heads inflated so far
  context.starts = []; // where the row of each query begins in a head's bytes
  context.rowOf = new Map();
  let start = 0;
  context.queries.values.forEach((query, row) => {
    context.starts.push(start);
    context.rowOf.set(query, row);
    start += query + 1;
  });
  return context;
}

// The bytes of one head; the one chosen last is kept.
async function headOf(context, layer, head) {
  const key = `${layer}/${head}`;
  if (!context.opened.has(key)) {
    const stored = context.heads[layer][head];
    const rows = new Uint8Array(await inflated(stored.rows));
    context.opened.clear();
    context.opened.set(key, { rows, strongest: (await column(stored.strongest)).values });
  }
  return context.opened.get(key);
}

function attentionRow(context, opened, query) {
  const row = context.rowOf.get(query);
  if (row === undefined) return null;
  const start = context.starts[row];
  return { bytes: opened.rows.subarray(start, start + query + 1), strongest: opened.strongest[row] };
}

// Words and elements -----------------------------------------------------------------------------------------------

function percent(logprob) {
  const share = 100 * Math.exp(logprob);
  if (share >= 99.95) return share >= 99.9995 ? "100%" : `${share.toFixed(3)}%`;
  return share >= 0.01 ? `${share.toFixed(share >= 10 ? 1 : 2)}%` : `${share.toExponential(1)}%`;
}

const bits = (nats) => nats / NATS_A_BIT;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
    else if (name === "class") element.className = value;
    else if (value !== false && value !== undefined) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

function table(heads, rows) {
  return make("table", {}, make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", {}, ...rows));
}

function cells(...values) {
  return make("tr", {}, ...values.map(([kind, ...content]) => make("td", { class: kind }, ...content)));
}

function bar(share) {
  return make("meter", { min: 0, max: 1, value: share, "aria-hidden": "true" });
}

/**
 * Draws `data` into `root`, an empty element of the class "lens". Resolves to its single keys, when all is drawn.
 * branch: called with the place and the id of an alternative to go on from; left out: `data.branch` may have a command.
 */
export async function drawLens(root, data, { branch } = {}) {
  const control = new Set(data.control);
  const contexts = await Promise.all(data.contexts.map(readContext));
  const near = data.near.of.length ? { ids: await column(data.near.ids), cosines: await column(data.near.cosines) } : null;
  const names = Object.keys(MEASURES);
  const legend = make("p", { class: "soft" });
  const live = make("p", { class: "soft", "aria-live": "polite" });
  const panel = make("aside", { class: "panel", "aria-label": "The chosen token", tabindex: 0 });

  function spelled(id) {
    const text = data.tokens[id] ?? `#${id}`;
    return text.replaceAll("\n", "⏎").replaceAll("\t", "⇥");
  }

  function quoted(id) {
    const text = spelled(id);
    return text.trim() === "" || text !== text.trim() ? `“${text.replaceAll(" ", "␣")}”` : text;
  }

  const state = { measure: "surprise", context: 0, place: 0, layer: 0, head: 0, read: false };
  const spans = [];

  function drawText(parent) {
    contexts.forEach((context, number) => {
      const last = number === contexts.length - 1;
      if (contexts.length > 1) {
        const after = last ? "the one that the answer came from." :
          "the model no longer sees its thinking, and went on from the state at its end.";
        parent.append(make("h2", {}, `Context ${number + 1} of ${contexts.length}: ${after}`));
      }
      const text = make("div", {
        class: last ? "tokens" : "tokens gone", tabindex: 0, role: "group",
        "aria-label": `Tokens of context ${number + 1}; arrow keys choose one`,
      });
      let line = make("div", { class: "line" });
      text.append(line);
      const drawn = [];
      context.ids.values.forEach((id, place) => {
        const words = data.tokens[id] ?? `#${id}`;
        const span = make("span", { class: "token" }, words === "" ? "∅" : words.replaceAll("\n", "⏎"));
        span.dataset.place = place;
        if (control.has(id)) span.classList.add("control");
        if (context.forced.has(place)) span.classList.add("forced");
        line.append(span);
        drawn.push(span);
        if (words.includes("\n")) text.append((line = make("div", { class: "line" })));
      });
      text.addEventListener("click", (event) => {
        const span = event.target.closest(".token");
        if (span) choose(number, Number(span.dataset.place));
      });
      text.addEventListener("keydown", onMove);
      text.addEventListener("focus", () => { if (state.context !== number) choose(number, 0); });
      spans.push(drawn);
      parent.append(text);
    });
  }

  // The values of the chosen measure at each token of a context, from 0 to 1, or null where there is none.
  async function valuesOf(number) {
    const context = contexts[number];
    if (state.measure === "surprise")
      return Array.from(context.logprobs.values, (logprob) => Math.min(1, bits(-logprob) / MOST_SURPRISE));
    if (state.measure === "entropy")
      return Array.from(context.entropy.values, (entropy) => Math.min(1, entropy / MOST_SURPRISE));
    if (number !== state.context || !context.heads.length) return null;
    const row = attentionRow(context, await headOf(context, state.layer, state.head), query());
    return row && Array.from(spans[number], (_, place) => Math.sqrt((row.bytes[place] ?? 0) / 255));
  }

  // Whose row of attention is shown: the token's own, or that of the token before it, from which it was chosen.
  function query() {
    return state.read ? state.place : state.place - 1;
  }

  async function tint() {
    legend.textContent = MEASURES[state.measure];
    for (let number = 0; number < contexts.length; number++) {
      const values = state.measure === "phase" ? null : await valuesOf(number);
      spans[number].forEach((span, place) => {
        for (const kind of data.kinds) span.classList.remove(`kind-${kind}`);
        if (state.measure === "phase") span.classList.add(`kind-${data.kinds[contexts[number].kinds.values[place]]}`);
        const value = values ? values[place] : undefined;
        const drawn = value > 0.004;
        span.classList.toggle("tinted", drawn);
        if (drawn) {
          span.style.setProperty("--hue", `var(--${state.measure})`);
          span.style.setProperty("--v", (75 * value).toFixed(1));
        }
      });
    }
  }

  function choose(number, place) {
    spans[state.context]?.[state.place]?.classList.remove("chosen");
    state.context = number;
    state.place = Math.max(0, Math.min(contexts[number].length - 1, place));
    const span = spans[number][state.place];
    span.classList.add("chosen");
    span.scrollIntoView({ block: "nearest" });
    drawPanel();
    if (state.measure === "attention") tint();
  }

  function drawAlternatives(context, place) {
    const width = context.top_ids.width;
    const own = context.ids.values[place];
    const rows = [];
    let listed = false;
    const add = (id, logprob, chosen) => {
      const words = [["said", quoted(id)], ["number", percent(logprob)], ["", bar(Math.exp(logprob))]];
      const row = cells(...words, ["", chosen ? "← came" : branchButton(place, id)]);
      rows.push(row);
    };
    for (let i = 0; i < width; i++) {
      const id = context.top_ids.values[place * width + i];
      listed ||= id === own;
      add(id, context.top_logprobs.values[place * width + i], id === own);
    }
    if (!listed) add(own, context.logprobs.values[place], true);
    return table(["token", "probability", "", ""], rows);
  }

  function branchButton(place, id) {
    if (state.context !== contexts.length - 1 || place < contexts[state.context].begin) return "";
    if (branch)
      return make("button", {
        on: {
          click: (event) => {
            event.currentTarget.disabled = true;
            branch(place, id);
          },
        },
      }, "branch here");
    if (!data.branch) return "";
    const command = data.branch.replace("{place}", place).replace("{id}", id);
    return make("button", {
      on: { click: (event) => event.currentTarget.replaceWith(make("code", { tabindex: 0 }, command)) },
    }, "branch here");
  }

  function drawLayers(context, place) {
    const rows = [];
    const { width, height } = context.layer_ids;
    for (let layer = 0; layer < height; layer++) {
      const at = layer * width + place;
      const logprob = context.layer_logprobs.values[at];
      rows.push(cells(["", layer === 0 ? "embedding" : `layer ${layer}`], ["said", quoted(context.layer_ids.values[at])],
        ["number", percent(logprob)], ["", bar(Math.exp(logprob))]));
    }
    return table(["after", "would say", "gives what came", ""], rows);
  }

  function drawNear(id) {
    const at = data.near.of.indexOf(id);
    if (at < 0 || !near) return null;
    const { ids, cosines } = near;
    const rows = Array.from({ length: ids.width }, (_, i) =>
      cells(["said", quoted(ids.values[at * ids.width + i])], ["number", cosines.values[at * ids.width + i].toFixed(2)]));
    return table(["token", "cosine"], rows);
  }

  async function drawLooked(parent, context) {
    const row = attentionRow(context, await headOf(context, state.layer, state.head), query());
    if (!row) {
      parent.replaceChildren(make("p", { class: "soft" }, query() < 0 ? "Nothing stands before the first token." :
        "The attention of this token is not kept in this file (see above)."));
      return;
    }
    const order = Array.from(row.bytes.keys()).sort(
      (a, b) => row.bytes[b] - row.bytes[a] || (b === row.strongest) - (a === row.strongest) || a - b);
    const rows = order.slice(0, 6).filter((place) => row.bytes[place] > 0).map((place) =>
      cells(["number", `${place}`], ["said", quoted(context.ids.values[place])],
        ["number", `${(row.bytes[place] / 2.55).toFixed(1)}%`], ["", bar(row.bytes[place] / 255)]));
    parent.replaceChildren(table(["place", "token", "share", ""], rows));
  }

  function drawGrid(parent, context) {
    const grid = make("div", { class: "heads", role: "group", "aria-label": "Heads, by layer" });
    const widest = Math.min(32, context.heads[0].length);
    grid.style.gridTemplateColumns = `auto repeat(${widest}, 40px)`;
    const waiting = [];
    context.heads.forEach((heads, layer) => {
      grid.append(make("span", {}, `${layer + 1}`));
      heads.slice(0, widest).forEach((_, head) => {
        const canvas = make("canvas", { width: 34, height: 34 });
        const pressed = layer === state.layer && head === state.head;
        grid.append(make("button", {
          "aria-label": `layer ${layer + 1}, head ${head + 1}`, "aria-pressed": `${pressed}`,
          on: { click: () => chooseHead(layer, head) },
        }, canvas));
        waiting.push([layer, head, canvas]);
      });
    });
    parent.replaceChildren(grid);
    drawThumbnails(context, waiting, query());
  }

  // One small picture a head: the row shown, in 34 × 34 squares from the first token to this one. One a task, so that
  // keys stay quick.
  async function drawThumbnails(context, waiting, asked) {
    for (const [layer, head, canvas] of waiting) {
      if (!canvas.isConnected || asked !== query()) return;
      const stored = context.heads[layer][head];
      const rows = context.opened.get(`${layer}/${head}`)?.rows ?? new Uint8Array(await inflated(stored.rows));
      const row = attentionRow(context, { rows, strongest: [] }, asked);
      const pen = canvas.getContext("2d");
      pen.clearRect(0, 0, 34, 34);
      pen.fillStyle = getComputedStyle(canvas).color;
      if (row) {
        const side = Math.min(34, Math.ceil(Math.sqrt(row.bytes.length)));
        const most = new Float32Array(side * side);
        row.bytes.forEach((byte, place) => {
          const square = Math.floor((place * side * side) / row.bytes.length);
          most[square] = Math.max(most[square], byte);
        });
        most.forEach((byte, square) => {
          pen.globalAlpha = Math.sqrt(byte / 255);
          pen.fillRect((square % side) * (34 / side), Math.floor(square / side) * (34 / side), 34 / side, 34 / side);
        });
      }
      await new Promise((resume) => setTimeout(resume));
    }
  }

  function chooseHead(layer, head) {
    const context = contexts[state.context];
    if (!context.heads.length) return;
    state.layer = (layer + context.heads.length) % context.heads.length;
    const heads = context.heads[state.layer].length;
    state.head = (head + heads) % heads;
    drawPanel();
    if (state.measure === "attention") tint();
  }

  function drawPanel() {
    const context = contexts[state.context];
    const { place } = state;
    const id = context.ids.values[place];
    const logprob = context.logprobs.values[place];
    const kind = data.kinds[context.kinds.values[place]];
    const meant = { prompt: "given to the model", think: "its thinking", answer: "its answer", tool: "a call of a tool" };
    const put = context.forced.has(place) ? ", put in by the engine" : "";
    const said = place === 0 ? "the first token: nothing predicts it" :
      `probability ${percent(logprob)}, ${bits(-logprob).toFixed(2)} bits of surprise; entropy ${context.entropy.values[place].toFixed(2)} bits`;
    live.textContent = `Token ${place}, ${spelled(id)}: ${said}`;
    const parts = [
      make("h2", {}, `Token ${place}: ${quoted(id)}`),
      make("p", {}, `Number ${id} of the vocabulary; ${meant[kind]}${put}; ${said}.`),
    ];
    if (place > 0) {
      parts.push(make("h2", {}, "What else could have come"),
        make("p", { class: "soft" }, "The likeliest tokens at this place. The model gives every token of its vocabulary a probability; one is drawn."),
        drawAlternatives(context, place));
    }
    if (context.heads.length) {
      const looked = make("div");
      const grid = make("div");
      const heads = context.heads[state.layer].length;
      parts.push(make("h2", {}, `Where it looked: layer ${state.layer + 1}, ${heads === 1 ? "the mean of its heads" : `head ${state.head + 1}`}`),
        make("p", { class: "soft" }, state.read ?
          "What this token drew from the tokens before it and from itself. Where it looked, not why." :
          "What the model drew from as it chose this token. Where it looked, not why."),
        make("div", { class: "tools", role: "group", "aria-label": "Whose look" },
          make("button", { "aria-pressed": `${!state.read}`, on: { click: () => readAs(false) } }, "as it was chosen"),
          make("button", { "aria-pressed": `${state.read}`, on: { click: () => readAs(true) } }, "as it was read")),
        looked, grid);
      drawLooked(looked, context);
      drawGrid(grid, context);
    }
    if (place > 0) {
      parts.push(make("h2", {}, "What each layer would have said"),
        make("p", { class: "soft" }, "The stream of numbers after each layer, read as if it were the last: how early the answer is there."),
        drawLayers(context, place));
    }
    const nearest = drawNear(id);
    if (nearest) {
      parts.push(make("h2", {}, "Its neighbours"),
        make("p", { class: "soft" }, "The tokens whose embeddings point most nearly the same way (1: the same way)."), nearest);
    }
    const scrolled = panel.scrollTop;
    panel.replaceChildren(...parts);
    panel.scrollTop = scrolled;
  }

  function readAs(read) {
    state.read = read;
    drawPanel();
    if (state.measure === "attention") tint();
  }

  function measure(name) {
    state.measure = name;
    root.querySelectorAll("[data-measure]").forEach((button) =>
      button.setAttribute("aria-pressed", `${button.dataset.measure === name}`));
    tint();
  }

  // The next token, in reading order, that surprised the model by two bits or more.
  function nextSurprise() {
    for (let number = state.context, place = state.place + 1; number < contexts.length; number++, place = 0) {
      const { logprobs } = contexts[number];
      for (; place < logprobs.values.length; place++)
        if (bits(-logprobs.values[place]) >= 2) return choose(number, place);
    }
  }

  // Arrow keys, within a text.
  function onMove(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const last = contexts[state.context].length - 1;
    const to = { ArrowLeft: state.place - 1, ArrowRight: state.place + 1, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    choose(state.context, to);
  }

  const text = make("section", { "aria-label": "Text" });
  drawText(text);
  root.replaceChildren(
    make("div", { class: "head" },
      make("h1", {}, data.title),
      make("p", { class: "soft" }, `${data.model} · ${contexts.reduce((sum, each) => sum + each.length, 0)} tokens`),
      ...data.notes.map((note) => make("p", { class: "soft" }, note)),
      make("div", { class: "tools", role: "group", "aria-label": "Colour" }, "Colour by",
        ...names.map((name) => make("button", {
          "data-measure": name, "aria-pressed": `${name === state.measure}`, on: { click: () => measure(name) },
        }, name))),
      legend),
    make("div", { class: "split" }, text, panel),
    make("div", { class: "foot" },
      make("p", { class: "soft" },
        "Keys: ← → choose a token, 1–4 the colour, [ ] the layer, , . the head, a as chosen or as read, ! the next surprise."),
      live));
  const last = contexts.length - 1;
  const answers = contexts[last].kinds.values.indexOf(data.kinds.indexOf("answer"));
  state.context = last;
  choose(last, answers > 0 ? answers : contexts[last].length - 1);
  await tint();
  return [
    ...names.map((name, at) => ({ keys: [`${at + 1}`], says: `Colour by ${name}`, act: () => measure(name) })),
    { keys: ["["], says: "The layer before", act: () => chooseHead(state.layer - 1, state.head) },
    { keys: ["]"], says: "The next layer", act: () => chooseHead(state.layer + 1, state.head) },
    { keys: [","], says: "The head before", act: () => chooseHead(state.layer, state.head - 1) },
    { keys: ["."], says: "The next head", act: () => chooseHead(state.layer, state.head + 1) },
    { keys: ["a"], says: "As it was chosen, or as it was read", act: () => readAs(!state.read) },
    { keys: ["!"], says: "The next surprise", act: nextSurprise },
  ];
}
