/**
 * What the visitor is looking at: one plain object, checked once, compared as text. Python reads and writes the same
 * keys, so a link reproduces the view.
 */

/**
 * @typedef {{q0: number, q1: number, k0: number, k1: number}} Region Half-open ranges of token positions.
 * @typedef {{kind: "head", layer: number, head: number} | {kind: "sequence", sequence: number}
 *   | {kind: "capture", capture: string}} Comparison
 * @typedef {{layer: number, head: number, sequence: number, reading: string, scale: string, pooling: string,
 *   region: Region | null, pinned: number | null, direction: string, merged: boolean, hide_special: boolean,
 *   sort: {key: string, descending: boolean} | null, filter: {key: string, op: string, value: number} | null,
 *   compare: Comparison | null}} View
 */

/** @type {View} */
export const INITIAL = Object.freeze({
  layer: 0,
  head: 0,
  sequence: 0,
  reading: "weight",
  scale: "log",
  pooling: "max",
  region: null,
  pinned: null,
  direction: "pays",
  merged: false,
  hide_special: false,
  sort: null,
  filter: null,
  compare: null,
});

const CHOICES = {
  reading: ["weight", "value_weighted", "score"],
  scale: ["log", "linear", "row"],
  pooling: ["max", "mean", "sum"],
  direction: ["pays", "receives"],
};

const whole = (value, low, high) =>
  Number.isInteger(value) ? Math.min(Math.max(value, low), Math.max(low, high)) : null;

/** The model's own number of the layer at a place of the capture, which may hold only some. */
export function layerName(summary, place) {
  return summary.layers[place]?.index ?? place;
}

/** The lengths [queries, keys] of a sequence of a capture. */
export function lengths(summary, sequence, layer = 0) {
  const { tokens: own, keys } = summary.sequences[sequence];
  const tokens = own.length;
  const shape = summary.layers[layer];
  if (keys) return [tokens, keys.tokens.length];
  if (summary.sequences.length > 1) return [tokens, tokens];
  return [shape.query_length ?? tokens, shape.key_length ?? tokens];
}

/**
 * A view that this capture can show: unknown values fall back to the initial ones, numbers are brought into range.
 * @param {object | null} wanted @param {object} summary @returns {View}
 */
export function checked(wanted, summary) {
  const view = { ...INITIAL, ...(wanted ?? {}) };
  for (const [key, allowed] of Object.entries(CHOICES)) {
    if (!allowed.includes(view[key])) view[key] = INITIAL[key];
  }
  view.layer = whole(view.layer, 0, summary.layers.length - 1) ?? 0;
  view.head = whole(view.head, 0, summary.layers[view.layer].heads - 1) ?? 0;
  view.sequence = whole(view.sequence, 0, summary.sequences.length - 1) ?? 0;
  const [queries, keys] = lengths(summary, view.sequence, view.layer);
  view.region = inside(view.region, queries, keys);
  view.pinned = whole(view.pinned, 0, Math.max(queries, keys) - 1);
  if (view.reading === "score" && view.scale === "log") view.scale = "linear";
  view.compare = comparable(view.compare, summary);
  return view;
}

/** A region brought inside the map, or null for the whole map. @returns {Region | null} */
export function inside(region, queries, keys) {
  if (!region) return null;
  const { q0, q1, k0, k1 } = region;
  if (![q0, q1, k0, k1].every(Number.isFinite)) return null;
  const span = (low, high, length) => {
    const start = Math.min(Math.max(0, Math.floor(low)), length - 1);
    return [start, Math.min(Math.max(start + 1, Math.ceil(high)), length)];
  };
  const [a, b] = span(q0, q1, queries);
  const [c, d] = span(k0, k1, keys);
  if (a === 0 && b === queries && c === 0 && d === keys) return null;
  return { q0: a, q1: b, k0: c, k1: d };
}

/** The region as numbers, the whole map when it is null. @returns {Region} */
export function regionOf(view, queries, keys) {
  return view.region ?? { q0: 0, q1: queries, k0: 0, k1: keys };
}

function comparable(compare, summary) {
  if (!compare) return null;
  if (compare.kind === "head") {
    const layer = whole(compare.layer, 0, summary.layers.length - 1) ?? 0;
    return { kind: "head", layer, head: whole(compare.head, 0, summary.layers[layer].heads - 1) ?? 0 };
  }
  if (compare.kind === "sequence" && summary.sequences[compare.sequence]) {
    return { kind: "sequence", sequence: compare.sequence };
  }
  if (compare.kind === "capture" && typeof compare.capture === "string") {
    return { kind: "capture", capture: compare.capture };
  }
  return null;
}

/** One text for one view, whatever the order of its keys. */
export function canonical(value) {
  if (value === null || typeof value !== "object") return JSON.stringify(value ?? null);
  const body = Object.keys(value)
    .sort()
    .map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`);
  return `{${body.join(",")}}`;
}
