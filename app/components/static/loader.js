/** Fetches the rectangle a map shows: one at a time, the newest wins; first quickly, then exactly. */

import { isAbort } from "./capture.js";

const EXACT_CELLS = 65_536;
const SETTLED = 350;

/** @typedef {import("./view.js").Region} Region */

/**
 * How to ask for a region: a cell a token where there is room, otherwise pooled; exact floats while they are light.
 * @param {Region} region @param {[number, number]} resolution Columns and rows worth drawing.
 * @param {{layer: number, head: number, sequence: number, reading: string, pooling: string, floats?: boolean}} what
 */
export function request(region, [columns, rows], { layer, head, sequence, reading, pooling, floats = false }) {
  const high = region.q1 - region.q0;
  const wide = region.k1 - region.k0;
  const size = { rows: Math.min(high, rows), cols: Math.min(wide, columns) };
  const single = size.rows === high && size.cols === wide;
  const encoding = floats || (single && high * wide <= EXACT_CELLS) ? "f32" : "u8";
  const reduce = single ? "max" : pooling; // a single pair is its own largest: one address for one answer
  return { layer, head, sequence, ...region, ...size, reduce, reading, encoding, effort: "first" };
}

export class Loader {
  /** @param {{ontile: (tile: object) => void, onstate: (state: object) => void}} handlers */
  constructor({ ontile, onstate }) {
    this.ontile = ontile;
    this.onstate = onstate;
  }

  /** @param {import("./capture.js").Capture} capture @param {object} parameters From `request`. */
  async load(capture, parameters) {
    this.stop();
    const control = new AbortController();
    this.control = control;
    this.onstate({ kind: "loading" });
    try {
      const tile = await capture.map(parameters, control.signal);
      if (control.signal.aborted) return;
      this.ontile(tile);
      if (tile.sampled === null || tile.sampled === undefined) return this.onstate({ kind: "ready", tile });
      this.onstate({ kind: "refining", sampled: tile.sampled, of: tile.q1 - tile.q0 });
      await pause(SETTLED, control.signal);
      const exact = await capture.map({ ...parameters, effort: "exact" }, control.signal);
      if (control.signal.aborted) return;
      this.ontile(exact);
      this.onstate({ kind: "ready", tile: exact });
    } catch (error) {
      if (isAbort(error) || control.signal.aborted) return;
      this.onstate({ kind: "failed", error });
    }
  }

  stop() {
    this.control?.abort();
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    });
  });
}
