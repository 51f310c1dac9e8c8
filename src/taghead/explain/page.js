// What is shown: state, and one function that draws each part from it.

const LISTED = 8; // rows of the table
const LINES = 5; // sources that lines are drawn from
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const STOPS = [[76, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]]; // inferno, from a quarter on
const COLOURS = ["#e8772e", "#2f7fd6", "#2a9d76", "#b765c4", "#c99a1f", "#5aa9c9"];
const PLAY = "M3 1.5v13l11-6.5z";
const PAUSE = "M3 1.5h3.5v13H3zM9.500 1.5H13v13H9.500z";

const state = {
  frame: 0, hovered: null, keyed: null, pinned: null,
  layer: 0, head: -1, relation: "", heat: "rollout", playing: false,
};
let layers = [];
let images = [];
let cells = [];
let thumbs = [];

function make(tag, attributes = {}, ...children) {
  const isDrawn = ["svg", "path", "circle", "line", "text", "polygon", "polyline"].includes(tag);
  const found = isDrawn ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) found.setAttribute(name, value);
  found.append(...children);
  return found;
}

const percent = (share) => `${(100 * share).toFixed(1)}%`;
const tokenFrame = () => DATA.frames.token_frame[state.frame];
const activePosition = () => state.hovered ?? state.keyed ?? state.pinned;
const placeOf = (node) => `row ${rowOf(node)}, column ${columnOf(node)}`;
const seconds = (frame) => `${(DATA.frames.seconds[frame] ?? 0).toFixed(2)} s`;

/** The node whose neighbours are shown, if one is. */
function activeNode() {
  const position = activePosition();
  return position === null || !layers.length ? null : tokenFrame() * POSITIONS + position;
}

/** The weights to draw: of each source node, and the largest in its frame and in the others. */
function drawnWeights(node) {
  const rows = listensTo(layers[state.layer], node, state.head, state.relation);
  const sums = new Map();
  for (const row of rows) sums.set(row.source, (sums.get(row.source) ?? 0) + row.weight);
  const top = { here: 0, elsewhere: 0 };
  for (const [source, weight] of sums) {
    const part = frameOf(source) === frameOf(node) ? "here" : "elsewhere";
    top[part] = Math.max(top[part], Math.abs(weight));
  }
  return { rows, sums, top };
}

// Colours

function heatColour(share, isSigned) {
  const strength = Math.min(Math.abs(share), 1);
  if (isSigned) {
    const [r, g, b] = share < 0 ? [56, 132, 255] : [240, 74, 40];
    return `rgb(${r} ${g} ${b} / ${(0.85 * strength).toFixed(3)})`;
  }
  const place = strength * (STOPS.length - 1);
  const low = Math.min(Math.floor(place), STOPS.length - 2);
  const [r, g, b] = STOPS[low].map((v, i) => Math.round(v + (STOPS[low + 1][i] - v) * (place - low)));
  return `rgb(${r} ${g} ${b} / ${(0.04 + 0.74 * strength).toFixed(3)})`;
}

/** The heat of a clip at rest, as shares of its range. */
function restingHeat() {
  const values = DATA[state.heat];
  if (!values) return null;
  const all = values.flat(2).map((v) => v ?? 0);
  if (state.heat === "saliency") {
    const top = Math.max(...all.map(Math.abs)) || 1;
    return { isSigned: true, of: (node) => valueAt(values, node) / top };
  }
  const low = Math.min(...all);
  const range = Math.max(...all) - low || 1;
  return { isSigned: false, of: (node) => (valueAt(values, node) - low) / range };
}

// Parts of the page

function draw() {
  const node = activeNode();
  const shown = node === null ? null : drawnWeights(node);
  drawPicture();
  drawPatches(node, shown);
  drawLines(node, shown);
  drawStrip(node, shown);
  drawTable(node, shown);
  drawPlayer();
  say(node, shown);
}

function drawPicture() {
  const canvas = $("picture");
  const image = images[state.frame];
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  if (activePosition() === null && state.heat === "none") return;
  context.fillStyle = "rgb(10 14 22 / .38)";
  context.fillRect(0, 0, canvas.width, canvas.height);
}

