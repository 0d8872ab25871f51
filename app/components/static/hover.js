/** What the pointer is on: the pair of tokens, its exact weight and score, or the pool of pairs under it. */

import { debounce } from "./dom.js";
import { isAbort } from "./capture.js";
import { POOLED, count, label, number } from "./text.js";
import { layerName } from "./view.js";

const READING = { weight: "weight", value_weighted: "weight × |v|", score: "score before softmax" };
const ASK_AFTER = 30;

/** The cell of a tile that holds a pair, or null outside it. */
export function cellAt(tile, { query, key }) {
  if (query < tile.q0 || query >= tile.q1 || key < tile.k0 || key >= tile.k1) return null;
  const row = Math.floor(((query - tile.q0 + 0.5) * tile.rows) / (tile.q1 - tile.q0));
  const column = Math.floor(((key - tile.k0 + 0.5) * tile.cols) / (tile.k1 - tile.k0));
  const value = tile.values[row * tile.cols + column];
  const edge = (index, low, high, steps) => low + Math.floor((index * (high - low)) / steps);
  return {
    value,
    hidden: Number.isNaN(value),
    queries: [edge(row, tile.q0, tile.q1, tile.rows), edge(row + 1, tile.q0, tile.q1, tile.rows) - 1],
    keys: [edge(column, tile.k0, tile.k1, tile.cols), edge(column + 1, tile.k0, tile.k1, tile.cols) - 1],
  };
}

export class Hover {
  /** @param {{tip: import("./tip.js").Tip}} parts */
  constructor({ tip }) {
    this.tip = tip;
    this.ask = debounce((strips, again) => this.#ask(strips, again), ASK_AFTER);
  }

  leave() {
    this.now = null;
    this.ask.cancel();
    this.tip.hide();
  }

  /**
   * @param {MouseEvent} event @param {{query: number, key: number}} point
   * @param {{sides: {side: object, tile: object, name: string}[], extent: object, view: object}} what
   */
  show(event, point, what) {
    const at = { clientX: event.clientX, clientY: event.clientY };
    this.now = { point, at };
    const { tile } = what.sides[0];
    const cell = cellAt(tile, point);
    if (!cell) return this.tip.hide();
    if (!tile.exact) return this.#showPool(at, cell, what);
    return this.#showPair(at, point, cell, what);
  }

  #showPool(at, cell, { sides, view }) {
    const name = `${POOLED[view.pooling]} ${READING[view.reading]}`;
    const range = ([low, high]) => (low === high ? count(low) : `${count(low)}–${count(high)}`);
    const rows = [
      ["queries", range(cell.queries)],
      ["keys", range(cell.keys)],
    ];
    for (const { tile, name: which } of sides) {
      const own = cellAt(tile, this.now.point);
      const text = own?.hidden
        ? "hidden by the mask"
        : `${tile.encoding === "u8" ? "≈ " : ""}${number(own?.value ?? NaN)}`;
      rows.push([`${name}${which}`, text]);
    }
    this.tip.show(at, "Pooled cell", rows, "Zoom in for single pairs.");
  }

  #showPair(at, { query, key }, cell, what) {
    const { extent, sides, view } = what;
    const rows = [
      [`query ${count(query)}`, label(extent.queryTokens[query] ?? ""), true],
      [`key ${count(key)}`, label(extent.keyTokens[key] ?? ""), true],
    ];
    if (cell.hidden) {
      rows.push(["weight", "hidden by the mask"]);
      return this.tip.show(at, "Masked pair", rows);
    }
    const missing = [];
    const values = sides.map(({ side, tile, name }) => {
      const own = {};
      for (const reading of readingsFor(view.reading)) {
        own[reading] = this.#exact(side, tile, { query, key }, { reading, view }, missing);
        rows.push([`${READING[reading]}${name}`, own[reading] === null ? "…" : number(own[reading], 4)]);
      }
      return own[view.reading];
    });
    if (values.length === 2 && values[0] !== null && values[1] !== null) {
      rows.push(["B − A", number(values[1] - values[0], 4)]);
    }
    this.tip.show(at, sides.map(({ side }) => side.title).join(" and "), rows);
    if (missing.length) this.ask(missing, () => this.now && this.show(this.now.at, this.now.point, what));
    return undefined;
  }

  /** One exact number, or null while it is being asked for. */
  #exact(side, tile, { query, key }, { reading, view }, missing) {
    if (tile.encoding === "f32" && reading === tile.reading) return cellAt(tile, { query, key })?.value ?? null;
    const { head, sequence, capture } = side;
    const layer = layerName(side.summary, side.layer);
    const strip = { layer, head, sequence, q0: query, q1: query + 1, k0: tile.k0, k1: tile.k1 };
    const asked = {
      ...strip,
      rows: 1,
      cols: tile.k1 - tile.k0,
      reduce: "max",
      reading,
      encoding: "f32",
      effort: "first",
    };
    const known = capture.recall("map", asked);
    if (known) return known.values[key - tile.k0];
    missing.push({ capture, asked });
    return null;
  }

  async #ask(strips, again) {
    this.control?.abort();
    const control = new AbortController();
    this.control = control;
    try {
      await Promise.all(strips.map(({ capture, asked }) => capture.map(asked, control.signal)));
      again();
    } catch (error) {
      if (!isAbort(error)) this.tip.hide();
    }
  }
}

const readingsFor = (reading) =>
  reading === "value_weighted" ? ["weight", "value_weighted", "score"] : ["weight", "score"];
