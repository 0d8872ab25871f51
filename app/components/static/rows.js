/** What one token pays or receives, from what is already here where possible, by one small request where not. */

const WHOLE = 8192;
const MATRIX = 512;
const FLOATS = 256;
const STRIP = 512;

const AFTER_THE_MAP = 150; // ms: the map asks for the same numbers, and its answer is remembered

/**
 * @typedef {{values: Float32Array, start: number}} Attention Weights from token `start` on; NaN where hidden.
 * @typedef {{capture: object, layer: number, head: number, sequence: number, queries: number, keys: number,
 *   reading: string}} Source
 */

export class HeadRows {
  /** @param {Source} source */
  constructor(source) {
    this.source = source;
    this.matrix = null;
  }

  /** Fetches the whole head when it is small, so that every later hover is instant. */
  async prefetch(signal) {
    const { capture, layer, head, sequence, queries, keys, reading } = this.source;
    if (Math.max(queries, keys) > MATRIX) return;
    await new Promise((resolve) => setTimeout(resolve, AFTER_THE_MAP));
    if (signal.aborted) return;
    const encoding = Math.max(queries, keys) <= FLOATS ? "f32" : "u8";
    const region = { q0: 0, q1: queries, k0: 0, k1: keys, rows: queries, cols: keys };
    const asked = { layer, head, sequence, ...region, reduce: "max", reading, encoding, effort: "first" };
    this.matrix = (await capture.map(asked, signal)).values;
    this.rounded = encoding === "u8";
  }

  /** How many tokens a direction spreads over. */
  length(direction) {
    return direction === "pays" ? this.source.keys : this.source.queries;
  }

  /** How many tokens can be asked about. */
  askable(direction) {
    return direction === "pays" ? this.source.queries : this.source.keys;
  }

  /**
   * The attention of one token, at once or null; `rounded` when its numbers are good for a shade, not for reading.
   * @returns {(Attention & {rounded: boolean}) | null}
   */
  atOnce(index, direction) {
    const known = this.source.capture.recall(direction === "pays" ? "row" : "column", this.#asked(index, direction));
    if (known) return { values: known.values, start: 0, rounded: false };
    return this.matrix ? { values: this.#slice(index, direction), start: 0, rounded: this.rounded } : null;
  }

  /**
   * The attention of one token; of a very long text only a window of it, unless all of it is wanted.
   * @param {{window: [number, number], all: boolean}} how @returns {Promise<Attention>}
   */
  async get(index, direction, { window, all, signal }) {
    const here = this.atOnce(index, direction);
    if (here && !here.rounded) return here;
    const { capture } = this.source;
    if (all || this.length(direction) <= WHOLE) {
      const asked = this.#asked(index, direction);
      const values = direction === "pays" ? await capture.row(asked, signal) : await capture.column(asked, signal);
      return { values, start: 0 };
    }
    return this.#strips(index, direction, window, signal);
  }

  #asked(index, direction) {
    const { layer, head, sequence, reading } = this.source;
    return { layer, head, sequence, [direction === "pays" ? "query" : "key"]: index, reading };
  }

  #slice(index, direction) {
    const { queries, keys } = this.source;
    if (direction === "pays") return this.matrix.subarray(index * keys, (index + 1) * keys);
    return Float32Array.from({ length: queries }, (_, query) => this.matrix[query * keys + index]);
  }

  async #strips(index, direction, [from, to], signal) {
    const { capture, layer, head, sequence, reading } = this.source;
    const starts = [];
    for (let start = from; start < to; start += STRIP) starts.push(start);
    const parts = await Promise.all(
      starts.map((start) => {
        const end = Math.min(to, start + STRIP);
        const along =
          direction === "pays"
            ? { q0: index, q1: index + 1, k0: start, k1: end, rows: 1, cols: end - start }
            : { q0: start, q1: end, k0: index, k1: index + 1, rows: end - start, cols: 1 };
        const asked = { layer, head, sequence, ...along, reduce: "max", reading, encoding: "f32", effort: "first" };
        return capture.map(asked, signal);
      }),
    );
    const values = new Float32Array(to - from);
    parts.forEach((part, place) => values.set(part.values, place * STRIP));
    return { values, start: from };
  }
}