function drawPatches(node, shown) {
  const rest = restingHeat();
  const first = tokenFrame() * POSITIONS;
  cells.forEach((cell, position) => {
    const here = first + position;
    const weight = shown ? shown.sums.get(here) : undefined;
    const isActive = activePosition() === position;
    let colour = "transparent";
    if (weight !== undefined) colour = heatColour(weight / (shown.top.here || 1), weight < 0);
    else if (!shown && rest) colour = heatColour(rest.of(here), rest.isSigned);
    cell.style.backgroundColor = colour;
    cell.classList.toggle("active", isActive);
    cell.classList.toggle("pinned", state.pinned === position);
    cell.setAttribute("aria-selected", String(state.pinned === position));
    const text = weight === undefined ? "" : weight.toFixed(4);
    if (cell.textContent !== text) cell.textContent = text;
    cell.dataset.weight = text;
    const told = text && node !== null ? `, weight ${text}` : "";
    cell.setAttribute("aria-label", `Row ${rowOf(here)}, column ${columnOf(here)}${told}`);
  });
}

function drawLines(node, shown) {
  const lines = $("lines");
  lines.replaceChildren();
  if (node === null) return;
  const centre = (at) => [(columnOf(at) - 0.5) * (100 / GRID.width), (rowOf(at) - 0.5) * (100 / GRID.height)];
  const near = shown.rows.filter((row) => frameOf(row.source) === frameOf(node) && row.source !== node);
  const [x, y] = centre(node);
  for (const row of near.slice(0, LINES).reverse()) {
    const strength = Math.abs(row.weight) / (shown.top.here || 1);
    const [fromX, fromY] = centre(row.source);
    const bend = 0.14;
    const path = `M${fromX} ${fromY}Q${(fromX + x) / 2 + (y - fromY) * bend} ${(fromY + y) / 2 - (x - fromX) * bend} ${x} ${y}`;
    const width = 0.3 + 0.9 * strength;
    lines.append(
      make("path", { class: "halo", d: path, "stroke-width": width + 0.7 }),
      make("path", { class: "line", d: path, "stroke-width": width, "data-source": row.source, "data-weight": row.weight.toFixed(4) }),
      make("circle", { class: "dot", cx: fromX, cy: fromY, r: 0.7 + 0.7 * strength }),
    );
  }
}

function drawStrip(node, shown) {
  const rest = restingHeat();
  thumbs.forEach((thumb, t) => {
    const own = shown && t === frameOf(node);
    const context = thumb.canvas.getContext("2d");
    context.drawImage(images[thumb.frame], 0, 0, thumb.canvas.width, thumb.canvas.height);
    context.fillStyle = "rgb(10 14 22 / .38)";
    context.fillRect(0, 0, thumb.canvas.width, thumb.canvas.height);
    const wide = thumb.canvas.width / GRID.width;
    const high = thumb.canvas.height / GRID.height;
    let total = null;
    for (let position = 0; position < POSITIONS; position++) {
      const here = t * POSITIONS + position;
      const weight = shown ? shown.sums.get(here) : undefined;
      let colour = null;
      if (weight !== undefined) {
        total = (total ?? 0) + weight;
        colour = heatColour(weight / ((own ? shown.top.here : shown.top.elsewhere) || 1), weight < 0);
      } else if (!shown && rest) colour = heatColour(rest.of(here), rest.isSigned);
      if (!shown && rest) total = (total ?? 0) + valueAt(DATA[state.heat], here);
      const [left, top] = [(position % GRID.width) * wide, Math.floor(position / GRID.width) * high];
      if (colour) {
        context.fillStyle = colour;
        context.fillRect(left, top, wide, high);
      }
      if (shown && position === positionOf(node)) {
        context.strokeStyle = own ? "#fff" : "rgb(255 255 255 / .7)";
        context.lineWidth = own ? 3 : 1.5;
        context.strokeRect(left + 1, top + 1, wide - 2, high - 2);
      }
    }
    const text = total === null ? "–" : state.heat === "saliency" && !shown ? total.toPrecision(2) : total.toFixed(4);
    thumb.weight.textContent = text;
    thumb.button.dataset.weight = total === null ? "" : text;
    thumb.button.setAttribute("aria-current", String(t === tokenFrame()));
    thumb.button.setAttribute("aria-label", `Go to frame ${t + 1} of ${GRID.frames}, ${seconds(thumb.frame)}; ${total === null ? "no weight" : text}`);
  });
  const what = { rollout: "the part of the rollout", saliency: "the sum of the saliency", none: "" }[state.heat];
  $("strip-note").textContent = shown
    ? "Under each frame, the weights that the patch gives to it: its own patch there, or others."
    : what ? `Under each frame of tokens, ${what} that falls on it.` : "The frames of tokens.";
}

