// What is shown: state, and one function that draws each part from it.

const LISTED = 8; // rows of the table
const LINES = 5; // sources that lines are drawn from
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const STOPS = [[76, 16, 110], [188, 55, 84], [249, 142, 9], [255, 220, 90]]; // inferno's, but for its ends
const COLOURS = ["#e8772e", "#2f7fd6", "#2a9d76", "#b765c4", "#c99a1f", "#5aa9c9"];
const PLAY = "M3 1.5v13l11-6.5z";
const PAUSE = "M3 1.5h3.5v13H3zM9.5 1.5H13v13H9.5z";

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
const tokenLabel = (node) => `(${frameOf(node)}, ${rowOf(node)}, ${columnOf(node)})`;
const positionLabel = (node) => `y ${rowOf(node)}, x ${columnOf(node)}`;
const seconds = (frame) => `${(DATA.frames.seconds[frame] ?? 0).toFixed(2)} s`;

/** The node whose neighbours are shown, if one is. */
function activeNode() {
  const position = activePosition();
  return position === null || !layers.length ? null : tokenFrame() * POSITIONS + position;
}

/** The weights to draw: of each source node, and what they span in its frame and in the others. */
function drawnWeights(node) {
  const rows = incomingEdges(layers[state.layer], node, state.head, state.relation);
  const sums = new Map();
  for (const row of rows) sums.set(row.source, (sums.get(row.source) ?? 0) + row.weight);
  const parts = { here: [], elsewhere: [] };
  for (const [source, weight] of sums) {
    parts[frameOf(source) === frameOf(node) ? "here" : "elsewhere"].push(weight);
  }
  return { rows, sums, here: range(parts.here), elsewhere: range(parts.elsewhere) };
}

/** What the colours span: from the least weight, or from half of the largest where none is less. */
function range(weights) {
  const isSigned = weights.some((weight) => weight < 0);
  const top = Math.max(0, ...weights.map(Math.abs));
  const low = isSigned ? 0 : Math.min(top / 2, ...weights);
  const share = (weight) => (isSigned ? weight / (top || 1) : (weight - low) / (top - low || 1));
  return { isSigned, top, low: isSigned ? -top : low, share };
}

// Colours

function heatColour(share, isSigned) {
  const strength = Math.min(Math.abs(share), 1);
  if (isSigned) {
    const [r, g, b] = share < 0 ? [56, 132, 255] : [240, 74, 40];
    return `rgb(${r} ${g} ${b} / ${(0.85 * strength).toFixed(3)})`;
  }
  const stop = strength * (STOPS.length - 1);
  const low = Math.min(Math.floor(stop), STOPS.length - 2);
  const [r, g, b] = STOPS[low].map((v, i) => Math.round(v + (STOPS[low + 1][i] - v) * (stop - low)));
  return `rgb(${r} ${g} ${b} / ${(0.03 + 0.67 * strength ** 1.2).toFixed(3)})`;
}

/** The heat of a clip at rest, as shares of its range. */
function restingHeat() {
  const values = DATA[state.heat];
  if (!values) return null;
  const all = values.flat(2).map((v) => v ?? 0);
  if (state.heat === "saliency") {
    const top = Math.max(...all.map(Math.abs)) || 1;
    return { isSigned: true, low: -top, top, of: (node) => valueAt(values, node) / top };
  }
  const low = Math.min(...all);
  const top = Math.max(...all);
  return { isSigned: false, low, top, of: (node) => (valueAt(values, node) - low) / (top - low || 1) };
}

// Parts of the page

function draw() {
  const node = activeNode();
  const shown = node === null ? null : drawnWeights(node);
  drawPicture();
  drawPatches(node, shown);
  drawLegend(shown);
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
    if (weight !== undefined) colour = heatColour(shown.here.share(weight), weight < 0);
    else if (!shown && rest) colour = heatColour(rest.of(here), rest.isSigned);
    cell.style.backgroundColor = colour;
    cell.classList.toggle("active", isActive);
    cell.classList.toggle("pinned", state.pinned === position);
    cell.setAttribute("aria-selected", String(state.pinned === position));
    const text = weight === undefined ? "" : weight.toFixed(4);
    if (cell.textContent !== text) cell.textContent = text;
    cell.dataset.weight = text;
    const weightLabel = text && node !== null ? `, weight ${text}` : "";
    cell.setAttribute("aria-label", `${positionLabel(here)}${weightLabel}`);
  });
}

