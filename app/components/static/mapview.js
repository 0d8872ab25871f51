/** The large map: one head, or two and their difference, with its readings, scales, zoom and words. */

import { CompareControls, extentsOf, firstSide, secondSide } from "./compare.js";
import { button, h, promptly, segmented, select } from "./dom.js";
import { ExportMenu } from "./exports.js";
import { Hover } from "./hover.js";
import { Loader, request } from "./loader.js";
import { Pane } from "./pane.js";
import { drawLegend, shade, shadeDifference, survey } from "./scales.js";
import { failure } from "./states.js";
import { POOLED, count, describeMap, label, number } from "./text.js";
import { inside, layerName, regionOf } from "./view.js";

const FETCH_AFTER = 60;
const READINGS = [
  ["weight", "weights"],
  ["value_weighted", "weights × |value|"],
  ["score", "scores before softmax"],
];
const SCALES = [
  ["log", "log", "Colours by the logarithm of the weight"],
  ["linear", "linear", "Colours by the weight itself"],
  ["row", "by row", "Each row divided by its largest visible value"],
];
const POOLS = [
  ["max", "largest", "A cell that stands for several pairs shows the largest of them"],
  ["mean", "mean", "A cell that stands for several pairs shows the mean of its visible pairs"],
  ["sum", "sum", "A cell that stands for several pairs shows their sum: a row of cells totals its number of queries"],
];

export class MapView {
  /**
   * @param {{store: object, tip: object, theme: () => object, openCapture: (id: string) => Promise<object>,
   *   announce: (text: string) => void, onpoint: (point: object | null) => void,
   *   facts: (side: object) => string[], runAgain: () => void}} parts
   */
  constructor(parts) {
    Object.assign(this, parts);
    this.hover = new Hover({ tip: this.tip });
    this.sides = [];
    this.panes = [this.#pane("A"), this.#pane("B"), this.#pane("difference")];
    this.loaders = [0, 1].map(
      (index) =>
        new Loader({ ontile: (tile) => this.#took(index, tile), onstate: (state) => this.#state(index, state) }),
    );
    this.fetchSoon = promptly(() => this.#fetch(), FETCH_AFTER);
    this.title = h("h2");
    this.about = h("p.as-note");
    this.legend = h("div.as-legend", { role: "img" });
    this.differenceLegend = h("div.as-legend", { role: "img" });
    this.trouble = h("div");
    this.mismatch = h("div");
    this.compare = new CompareControls({ store: this.store });
    this.exports = new ExportMenu({ store: this.store, theme: this.theme });
    this.row = h("div.as-panes");
    this.element = h("section.as-map", { "aria-label": "Attention map" });
    this.element.append(
      h("div.as-head", {}, this.title, h("div.as-bar", {}, this.compare.element, this.exports.element)),
      this.#readings(),
      this.mismatch,
      this.trouble,
      this.row,
      h("div.as-legends", {}, this.legend, this.differenceLegend, this.#zooming()),
      this.about,
    );
  }

  destroy() {
    for (const loader of this.loaders) loader.stop();
    for (const pane of this.panes) pane.destroy();
    this.fetchSoon.cancel();
    this.exports.destroy();
  }

  setCapture(capture, summary, captures) {
    this.capture = capture;
    this.summary = summary;
    this.offer(captures);
    this.exports.setCapture(capture, summary);
    this.tiles = [];
    this.key = "";
  }

  /** Other captures to compare with, which may come later. */
  offer(captures) {
    const others = captures.filter(({ id }) => id !== this.capture.id);
    this.compare.build(this.summary, others);
    this.compare.show(this.store.view);
  }

  /** Shows the view: at once what only moves the axes, then what has to be fetched. */
  async update() {
    const { view } = this.store;
    this.#showControls(view);
    this.hover.leave();
    this.onpoint(null);
    const first = firstSide(this.capture, this.summary, view);
    const turn = (this.turn = {});
    let second = null;
    try {
      second = await secondSide(first, view.compare, this.openCapture);
    } catch (error) {
      if (turn === this.turn) this.#cannotCompare(error);
    }
    if (turn !== this.turn) return;
    if (second || !view.compare) this.mismatch.replaceChildren();
    this.sides = second ? [first, second] : [first];
    this.extents = extentsOf(this.sides);
    [this.extent] = this.extents;
    this.#layOut();
    const region = this.#region();
    this.#used().forEach((pane, index) => {
      pane.setExtent(this.extents[index]);
      pane.show(region);
    });
    const key = JSON.stringify(
      this.sides.map(({ capture, layer, head, sequence }) => [capture.id, layer, head, sequence]),
    );
    const jump = key !== this.key;
    this.key = key;
    if (jump) this.#fetch();
    else this.fetchSoon();
  }

  /** Colours only: a new scale or theme, the numbers staying. */
  repaint() {
    if (this.tiles?.[0]) this.#paint();
  }

  /** Marks a query's row or a key's column. */
  mark(at) {
    for (const pane of this.#used()) pane.mark(at);
  }

  #used() {
    return this.sides.length > 1 ? this.panes : this.panes.slice(0, 1);
  }

  #region() {
    const { queries, keys } = this.extent;
    return inside(this.store.view.region, queries, keys) ?? regionOf({ region: null }, queries, keys);
  }

  #layOut() {
    const used = this.#used();
    this.element.classList.toggle("as-comparing", used.length > 1);
    if (this.row.children.length !== used.length) {
      this.row.replaceChildren(...used.map(({ element }) => element));
      for (const pane of used) pane.measure();
    }
    this.differenceLegend.hidden = used.length < 2;
    const names = this.sides.map(({ title }, index) => `${"AB"[index]}: ${title}`);
    names.push("Difference, B − A");
    used.forEach((pane, index) => {
      pane.title.textContent = names[index];
      pane.title.hidden = used.length < 2;
    });
    this.title.textContent = this.sides.map(({ title }) => title).join(" and ");
  }

  #fetch() {
    if (!this.sides.length || !this.panes[0].element.isConnected) return;
    const { view } = this.store;
    const region = this.#region();
    this.trouble.replaceChildren();
    const floats = this.sides.length > 1;
    this.sides.forEach((side, index) => {
      const layer = layerName(side.summary, side.layer);
      const parameters = request(region, this.panes[0].resolution, { ...view, ...side, layer, floats });
      this.loaders[index].load(side.capture, parameters);
    });
    if (this.sides.length === 1) this.loaders[1].stop();
  }

