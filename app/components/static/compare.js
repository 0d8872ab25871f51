/** What the map is held against: another head, another prompt, another capture; and the controls that choose it. */

import { h, select } from "./dom.js";
import { label, visible } from "./text.js";
import { layerName, lengths } from "./view.js";

/**
 * @typedef {{capture: import("./capture.js").Capture, summary: object, layer: number, head: number, sequence: number,
 *   title: string}} Side One map: which head of which prompt of which capture.
 */

/** The map the view names. @returns {Side} */
export function firstSide(capture, summary, view) {
  const { layer, head, sequence } = view;
  return { capture, summary, layer, head, sequence, title: headTitle(summary, layer, head) };
}

const headTitle = (summary, layer, head) => `Layer ${layerName(summary, layer)}, head ${head}`;

/**
 * The map it is compared with, or null.
 * @param {Side} first @param {import("./view.js").Comparison | null} compare
 * @param {(id: string) => Promise<{capture: object, summary: object}>} open Reads another capture.
 * @returns {Promise<Side | null>}
 */
export async function secondSide(first, compare, open) {
  if (!compare) return null;
  if (compare.kind === "head") {
    const { layer, head } = compare;
    return { ...first, layer, head, title: headTitle(first.summary, layer, head) };
  }
  if (compare.kind === "sequence") {
    const { sequence } = compare;
    return { ...first, sequence, title: `${first.title}, prompt ${sequence + 1}` };
  }
  const other = await open(compare.capture);
  const layer = Math.min(first.layer, other.summary.layers.length - 1);
  const head = Math.min(first.head, other.summary.layers[layer].heads - 1);
  const sequence = Math.min(first.sequence, other.summary.sequences.length - 1);
  const { model, backend, sequences } = other.summary;
  const origin = [model, backend, ...(sameText(first, sequences[sequence]) ? [] : [preview(sequences[sequence].tokens)])];
  return { ...other, layer, head, sequence, title: `${headTitle(other.summary, layer, head)} (${origin.join(", ")})` };
}

const sameText = ({ summary, sequence }, { tokens }) => summary.sequences[sequence].tokens.join("") === tokens.join("");

/**
 * What the axes of each map stand for: the leading positions that all have, with each map's own tokens; after two maps,
 * those of their difference.
 * @param {Side[]} sides
 * @returns {{queries: number, keys: number, differ: boolean, queryTokens: string[], keyTokens: string[]}[]}
 */
export function extentsOf(sides) {
  const all = sides.map(({ summary, sequence, layer }) => lengths(summary, sequence, layer));
  const queries = Math.min(...all.map(([q]) => q));
  const keys = Math.min(...all.map(([, k]) => k));
  const differ = all.some(([q, k]) => q !== all[0][0] || k !== all[0][1]);
  const extents = sides.map(({ summary, sequence }) => {
    const { tokens, keys: read } = summary.sequences[sequence];
    const keyTokens = leading(read?.tokens ?? tokens, keys);
    return { queries, keys, differ, queryTokens: leading(tokens, queries), keyTokens };
  });
  if (extents.length < 2) return extents;
  const [first, second] = extents;
  const queryTokens = inBoth(first.queryTokens, second.queryTokens);
  const keyTokens = inBoth(first.keyTokens, second.keyTokens);
  return [first, second, { ...first, queryTokens, keyTokens }];
}

const leading = (tokens, length) => (length === tokens.length ? tokens : tokens.slice(0, length));

/** The token at each position, or both where two prompts differ. */
function inBoth(first, second) {
  if (first === second) return first;
  return first.map((token, at) => (token === second[at] ? token : `${label(token)} | ${label(second[at])}`));
}

export class CompareControls {
  constructor({ store }) {
    this.store = store;
    this.element = h("span.as-compare");
  }

  /** @param {object} summary @param {{id: string, title: string}[]} captures Other captures the page offers. */
  build(summary, captures) {
    const offered = JSON.stringify([captures, this.store.view.sequence]);
    if (this.summary === summary && this.offered === offered) return;
    this.summary = summary;
    this.captures = captures;
    this.offered = offered;
    const prompts = summary.sequences
      .map(({ tokens }, index) => [`sequence:${index}`, `prompt ${index + 1}: ${preview(tokens)}`])
      .filter((_, index) => summary.sequences.length > 1 && index !== this.store.view.sequence);
    const others = captures.map(({ id, title }) => [`capture:${id}`, title]);
    this.what = select({
      label: "compare",
      options: [["", "nothing"], ["head", "another head"], ...prompts, ...others],
      value: "",
      title: "Hold another map beside this one, and their difference",
      onchange: (choice) => this.#choose(choice),
    });
    const numbers = (length) => Array.from({ length }, (_, index) => [String(index), String(index)]);
    this.layer = select({
      label: "layer",
      options: summary.layers.map((_, place) => [String(place), String(layerName(summary, place))]),
      value: "0",
      onchange: (layer) => this.#head({ layer: Number(layer) }),
    });
    this.head = select({
      label: "head",
      options: numbers(Math.max(...summary.layers.map(({ heads }) => heads))),
      value: "0",
      onchange: (head) => this.#head({ head: Number(head) }),
    });
    this.element.replaceChildren(this.what.element, this.layer.element, this.head.element);
  }

  /** Shows what the view compares with. */
  show({ compare }) {
    this.build(this.summary, this.captures);
    const heads = compare?.kind === "head";
    for (const part of [this.layer, this.head]) part.element.hidden = !heads;
    this.what.set(choiceOf(compare));
    if (!heads) return;
    this.layer.set(String(compare.layer));
    this.head.set(String(compare.head));
  }

  #choose(choice) {
    const { layer, head } = this.store.view;
    const [kind, value] = [choice.split(":")[0], choice.slice(choice.indexOf(":") + 1)];
    const heads = this.summary.layers[layer].heads;
    const compare = {
      "": null,
      head: { kind: "head", layer, head: (head + 1) % heads },
      sequence: { kind: "sequence", sequence: Number(value) },
      capture: { kind: "capture", capture: value },
    }[kind];
    this.store.change({ compare });
  }

  #head(change) {
    const next = { ...this.store.view.compare, ...change };
    next.head = Math.min(next.head, this.summary.layers[next.layer].heads - 1);
    this.store.change({ compare: next });
  }
}

function choiceOf(compare) {
  if (!compare) return "";
  if (compare.kind === "head") return "head";
  return compare.kind === "sequence" ? `sequence:${compare.sequence}` : `capture:${compare.capture}`;
}

function preview(tokens) {
  const text = visible(tokens.slice(0, 16).join("")).replace(/\s+/g, " ");
  return text.length > 28 ? `${text.slice(0, 28)}…` : text;
}