/** What the colours mean. */
function drawLegend(shown) {
  const rest = restingHeat();
  const span = shown ? shown.here : rest;
  const isSome = shown ? [...shown.sums.keys()].some((at) => frameOf(at) === tokenFrame()) : rest !== null;
  $("legend").style.visibility = isSome ? "visible" : "hidden";
  if (!isSome) return;
  const ofRest = { rollout: (value) => `${(value * NODES).toFixed(1)}×`, saliency: (value) => value.toPrecision(2) };
  const text = shown ? (value) => value.toFixed(4) : ofRest[state.heat];
  const units = { rollout: "times the uniform weight", saliency: `for ${displayName(DATA.target)}` };
  const what = shown ? "weight in its frame" : units[state.heat];
  $("legend-low").textContent = text(span.low);
  $("legend-high").textContent = `${text(span.top)} ${what}`;
  const steps = Array.from({ length: 9 }, (_, i) => (span.isSigned ? i / 4 - 1 : i / 8));
  const colours = steps.map((share) => heatColour(share, span.isSigned));
  $("ramp").style.backgroundImage = `linear-gradient(90deg, ${colours.join(",")})`;
}

function drawLines(node, shown) {
  const lines = $("lines");
  lines.replaceChildren();
  if (node === null) return;
  const centre = (at) => [(columnOf(at) + 0.5) * (100 / GRID.width), (rowOf(at) + 0.5) * (100 / GRID.height)];
  const near = shown.rows.filter((row) => frameOf(row.source) === frameOf(node) && row.source !== node);
  const [x, y] = centre(node);
  for (const row of near.slice(0, LINES).reverse()) {
    const strength = Math.abs(row.weight) / (shown.here.top || 1);
    const [fromX, fromY] = centre(row.source);
    const bend = 0.14;
    const [overX, overY] = [(fromX + x) / 2 + (y - fromY) * bend, (fromY + y) / 2 - (x - fromX) * bend];
    const path = `M${fromX} ${fromY}Q${overX} ${overY} ${x} ${y}`;
    const width = 1 + 2.5 * strength; // pixels
    const attributes = { "data-source": row.source, "data-weight": row.weight.toFixed(4) };
    lines.append(
      make("path", { class: "halo", d: path, "stroke-width": width + 2 }),
      make("path", { class: "line", d: path, "stroke-width": width, ...attributes }),
      make("circle", { class: "dot", cx: fromX, cy: fromY, r: 0.5 + 0.6 * strength }),
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
        colour = heatColour((own ? shown.here : shown.elsewhere).share(weight), weight < 0);
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
    const isSaliency = state.heat === "saliency" && !shown;
    const text = total === null ? "–" : isSaliency ? total.toPrecision(2) : total.toFixed(4);
    thumb.weight.textContent = text;
    thumb.button.dataset.weight = total === null ? "" : text;
    thumb.button.setAttribute("aria-current", String(t === tokenFrame()));
    const weight = total === null ? "no weight" : text;
    thumb.button.setAttribute("aria-label", `Go to t = ${t}, ${seconds(thumb.frame)}; ${weight}`);
  });
  const what = { rollout: "the rollout", saliency: "the saliency", none: "" }[state.heat];
  $("strip-note").textContent = shown
    ? "Under each frame, the sum of the weights of the patch's edges from it."
    : what ? `Under each token frame, the sum of ${what}.` : "The token frames.";
}

function drawPlayer() {
  $("scrub").value = state.frame;
  const frameNumber = `${state.frame + 1} / ${images.length}`;
  $("scrub").setAttribute("aria-valuetext", `frame ${state.frame + 1} of ${images.length}, ${seconds(state.frame)}`);
  $("clock").textContent = `${frameNumber} · ${seconds(state.frame)}`;
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
      const when = frameOf(row.source) === frameOf(node) ? "" : `t ${frameOf(row.source)}, `;
      return `${when}${positionLabel(row.source)}: ${row.weight.toFixed(4)}`;
    }).join("; ");
    const here = shown.rows.filter((row) => frameOf(row.source) === frameOf(node));
    const elsewhere = shown.rows.filter((row) => frameOf(row.source) !== frameOf(node));
    const sentences = [`Patch t ${frameOf(node)}, ${positionLabel(node)}.`];
    if (here.length) sentences.push(`Largest weights in its frame: ${part(here)}.`);
    if (elsewhere.length) sentences.push(`In time: ${part(elsewhere)}.`);
    $("said").textContent = sentences.join(" ");
  }, 250);
}
