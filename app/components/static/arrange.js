/** Which heads are shown, in which order, and where each lies on the overview. Pure: numbers in, numbers out. */

/**
 * @typedef {{layer: number, head: number, kv: number}} Head
 * @typedef {{head: Head, x: number, y: number, faded: boolean}} Place
 * @typedef {{cell: number, places: Place[], width: number, height: number, captions: boolean,
 *   columns: number, left: number, top: number}} Arrangement
 */

export const CAPTION = 13;
const GAP = 3;
const GROUP_GAP = 7;

/** Every head of a capture, layer by layer. @returns {Head[]} */
export function headsOf(summary) {
  return summary.layers.flatMap((layer, index) =>
    Array.from({ length: layer.heads }, (_, head) => ({
      layer: index,
      head,
      kv: Math.floor(head / Math.max(1, layer.heads / (layer.kv_heads || layer.heads))),
    })),
  );
}

/** The value of a diagnostic for a head, NaN where it has none. */
export function valueOf(diagnostics, key, { layer, head }) {
  const value = diagnostics?.values?.[key]?.[layer]?.[head];
  return typeof value === "number" ? value : NaN;
}

/** Whether a head passes the filter. */
export function passes(head, filter, diagnostics) {
  if (!filter) return true;
  const value = valueOf(diagnostics, filter.key, head);
  return filter.op === "<=" ? value <= filter.value : value >= filter.value;
}

/** Heads from the highest value (or lowest) on; those without one come last. */
export function sorted(heads, sort, diagnostics) {
  const sign = sort.descending ? -1 : 1;
  const keyed = heads.map((head) => [valueOf(diagnostics, sort.key, head), head]);
  keyed.sort(([a], [b]) => Number.isNaN(a) - Number.isNaN(b) || sign * (a - b));
  return keyed.map(([, head]) => head);
}

/** The rank of one head among all, 1 the highest, or null. */
export function rankOf(head, key, heads, diagnostics) {
  const own = valueOf(diagnostics, key, head);
  if (Number.isNaN(own)) return null;
  return 1 + heads.filter((other) => valueOf(diagnostics, key, other) > own).length;
}

/** Diagnostics that make a head worth opening first, and from which value on. */
const TELLING = [["induction", 0.2], ["duplicate_token", 0.2], ["previous_token", 0.5], ["sink_mass", 0.5]];

/** The head that says most of a prompt: the strongest of the first kind that there is. @returns {Head} */
export function mostTelling(heads, diagnostics) {
  for (const [key, least] of TELLING) {
    const [first] = sorted(heads, { key, descending: true }, diagnostics);
    if (valueOf(diagnostics, key, first) >= least) return first;
  }
  return heads[0];
}

/** The lowest and highest value of a diagnostic. */
export function rangeOf(key, heads, diagnostics) {
  const values = heads.map((head) => valueOf(diagnostics, key, head)).filter((value) => !Number.isNaN(value));
  return values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
}

/**
 * Places for the heads in a width.
 * @param {{heads: Head[], width: number, view: {sort: object | null, filter: object | null}, diagnostics: object}} what
 * @returns {Arrangement}
 */
export function arrange({ heads, width, view, diagnostics }) {
  if (view.sort && diagnostics) return inOrder({ heads, width, view, diagnostics });
  const columns = 1 + Math.max(...heads.map(({ head }) => head));
  const groups = Math.max(...heads.map(({ kv }) => kv)) + 1;
  const grouped = groups > 1 && groups < columns;
  const left = 20;
  const top = grouped ? 28 : 15;
  const spare = (grouped ? (groups - 1) * GROUP_GAP : 0) + columns * GAP;
  const cell = Math.max(6, Math.min(56, Math.floor((width - left - spare) / columns)));
  const places = heads.map((head) => ({
    head,
    x: left + head.head * (cell + GAP) + (grouped ? head.kv * GROUP_GAP : 0),
    y: top + head.layer * (cell + GAP),
    faded: !passes(head, view.filter, diagnostics),
  }));
  const layers = 1 + Math.max(...heads.map(({ layer }) => layer));
  const right = Math.max(...places.map(({ x }) => x)) + cell;
  return {
    cell,
    places,
    width: right + 2,
    height: top + layers * (cell + GAP) + 1,
    captions: false,
    columns,
    left,
    top,
  };
}

function inOrder({ heads, width, view, diagnostics }) {
  const shown = sorted(
    heads.filter((head) => passes(head, view.filter, diagnostics)),
    view.sort,
    diagnostics,
  );
  const most = 1 + Math.max(...heads.map(({ head }) => head));
  const cell = Math.max(32, Math.min(48, Math.floor(width / most) - GAP));
  const columns = Math.max(1, Math.floor((width - 2) / (cell + GAP)));
  const places = shown.map((head, index) => ({
    head,
    x: 2 + (index % columns) * (cell + GAP),
    y: 2 + Math.floor(index / columns) * (cell + GAP + CAPTION),
    faded: false,
  }));
  const rows = Math.ceil(shown.length / columns);
  return { cell, places, width, height: 4 + rows * (cell + GAP + CAPTION), captions: true, columns, left: 0, top: 0 };
}

/** The head under a point, or null. @returns {Place | null} */
export function placeAt(arrangement, x, y) {
  const { cell, places } = arrangement;
  return places.find((place) => x >= place.x && x < place.x + cell && y >= place.y && y < place.y + cell) ?? null;
}

/** The head an arrow key leads to. @returns {Head | null} */
export function neighbour(arrangement, { layer, head }, key) {
  const open = arrangement.places.filter(({ faded }) => !faded);
  const from = arrangement.places.find((place) => place.head.layer === layer && place.head.head === head);
  if (!from) return open[0]?.head ?? null;
  if (arrangement.captions) {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -arrangement.columns, ArrowDown: arrangement.columns }[key];
    return open[open.indexOf(from) + step]?.head ?? null;
  }
  const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
  const ahead = open.filter(({ x, y }) =>
    dx ? y === from.y && Math.sign(x - from.x) === dx : Math.sign(y - from.y) === dy && x === from.x,
  );
  const distance = ({ x, y }) => Math.abs(x - from.x) + Math.abs(y - from.y);
  return ahead.sort((a, b) => distance(a) - distance(b))[0]?.head ?? null;
}
