// What is built once, and what the hand does.

function buildPatches() {
  const grid = $("patches");
  $("stage").style.setProperty("--columns", GRID.width);
  grid.style.gridTemplateRows = `repeat(${GRID.height}, minmax(0, 1fr))`;
  for (let y = 0; y < GRID.height; y++) {
    const row = make("div", { role: "row", class: "row" });
    row.style.gridTemplateColumns = `repeat(${GRID.width}, minmax(0, 1fr))`;
    for (let x = 0; x < GRID.width; x++) {
      const position = y * GRID.width + x;
      const cell = make("div", { role: "gridcell", class: "patch", "data-position": position });
      cell.tabIndex = position ? -1 : 0;
      cells.push(cell);
      row.append(cell);
    }
    grid.append(row);
  }
  $("lines").setAttribute("viewBox", "0 0 100 100");
  const positionAt = (event) => {
    const cell = event.target.closest(".patch");
    return cell ? Number(cell.dataset.position) : null;
  };
  grid.addEventListener("pointerover", (event) => {
    if (event.pointerType !== "touch") { state.hovered = positionAt(event); draw(); }
  });
  grid.addEventListener("pointerleave", () => { state.hovered = null; draw(); });
  grid.addEventListener("click", (event) => keep(positionAt(event)));
  grid.addEventListener("focusin", (event) => {
    if (!event.target.matches(":focus-visible")) return;
    state.keyed = positionAt(event);
    draw();
  });
  grid.addEventListener("focusout", () => { state.keyed = null; draw(); });
  grid.addEventListener("keydown", onKey);
}

function keep(position) {
  state.pinned = state.pinned === position ? null : position;
  rove(position);
  draw();
}

/** Makes one patch the one that Tab reaches. */
function rove(position) {
  cells.forEach((cell, i) => { cell.tabIndex = i === position ? 0 : -1; });
}

function onKey(event) {
  const position = Number(event.target.dataset.position);
  const [row, column] = [Math.floor(position / GRID.width), position % GRID.width];
  const clamp = (value, size) => Math.min(Math.max(value, 0), size - 1);
  const moves = {
    ArrowLeft: [row, clamp(column - 1, GRID.width)], ArrowRight: [row, clamp(column + 1, GRID.width)],
    ArrowUp: [clamp(row - 1, GRID.height), column], ArrowDown: [clamp(row + 1, GRID.height), column],
    Home: [row, 0], End: [row, GRID.width - 1],
  };
  const frames = { PageUp: -1, PageDown: 1 };
  if (event.key in moves) {
    const [y, x] = moves[event.key];
    rove(y * GRID.width + x);
    state.hovered = null;
    cells[y * GRID.width + x].focus();
    state.keyed = y * GRID.width + x;
    draw();
  } else if (event.key in frames) goTo(clamp(tokenFrame() + frames[event.key], GRID.frames));
  else if (event.key === "Enter" || event.key === " ") keep(position);
  else if (event.key === "Escape") { state.pinned = state.keyed = state.hovered = null; draw(); }
  else return;
  event.preventDefault();
}

/** Shows the middle one of the frames behind a frame of tokens. */
function goTo(t) {
  state.playing = false;
  state.frame = middleOf(t);
  draw();
}

function middleOf(t) {
  const behind = DATA.frames.token_frame.flatMap((found, frame) => (found === t ? [frame] : []));
  return behind[Math.floor(behind.length / 2)] ?? 0;
}

function buildStrip() {
  for (let t = 0; t < GRID.frames; t++) {
    const frame = middleOf(t);
    const canvas = make("canvas", { width: 144, height: 144 });
    const weight = make("span", { class: "weight" });
    const button = make("button", { type: "button", class: "thumb", "data-frame": t }, canvas,
      make("span", {}, make("small", {}, make("b", {}, `t = ${t}`), " ", make("b", {}, seconds(frame))), weight));
    button.addEventListener("click", () => goTo(t));
    $("strip").append(button);
    thumbs.push({ frame, canvas, weight, button });
  }
}

function buildChoices() {
  const fill = (id, options, chosen) => {
    $(id).replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
    $(id).value = String(chosen);
  };
  for (const label of document.querySelectorAll(".of-graph")) label.hidden = !layers.length;
  if (layers.length) {
    const relations = Object.keys(layers[0]);
    const heads = Math.max(...layers.flatMap((layer) => Object.values(layer).map((r) => r.heads)));
    fill("layer", layers.map((_, i) => [i, String(i)]), state.layer);
    fill("head", [[-1, "Mean"], ...Array.from({ length: heads }, (_, i) => [i, String(i)])], state.head);
    fill("relation", [["", "All"], ...relations.map((name) => [name, displayName(name)])], state.relation);
  }
  const choose = (id, read) => $(id).addEventListener("change", () => { state[id] = read($(id).value); draw(); });
  choose("layer", Number);
  choose("head", Number);
  choose("relation", String);
  choose("heat", String);
  const showNumbers = () => $("stage").classList.toggle("numbers", $("numbers").checked);
  $("numbers").addEventListener("change", showNumbers);
  showNumbers(); // a browser may remember the box from before
}

function buildPlayer() {
  $("play").append(make("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, make("path", {})));
  $("scrub").max = images.length - 1;
  $("scrub").addEventListener("input", () => {
    state.playing = false;
    state.frame = Number($("scrub").value);
    draw();
  });
  $("play").addEventListener("click", () => {
    state.playing = !state.playing;
    draw();
    if (state.playing) play();
  });
}

/** Frame after frame, at the speed of the clip. */
function play() {
  let last = null; // a frame's time may lie before the click's
  let due = 0;
  const step = (now) => {
    if (!state.playing) return;
    due += ((now - (last ?? now)) / 1000) * DATA.rate * Number($("speed").value);
    last = now;
    const whole = Math.floor(due);
    if (whole) {
      due -= whole;
      state.frame = (state.frame + whole) % images.length;
      draw();
    }
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
}

async function start() {
  const load = async (source) => {
    const image = new Image();
    image.src = source;
    await image.decode();
    return image;
  };
  [layers, images] = await Promise.all([readLayers(), Promise.all(DATA.pictures.map(load))]);
  Object.assign(state, DATA.choice);
  if (!DATA.rollout) {
    state.heat = "saliency";
    $("heat").querySelector("[value=rollout]").remove();
  }
  buildPatches();
  buildStrip();
  buildChoices();
  buildPlayer();
  buildClasses();
  buildFlow();
  buildCurves();
  buildSmoothing();
  $("evidence").hidden = !layers.length;
  const share = (heat) => heat.flat().reduce((sum, value) => sum + Math.abs(value), 0);
  const shares = (DATA.rollout ?? DATA.saliency).map(share);
  state.frame = middleOf(shares.indexOf(Math.max(...shares)));
  draw();
  document.body.dataset.ready = "true";
}

start().catch((error) => {
  $("incoming-title").textContent = "This page could not be shown";
  $("incoming-note").textContent = String(error);
  throw error;
});
