// The side panel: classes, the table of edges, the flow by relation, deletion and insertion curves.

function drawTable(node, shown) {
  const position = activePosition();
  const title = $("incoming-title");
  const note = $("incoming-note");
  if (position !== null) {
    const here = tokenFrame() * POSITIONS + position;
    title.textContent = `Patch ${tokenLabel(here)}${layers.length ? " receives from" : ""}`;
    const counts = DATA.rollout && (valueAt(DATA.rollout, here) * NODES).toFixed(2);
    const has = counts ? `has ${counts} times the uniform weight (rollout) and ` : "";
    const adds = valueAt(DATA.saliency, here).toPrecision(2);
    const name = displayName(DATA.target);
    note.textContent = `It ${has}adds ${adds} to the logit of ${name} (saliency).`;
  } else {
    title.textContent = layers.length ? "The strongest edges" : "No graph";
    note.textContent = layers.length
      ? "Of all patches, by relation. Choose a patch to see its own."
      : "The model passes no messages: the heatmap shows its Transformer and readout alone.";
    if (!DATA.rollout) note.textContent += ` Without rollout: ${DATA.no_rollout}.`;
  }
  const rows = tableRows(node, shown);
  const ends = node !== null ? ["From (t, y, x)"] : ["To (t, y, x)", "From (t, y, x)"];
  const heads = [...ends, "Weight"].map((text) => make("th", { scope: "col" }, text));
  $("edges-head").replaceChildren(...heads);
  const groups = new Map();
  for (const row of rows) groups.set(row.relation, [...(groups.get(row.relation) ?? []), row]);
  const lines = [...groups.values()].flatMap((group) => {
    const top = Math.max(...group.map((row) => Math.abs(row.weight))) || 1;
    const width = ends.length + 1;
    return [groupRow(group[0], width), ...group.map((row) => tableRow(row, node, Math.abs(row.weight) / top))];
  });
  $("edges").replaceChildren(...lines);
  $("edges").parentElement.hidden = !rows.length;
}

const colourOf = (relation) =>
  COLOURS[[...Object.keys(layers[state.layer]), "self_loop"].indexOf(relation) % COLOURS.length];

function groupRow(row, width) {
  const swatch = make("i", { class: "swatch" });
  swatch.style.background = colourOf(row.relation);
  const name = make("th", { scope: "rowgroup", colspan: width }, swatch, displayName(row.relation));
  const aside = "its only neighbour, so always 1";
  if (row.alone) name.append(make("span", { class: "aside" }, aside));
  return make("tr", { class: "group" }, name);
}

function tableRows(node, shown) {
  if (!layers.length) return [];
  const names = Object.keys(layers[state.layer]);
  const each = state.relation ? LISTED : Math.max(2, Math.ceil(LISTED / names.length));
  if (node !== null) return ofEach(shown.rows, each);
  return strongest(layers[state.layer], state.head, state.relation, each);
}

function tableRow(row, node, strength) {
  const bar = make("span", { class: "bar" });
  bar.style.width = percent(strength);
  bar.style.background = colourOf(row.relation);
  const weight = make("td", {}, make("div", { class: "weighed" },
    make("span", { class: "track" }, bar), make("span", { class: "value" }, row.weight.toFixed(4))));
  const attributes = { "data-source": row.source, "data-target": row.target, "data-relation": row.relation };
  if (node !== null) return make("tr", attributes, make("td", {}, tokenLabel(row.source)), weight);
  const named = { type: "button", "aria-label": `Show patch ${tokenLabel(row.target)}` };
  const go = make("button", named, tokenLabel(row.target));
  go.addEventListener("click", () => {
    state.pinned = positionOf(row.target);
    goTo(frameOf(row.target));
    rove(state.pinned);
    cells[state.pinned].focus();
  });
  return make("tr", attributes, make("td", {}, go), make("td", {}, tokenLabel(row.source)), weight);
}

function buildClasses() {
  const best = DATA.classes.slice(0, 5);
  const target = DATA.classes.find((one) => one.class === DATA.target);
  if (!best.includes(target)) best.push(target);
  $("classes").replaceChildren(...best.map((one) => {
    const name = make("span", { class: one === target ? "name target" : "name" }, displayName(one.class));
    if (one === target && best[0] !== target) name.append(" (explained)");
    const fill = make("div", { class: "fill" });
    fill.style.width = percent(one.probability);
    const number = make("span", { class: "number" }, percent(one.probability));
    return make("li", {}, name, number, make("div", { class: "track" }, fill));
  }));
}