  #took(index, tile) {
    this.tiles[index] = { ...tile, ...survey(tile.values), of: this.sides[index] };
    this.#paint();
  }

  /** The tile of a side, unless what is here is still another head's. */
  #tileOf(index) {
    const tile = this.tiles[index];
    return tile?.of === this.sides[index] ? tile : null;
  }

  #paint() {
    const { view } = this.store;
    const tiles = this.sides.map((_, index) => this.#tileOf(index));
    const here = tiles.filter(Boolean);
    if (!here.length) return;
    const dark = this.theme().dark;
    const region = this.#region();
    const limits = [Math.min(...here.map(({ low }) => low)), Math.max(...here.map(({ high }) => high))];
    tiles.forEach((tile, index) => {
      if (!tile) return;
      const { shares, legend } = shade(tile.values, { ...tile, ...pick(view), keys: this.extent.keys, limits });
      this.#drawIn(this.panes[index], { ...tile, shares }, { region, kind: "sequential", dark });
      drawLegend(this.legend, legend, dark);
      this.#describe(this.panes[index], this.extents[index], tile);
    });
    if (here.length === 2 && sameTile(...tiles)) this.#paintDifference(tiles, { region, dark });
    this.about.textContent = this.#words(tiles[0] ?? tiles[1]);
  }

  /** Draws once the chart library is there, and says so when it cannot be loaded. */
  #drawIn(pane, tile, how) {
    pane.draw(tile, how).catch((error) => this.#fail(error));
  }

  #paintDifference([a, b], { region, dark }) {
    const values = b.values.map((value, index) => value - a.values[index]);
    const { shares, legend, largest, at } = shadeDifference(values, this.store.view);
    const [, , pane] = this.panes;
    this.#drawIn(pane, { ...a, shares }, { region, kind: "difference", dark });
    drawLegend(this.differenceLegend, legend, dark);
    const where = at < 0 ? "" : ` at ${this.#pairName(this.extents[2], a, at)}`;
    const words = `largest |B − A| ${number(largest, 4)}${where}`;
    pane.title.textContent = `Difference, B − A: ${words}`;
    pane.frame.setAttribute(
      "aria-label",
      `Difference of ${this.sides.map(({ title }) => title).join(" and ")}: ${words}.`,
    );
  }

  /** The pair, or the pool, of one cell of a tile, in words. */
  #pairName(extent, tile, index) {
    const row = Math.floor(index / tile.cols);
    const query = tile.q0 + Math.floor((row * (tile.q1 - tile.q0)) / tile.rows);
    const key = tile.k0 + Math.floor(((index % tile.cols) * (tile.k1 - tile.k0)) / tile.cols);
    if (!tile.exact) return `queries from ${count(query)}, keys from ${count(key)}`;
    const named = (tokens, at) => `“${label(tokens[at])}” (${count(at)})`;
    return `${named(extent.queryTokens, query)} to ${named(extent.keyTokens, key)}`;
  }

  #describe(pane, extent, tile) {
    const { at, of: side } = tile;
    const range = (low, high) => `${count(low)} to ${count(high - 1)}`;
    const region = `queries ${range(tile.q0, tile.q1)}, keys ${range(tile.k0, tile.k1)}`;
    let pair = null;
    if (tile.exact && at >= 0) {
      const query = label(extent.queryTokens[tile.q0 + Math.floor(at / tile.cols)]);
      pair = { query, key: label(extent.keyTokens[tile.k0 + (at % tile.cols)]), value: tile.values[at] };
    }
    pane.frame.setAttribute("aria-label", describeMap({ title: side.title, facts: this.facts(side), pair, region }));
  }

  /** What a cell of the picture is. */
  #words(tile) {
    const { pooling } = this.store.view;
    const size = [(tile.q1 - tile.q0) / tile.rows, (tile.k1 - tile.k0) / tile.cols].map((x) => number(x, 2));
    const cell = tile.exact
      ? `one cell, one pair${tile.encoding === "f32" ? ", exact float32" : "; hover for the exact weight"}`
      : `one cell, ${size[0]} × ${size[1]} pairs: their ${POOLED[pooling]}`;
    const more = tile.exact ? "" : "; drag a rectangle to zoom in to single weights";
    const mask = tile.masked ? "; hatched: hidden by the mask" : "";
    const common = this.extent.differ
      ? ` Only the first ${count(this.extent.queries)} positions, which both have, are shown.`
      : "";
    return `${count(tile.q1 - tile.q0)} queries × ${count(tile.k1 - tile.k0)} keys; ${cell}${more}${mask}.${common}`;
  }

  #state(index, state) {
    const pane = this.panes[index];
    pane.element.setAttribute("aria-busy", String(state.kind === "loading"));
    pane.frame.classList.toggle("as-waiting", state.kind === "loading" && !pane.drawn);
    if (state.kind === "failed") return this.#fail(state.error);
    if (state.kind === "ready" && !pane.veil.hidden) this.announce("Every query read: the map is exact now");
    pane.say(state.kind === "refining" ? `${count(state.sampled)} of ${count(state.of)} queries read: refining` : null);
    return undefined;
  }

  /** The other map cannot be opened: the first stays, and the visitor may try again or compare with nothing. */
  #cannotCompare(error) {
    const retry = () => this.update();
    this.mismatch.replaceChildren(failure(error, { retry, runAgain: () => this.store.change({ compare: null }) }));
  }

  #fail(error) {
    this.trouble.replaceChildren(failure(error, { retry: () => this.#fetch(), runAgain: this.runAgain }));
  }

  #pane(name) {
    return new Pane({
      onregion: (region) => this.#zoomed(region),
      onreset: () => this.store.change({ region: null }),
      onpoint: (point, event) => this.#point(name, point, event),
      onpick: ({ query, key }) => this.store.change({ pinned: this.store.view.direction === "pays" ? query : key }),
    });
  }

  #zoomed(region) {
    const { queries, keys } = this.extent;
    this.store.change({ region: inside(region, queries, keys) });
  }

  #point(name, point, event) {
    const used = this.sides.map((side, index) => ({ side, tile: this.#tileOf(index), name: "" }));
    const place = ["A", "B", "difference"].indexOf(name);
    const here = place === 2 ? used : used.slice(place, place + 1);
    if (!point || here.some(({ tile }) => !tile) || !here.length) {
      this.hover.leave();
      return this.onpoint(null);
    }
    if (here.length > 1) here.forEach((each, index) => (each.name = ` ${"AB"[index]}`));
    this.hover.show(event, point, { sides: here, extent: this.extents[place], view: this.store.view });
    return this.onpoint(here[0].tile.exact ? point : null);
  }

  #readings() {
    const change = (name) => (value) => this.store.change({ [name]: value });
    this.reading = select({
      label: "reading",
      options: READINGS,
      value: "weight",
      hideLabel: true,
      onchange: change("reading"),
    });
    this.scale = segmented({ label: "Scale", options: SCALES, value: "log", onchange: change("scale") });
    this.pool = segmented({ label: "Pooling", options: POOLS, value: "max", onchange: change("pooling") });
    return h("div.as-bar.as-tools", {}, this.reading.element, this.scale.element, this.pool.element);
  }

  #zooming() {
    const drag = [
      ["zoom", "zoom", "Drag a rectangle to zoom into it"],
      ["pan", "pan", "Drag to move the map"],
    ];
    this.drag = segmented({ label: "Dragging", options: drag, value: "zoom", onchange: (mode) => this.#setDrag(mode) });
    const step = (zoom) => () => this.panes[0].step({ zoom });
    this.whole = button("whole map", () => this.store.change({ region: null }), {
      title: "Show every token (Escape, or double-click)",
    });
    return h(
      "div.as-zoom",
      {},
      this.drag.element,
      button("−", step(2), { title: "Zoom out", className: "as-icon" }),
      button("+", step(0.5), { title: "Zoom in", className: "as-icon" }),
      this.whole,
    );
  }

  #setDrag(mode) {
    this.drag.set(mode);
    for (const pane of this.panes) pane.setDrag(mode);
  }

  #showControls(view) {
    this.reading.set(view.reading);
    this.scale.set(view.scale);
    this.pool.set(view.pooling);
    this.scale.buttons.get("log").disabled = view.reading === "score";
    this.whole.disabled = !view.region;
    this.compare.show(view);
  }
}

const pick = ({ scale, reading }) => ({ scale, reading });

function sameTile(a, b) {
  return ["rows", "cols", "q0", "q1", "k0", "k1"].every((name) => a[name] === b[name]);
}