function drawTable(node, shown) {
  const position = activePosition();
  const title = $("listens-title");
  const note = $("listens-note");
  const rows = node !== null ? shown.rows.slice(0, LISTED)
    : layers.length ? strongest(layers[state.layer], state.head, state.relation, Object.keys(layers[state.layer]).length > 1 && !state.relation ? 4 : LISTED) : [];
  if (position !== null) {
    const here = tokenFrame() * POSITIONS + position;
    title.textContent = `${layers.length ? "Listens to" : "Patch"}: ${placeOf(here)}, frame ${frameOf(here) + 1}`;
    const rollout = valueAt(DATA.rollout, here) * NODES;
    note.textContent = `It counts ${rollout.toFixed(2)} times an even share (rollout); saliency for ${DATA.target} ${valueAt(DATA.saliency, here).toPrecision(3)}.`;
  } else {
    title.textContent = layers.length ? "The strongest edges" : "No graph";
    note.textContent = layers.length ? "Of all patches, by relation. Choose a patch to see its own."
      : "The model passes no messages: the heat is what its Transformer and readout make of each patch.";
  }
  const heads = node !== null ? ["Patch", "Relation", "Weight"] : ["To", "From", "Weight"];
  $("edges-head").replaceChildren(...heads.map((text) => make("th", { scope: "col" }, text)));
  $("edges").replaceChildren(...rows.map((row) => tableRow(row, node)));
  $("edges").parentElement.hidden = !rows.length;
}

function tableRow(row, node) {
  const place = (at) => `${rowOf(at)}, ${columnOf(at)}`;
  const name = spoken(row.relation) + (row.alone ? " (its only one)" : "");
  const weight = make("td", {}, row.weight.toFixed(4));
  const attributes = { "data-source": row.source, "data-target": row.target, "data-relation": row.relation };
  if (node !== null) {
    const when = frameOf(row.source) === frameOf(node) ? "" : `frame ${frameOf(row.source) + 1}: `;
    return make("tr", attributes, make("td", {}, when + place(row.source)), make("td", {}, name), weight);
  }
  const go = make("button", { type: "button", "aria-label": `Show frame ${frameOf(row.target) + 1}, ${placeOf(row.target)}` },
    `frame ${frameOf(row.target) + 1}: ${place(row.target)}`);
  go.addEventListener("click", () => {
    state.pinned = positionOf(row.target);
    goTo(frameOf(row.target));
    cells[state.pinned].focus();
  });
  const source = frameOf(row.source) === frameOf(row.target) ? place(row.source) : `frame ${frameOf(row.source) + 1}: ${place(row.source)}`;
  return make("tr", attributes, make("td", {}, go), make("td", {}, source), weight);
}

function drawPlayer() {
  $("scrub").value = state.frame;
  const told = `${state.frame + 1} / ${images.length}`;
  $("scrub").setAttribute("aria-valuetext", `frame ${state.frame + 1} of ${images.length}, ${seconds(state.frame)}`);
  $("clock").textContent = `${told} · ${seconds(state.frame)}`;
  $("play").setAttribute("aria-label", state.playing ? "Pause" : "Play");
  $("play").dataset.playing = String(state.playing);
  $("play").firstChild.firstChild.setAttribute("d", state.playing ? PAUSE : PLAY);
}

let saying = 0;
/** Tells a screen reader what is shown, once it has stayed for a moment. */
function say(node, shown) {
  clearTimeout(saying);
  if (state.playing) return;
  saying = setTimeout(() => {
    if (node === null) { $("said").textContent = ""; return; }
    const part = (rows) => rows.slice(0, 3).map((row) => {
      const when = frameOf(row.source) === frameOf(node) ? "" : `frame ${frameOf(row.source) + 1}, `;
      return `${when}${placeOf(row.source)}: ${row.weight.toFixed(4)}`;
    }).join("; ");
    const here = shown.rows.filter((row) => frameOf(row.source) === frameOf(node));
    const elsewhere = shown.rows.filter((row) => frameOf(row.source) !== frameOf(node));
    const sentences = [`Frame ${frameOf(node) + 1} of ${GRID.frames}, ${placeOf(node)}.`];
    if (here.length) sentences.push(`In its frame it listens most to ${part(here)}.`);
    if (elsewhere.length) sentences.push(`In time, to ${part(elsewhere)}.`);
    $("said").textContent = sentences.join(" ");
  }, 250);
}
