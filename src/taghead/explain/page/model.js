"use strict";
// The numbers of attention.json, and what to ask them. Weights are whole millionths, as in the JSON.

const UNIT = 1e6;
const DATA = JSON.parse(document.getElementById("data").textContent);
const GRID = DATA.grid;
const POSITIONS = GRID.height * GRID.width;
const NODES = GRID.frames * POSITIONS;

/** Numbers that were written as planes of bytes, deflated, in base 64. */
async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const count = planes.length / 4;
  const numbers = new Int32Array(count);
  for (let i = 0; i < count; i++) {
    numbers[i] =
      planes[i] | (planes[count + i] << 8) | (planes[2 * count + i] << 16) | (planes[3 * count + i] << 24);
  }
  return numbers;
}

/** One relation in one layer, its edges sorted by target. */
async function readRelation(packed) {
  const [source, target, weights] = await Promise.all(
    [packed.source, packed.target, packed.weights].map(unpack));
  const loops = packed.self_loops ? await unpack(packed.self_loops) : null;
  const start = new Int32Array(NODES + 1);
  for (const node of target) start[node + 1]++;
  for (let i = 0; i < NODES; i++) start[i + 1] += start[i];
  const next = start.slice();
  const order = new Int32Array(target.length);
  target.forEach((node, edge) => { order[next[node]++] = edge; });
  return { ...packed, source, target, weights, loops, start, order, count: target.length };
}

async function readLayers() {
  return Promise.all(DATA.layers.map(async (layer) => {
    const names = Object.keys(layer.relations);
    const found = await Promise.all(names.map((name) => readRelation(layer.relations[name])));
    return Object.fromEntries(names.map((name, i) => [name, found[i]]));
  }));
}

/** The weight at an index of `[heads, count]` numbers: of one head, or the mean over heads. */
function weightAt(numbers, count, heads, head, index) {
  if (head >= 0) return numbers[Math.min(head, heads - 1) * count + index] / UNIT;
  let total = 0;
  for (let i = 0; i < heads; i++) total += numbers[i * count + index];
  return total / heads / UNIT;
}

/** How many others a target's softmax has, beside one edge. */
function rivals(layer, relation, node) {
  let total = relation.loops ? 1 : 0;
  for (const other of Object.values(layer)) {
    if (other.softmax === relation.softmax) total += other.start[node + 1] - other.start[node];
  }
  return total - 1;
}

/** So many rows of each relation, in the relations' order. */
function ofEach(rows, count) {
  const names = [...new Set(rows.map((row) => row.relation))];
  return names.flatMap((name) => rows.filter((row) => row.relation === name).slice(0, count));
}

/** What a token takes its messages from, the largest weight first. */
function incomingEdges(layer, node, head, only) {
  const rows = [];
  const looped = new Set();
  for (const [name, relation] of Object.entries(layer)) {
    if (only && name !== only) continue;
    const alone = rivals(layer, relation, node) === 0;
    for (let i = relation.start[node]; i < relation.start[node + 1]; i++) {
      const edge = relation.order[i];
      const weight = weightAt(relation.weights, relation.count, relation.heads, head, edge);
      rows.push({ relation: name, source: relation.source[edge], target: node, weight, alone });
    }
    if (relation.loops && !looped.has(relation.softmax)) {
      looped.add(relation.softmax);
      const weight = weightAt(relation.loops, NODES, relation.heads, head, node);
      rows.push({ relation: "self_loop", source: node, target: node, weight, alone: false });
    }
  }
  return rows.sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight));
}

/** The edges with the largest weights, of those that have rivals; so many of each relation. */
function strongest(layer, head, only, count) {
  const rows = [];
  for (const [name, relation] of Object.entries(layer)) {
    if (only && name !== only) continue;
    const best = [];
    for (let edge = 0; edge < relation.count; edge++) {
      const weight = weightAt(relation.weights, relation.count, relation.heads, head, edge);
      if (best.length === count && Math.abs(weight) <= Math.abs(best[count - 1].weight)) continue;
      const target = relation.target[edge];
      if (!rivals(layer, relation, target)) continue;
      best.push({ relation: name, source: relation.source[edge], target, weight });
      best.sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight));
      if (best.length > count) best.pop();
    }
    rows.push(...best);
  }
  return rows;
}

const frameOf = (node) => Math.floor(node / POSITIONS);
const positionOf = (node) => node % POSITIONS;
const rowOf = (node) => Math.floor(positionOf(node) / GRID.width);
const columnOf = (node) => positionOf(node) % GRID.width;
const valueAt = (values, node) =>
  values[frameOf(node)][rowOf(node)][columnOf(node)] ?? 0;
const displayName = (name) => name.replaceAll("_", " ");