function buildFlow() {
  const parts = DATA.layers.map((_, i) => DATA.flow.filter((row) => row.layer === i));
  for (const [i, rows] of parts.entries()) {
    const where = parts.length > 1 ? ` in layer ${i}` : "";
    const bar = make("div", { class: "shares", "aria-hidden": "true" });
    const legend = make("div", { class: "legend" });
    rows.forEach((row, index) => {
      const [part, swatch] = [make("div"), make("i")];
      part.style.width = percent(row.share);
      part.style.background = swatch.style.background = COLOURS[index % COLOURS.length];
      bar.append(part);
      legend.append(make("span", {}, swatch, `${displayName(row.relation)} ${percent(row.share)}`));
    });
    $("flow").append(make("p", { class: "note" }, `The share of each relation in the messages${where}`), bar, legend);
  }
}

/** Deletion and insertion curves: the target's probability by attention's order and random ones. */
function buildCurves() {
  if (!DATA.curves) return;
  const pair = make("div", { class: "pair" });
  const names = { deletion: "Left out", insertion: "Put in" };
  const isBetter = [];
  for (const [curve, name] of Object.entries(names)) {
    const area = DATA.areas.find((row) => row.curve === curve);
    isBetter.push(curve === "deletion" ? area.ranked < area.low : area.ranked > area.high);
    const [ranked, random, low, high] = ["ranked", "random", "low", "high"].map((key) => area[key].toFixed(3));
    const numbers = `area ${ranked}; in random order ${random} (${low} to ${high})`;
    pair.append(make("figure", {}, chart(curve, `${name}, the strongest edges first: ${numbers}`),
      make("figcaption", {}, make("strong", {}, name), ` ${numbers}`)));
  }
  const about = `Probability of ${displayName(DATA.target)} as edges are left out or put in, first those with the largest weight relative to uniform.`;
  $("curves").append(make("p", { class: "note" }, `${about} ${verdictOf(isBetter)}`), pair);
}

/** Over-smoothing: a row for each stage; and what each relation adds to each layer. */
function buildSmoothing() {
  const { tokens, edges, added } = DATA.smoothing;
  const energyOf = (stage) => edges.find((row) => row.stage === stage && row.relation === "union")?.dirichlet_energy;
  const number = (value) => (value === null || value === undefined ? "–" : Number(value.toPrecision(3)).toString());
  const stages = tokens.map((row) => [displayName(row.stage),
    ...[energyOf(row.stage), row.mean_cosine_distance, row.effective_rank].map(number)]);
  const parts = added.map((row) => [`${displayName(row.relation)}, layer ${row.layer}`,
    ...[row.relative_norm, row.cosine, row.logit_change].map(number)]);
  $("smoothing").append(
    make("p", { class: "note" }, "Over-smoothing: the smaller these get, the more alike are the tokens"),
    numbersTable(["After", "Energy", "Distance", "Rank"], stages),
    make("p", { class: "note" }, "What each relation adds, relative to the layer's input; and the change of the logits without it"),
    numbersTable(["Relation", "Norm", "Cosine", "Change"], parts));
}

function numbersTable(heads, rows) {
  return make("table", { class: "edges" },
    make("thead", {}, make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((text) => make("td", {}, text))))));
}

function verdictOf([deletion, insertion]) {
  const known = "this order does better than 95% of random orders with as many edges of each relation";
  if (deletion && insertion) return `In both, ${known}.`;
  if (deletion || insertion) {
    return `When edges are ${deletion ? "left out" : "put in"}, ${known}; in the other case it does not.`;
  }
  return "In neither does this order do better than 95% of random orders: for this clip, the weights do not tell which edges matter.";
}

function chart(curve, label) {
  const rows = DATA.curves.filter((row) => row.curve === curve);
  const clamp = (value) => Math.min(Math.max(value, 0), 1);
  const at = (name) => rows.map((row) => [18 + 168 * row.fraction, 6 + 84 * (1 - clamp(row[name]))]);
  const line = (points) => points.map((point) => point.map((v) => v.toFixed(1)).join(",")).join(" ");
  return make("svg", { class: "chart", viewBox: "0 0 190 104", role: "img", "aria-label": label },
    ...[6, 48, 90].map((y) => make("line", { class: "axis", x1: 18, x2: 186, y1: y, y2: y })),
    make("text", { x: 13, y: 9.5, "text-anchor": "end" }, "1"),
    make("text", { x: 13, y: 93, "text-anchor": "end" }, "0"),
    make("text", { x: 18, y: 102 }, "no edge"),
    make("text", { x: 186, y: 102, "text-anchor": "end" }, "all edges"),
    make("polygon", { class: "band", points: line([...at("low"), ...at("high").reverse()]) }),
    make("polyline", { class: "random", points: line(at("random")) }),
    make("polyline", { class: "ranked", points: line(at("ranked")) }));
}

