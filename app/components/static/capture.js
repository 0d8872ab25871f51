/** Reading a capture over HTTP: JSON and raw numbers, each with its error in words, remembered for a while. */

const ROOT = "/attnscope/captures/";
const BYTES_REMEMBERED = 48 * 1024 * 1024;

/** A request that failed, in words fit for the page. */
export class CaptureError extends Error {
  constructor(message, { remedy = "", reference = "", status = 0 } = {}) {
    super(message);
    this.remedy = remedy;
    this.reference = reference;
    this.status = status;
  }

  /** The capture is no longer held: only a new run brings it back. */
  get gone() {
    return this.status === 404 || this.status === 410;
  }
}

/** @returns {boolean} Whether an error only says that a newer request took this one's place. */
export const isAbort = (error) => error?.name === "AbortError";

async function get(url, signal) {
  let response;
  try {
    response = await fetch(url, { signal, credentials: "same-origin" });
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new CaptureError("The server did not answer.", { remedy: "Check that it is running, then try again." });
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new CaptureError(body.error ?? `The server refused this request (${response.status}).`, {
    remedy: body.remedy ?? "",
    reference: body.reference ?? "",
    status: response.status,
  });
}

/**
 * Raw numbers as float32: bytes are given back their values, masked cells are NaN.
 * @param {ArrayBuffer} buffer
 * @param {{encoding?: string, scale?: string, lo?: number, hi?: number}} header
 */
export function decode(buffer, header) {
  if (header.encoding !== "u8") return new Float32Array(buffer);
  const table = new Float32Array(256);
  const { lo, hi } = header;
  for (let code = 0; code < 255; code += 1) {
    const share = code / 254;
    if (header.scale === "log") table[code] = lo > 0 ? lo * (hi / lo) ** share : 0;
    else table[code] = lo + (hi - lo) * share;
  }
  table[255] = NaN;
  const codes = new Uint8Array(buffer);
  const values = new Float32Array(codes.length);
  for (let index = 0; index < codes.length; index += 1) values[index] = table[codes[index]];
  return values;
}

/** One capture: its addresses, and the answers it gave lately. */
export class Capture {
  /** @param {string} id @param {string} [attention] Which of an encoder-decoder's; the first where none is named. */
  constructor(id, attention) {
    this.id = id;
    this.attention = attention === "self" ? null : attention;
    this.base = `${ROOT}${encodeURIComponent(id)}`;
    this.remembered = new Map();
    this.bytes = 0;
  }

  /** @returns {string} The address of one of this capture's routes. */
  address(route, parameters = {}) {
    const query = new URLSearchParams();
    for (const [key, value] of Object.entries({ ...parameters, attention: this.attention })) {
      if (value !== null && value !== undefined) query.set(key, String(value));
    }
    const text = query.toString();
    return `${this.base}${route ? `/${route}` : ""}${text ? `?${text}` : ""}`;
  }

  async summary(signal) {
    return (await get(this.address(""), signal)).json();
  }

  async diagnostics(sequence, signal) {
    return (await get(this.address("diagnostics", { sequence }), signal)).json();
  }

  /** @returns {Promise<{codes: Uint8Array, shape: number[], lo: number, hi: number}>} */
  async overview(sequence, size, signal) {
    const response = await get(this.address("overview", { sequence, size, reduce: "max" }), signal);
    const header = JSON.parse(response.headers.get("X-Attnscope"));
    return { codes: new Uint8Array(await response.arrayBuffer()), ...header };
  }

  /**
   * A rectangle of one head.
   * @returns {Promise<{values: Float32Array, rows: number, cols: number, q0: number, q1: number, k0: number,
   *   k1: number, exact: boolean, sampled: number | null, encoding: string}>}
   */
  async map(parameters, signal) {
    return this.#numbers("map", parameters, signal);
  }

  /** Weights of one query on every key; hidden keys are NaN. @returns {Promise<Float32Array>} */
  async row(parameters, signal) {
    return (await this.#numbers("row", parameters, signal)).values;
  }

  /** Weights every query puts on one key. @returns {Promise<Float32Array>} */
  async column(parameters, signal) {
    return (await this.#numbers("column", parameters, signal)).values;
  }

  /** A remembered answer, without asking: what makes hovering instant. */
  recall(route, parameters) {
    return this.remembered.get(this.address(route, parameters)) ?? null;
  }

  async #numbers(route, parameters, signal) {
    const url = this.address(route, parameters);
    const known = this.remembered.get(url);
    if (known) {
      this.remembered.delete(url);
      this.remembered.set(url, known);
      return known;
    }
    const response = await get(url, signal);
    const header = JSON.parse(response.headers.get("X-Attnscope") ?? "{}");
    const answer = { ...header, values: decode(await response.arrayBuffer(), header) };
    if (answer.sampled === null || answer.sampled === undefined) this.#remember(url, answer);
    return answer;
  }

  #remember(url, answer) {
    this.bytes -= this.remembered.get(url)?.values.byteLength ?? 0;
    this.remembered.set(url, answer);
    this.bytes += answer.values.byteLength;
    for (const [oldest, held] of this.remembered) {
      if (this.bytes <= BYTES_REMEMBERED) break;
      this.remembered.delete(oldest);
      this.bytes -= held.values.byteLength;
    }
  }
}
