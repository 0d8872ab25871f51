/**
 * One map on screen: a Plotly chart for zoom and pan; hatching for what the mask hides; axes of our own, so that no
 * visitor's text ever reaches Plotly, which reads markup and mathematics into strings. The tile is a picture in its
 * plane: Plotly's own heatmap takes three times as long to draw 512 × 512 cells.
 */

import { Axes, MARGIN } from "./axes.js";
import { h } from "./dom.js";
import { palette, picture } from "./scales.js";

const CONFIG = { displayModeBar: false, scrollZoom: true, doubleClick: false, responsive: false, showTips: false };
const CLICK_REACH = 4;

let loading = null;

/** The installed package's plotly.js, loaded once a page. */
export function loadPlotly() {
  if (window.Plotly) return Promise.resolve(window.Plotly);
  loading ??= new Promise((resolve, reject) => {
    const script = h("script", { src: "/attnscope/static/plotly.min.js" });
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => {
      loading = null;
      reject(new Error("The chart library could not be loaded."));
    };
    document.head.append(script);
  });
  return loading;
}

/** @typedef {import("./view.js").Region} Region */

export class Pane {
  /**
   * @param {{label: string, onregion: (region: Region) => void, onreset: () => void,
   *   onpoint: (point: {query: number, key: number} | null, event: MouseEvent) => void,
   *   onpick: (point: {query: number, key: number}) => void}} handlers
   */
  constructor(handlers) {
    this.handlers = handlers;
    this.plot = h("div.as-plotly");
    this.hatch = h("div.as-hatch");
    this.rowMark = h("div.as-mark");
    this.columnMark = h("div.as-mark");
    this.veil = h("div.as-veil", { role: "status" });
    this.veil.hidden = true;
    this.title = h("p.as-pane-title");
    this.frame = h("div.as-pane-frame", { role: "img", tabindex: "0", onkeydown: (event) => this.#key(event) });
    this.axes = new Axes();
    this.frame.append(this.hatch, this.plot, this.rowMark, this.columnMark, this.axes.element, this.veil);
    this.element = h("div.as-pane", {}, this.title, this.frame);
    this.drawn = null;
    this.observer = new ResizeObserver(() => this.#resize());
    this.observer.observe(this.frame);
    this.frame.addEventListener("pointermove", (event) => this.#move(event));
    this.frame.addEventListener("pointerleave", (event) => this.handlers.onpoint(null, event));
    this.frame.addEventListener("pointerdown", (event) => this.#press(event));
    this.frame.addEventListener("pointerup", (event) => this.#release(event));
    this.frame.addEventListener("dblclick", () => this.handlers.onreset());
  }

  destroy() {
    this.observer.disconnect();
    if (this.plotted) window.Plotly.purge(this.plot);
  }

  /** The size of the drawing area in CSS pixels. */
  get area() {
    this.measured ??= [this.frame.clientWidth, this.frame.clientHeight];
    const [width, height] = this.measured;
    return [Math.max(40, width - MARGIN.left - MARGIN.right), Math.max(40, height - MARGIN.top - MARGIN.bottom)];
  }

  /** How many cells a side are worth fetching: a device pixel each, 512 at most. */
  get resolution() {
    const ratio = window.devicePixelRatio || 1;
    return this.area.map((pixels) => Math.min(512, Math.floor(pixels * ratio)));
  }

  /** @param {{queries: number, keys: number, queryTokens: string[], keyTokens: string[]}} extent */
  setExtent(extent) {
    const known = this.extent;
    this.extent = extent;
    this.axes.setTokens(extent);
    const same = known && known.queries === extent.queries && known.keys === extent.keys;
    if (!same) this.range = null;
  }

  /**
   * Draws a tile, its colours already worked out, and moves the axes to the region unless they show it already.
   * @param {{shares: Float32Array, rows: number, cols: number, q0: number, q1: number, k0: number, k1: number}} tile
   * @param {{region: Region, kind: string, dark: boolean}} how
   */
  async draw(tile, { region, kind, dark }) {
    this.drawn = tile;
    await loadPlotly();
    if (this.drawn !== tile) return;
    if (!this.range || !sameRegion(this.shown, region)) this.range = rangeOf(region);
    this.picture = { ...tile, source: picture(tile.shares, tile, palette(kind, dark)) };
    await window.Plotly.react(this.plot, [], this.#layout(), CONFIG);
    if (!this.plotted) this.#listen();
    this.axes.draw(this.range, this.area);
    this.hatch.hidden = false;
    this.mark(this.marked ?? {});
  }

  /** The axes at a region, before its tile is here. */
  show(region) {
    if (!this.plotted || !this.extent || sameRegion(this.shown, region)) return;
    this.range = rangeOf(region);
    window.Plotly.relayout(this.plot, { "xaxis.range": [...this.range.x], "yaxis.range": [...this.range.y] });
  }

  /** The region inside the axes now. @returns {Region | null} */
  get shown() {
    if (!this.range) return null;
    const { x, y } = this.range;
    const whole = (value) => (Math.abs(value - Math.round(value)) < 1e-3 ? Math.round(value) : value);
    return {
      q0: Math.max(0, Math.floor(whole(y[1] + 0.5))),
      q1: Math.min(this.extent.queries, Math.ceil(whole(y[0] + 0.5))),
      k0: Math.max(0, Math.floor(whole(x[0] + 0.5))),
      k1: Math.min(this.extent.keys, Math.ceil(whole(x[1] + 0.5))),
    };
  }

  /** Thin lines along one query and one key. @param {{query?: number | null, key?: number | null}} at */
  mark(at) {
    this.marked = at;
    if (!this.range) return;
    const [width, height] = this.area;
    const { x, y } = this.range;
    place(this.rowMark, at.query, y[1], y[0], height, (from, size) => ({
      left: MARGIN.left,
      top: MARGIN.top + from,
      width,
      height: size,
    }));
    place(this.columnMark, at.key, x[0], x[1], width, (from, size) => ({
      left: MARGIN.left + from,
      top: MARGIN.top,
      width: size,
      height,
    }));
  }

  /** A line of words over the map, or none. */
  say(text) {
    this.veil.hidden = !text;
    this.veil.textContent = text ?? "";
  }

  /** Grows or shrinks what is shown around its middle, and moves it by shares of its size. */
  step({ zoom = 1, across = 0, down = 0 }) {
    const region = this.shown;
    if (!region) return;
    const { q0, q1, k0, k1 } = region;
    const side = (low, high, length, move) => {
      const size = Math.min(length, Math.max(4, Math.round((high - low) * zoom)));
      const middle = (low + high) / 2 + move * (high - low);
      const start = Math.min(Math.max(0, Math.round(middle - size / 2)), length - size);
      return [start, start + size];
    };
    const [a, b] = side(q0, q1, this.extent.queries, down);
    const [c, d] = side(k0, k1, this.extent.keys, across);
    this.handlers.onregion({ q0: a, q1: b, k0: c, k1: d });
  }

  setDrag(mode) {
    this.drag = mode;
    if (this.plotted) window.Plotly.relayout(this.plot, { dragmode: mode });
  }

  #layout() {
    const [width, height] = this.area;
    const axis = (range, length) => ({
      range: [...range],
      minallowed: -0.5,
      maxallowed: length - 0.5,
      showgrid: false,
      zeroline: false,
      showline: false,
      showticklabels: false,
      ticks: "",
    });
    return {
      width: width + MARGIN.left + MARGIN.right,
      height: height + MARGIN.top + MARGIN.bottom,
      margin: { l: MARGIN.left, r: MARGIN.right, t: MARGIN.top, b: MARGIN.bottom, pad: 0 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      dragmode: this.drag ?? "zoom",
      hovermode: false,
      xaxis: axis(this.range.x, this.extent.keys),
      yaxis: axis(this.range.y, this.extent.queries),
      images: [inPlane(this.picture)],
    };
  }

  #listen() {
    this.plotted = true;
    const follow = () => {
      const { xaxis, yaxis } = this.plot._fullLayout;
      this.range = { x: [...xaxis.range], y: [...yaxis.range] };
      this.axes.draw(this.range, this.area);
      this.mark(this.marked ?? {});
    };
    this.plot.on("plotly_relayouting", follow);
    this.plot.on("plotly_relayout", (change) => {
      if (!Object.keys(change).some((key) => key.includes("axis"))) return;
      follow();
      this.handlers.onregion(this.shown);
    });
  }

  /** Forgets the size: the page was laid out anew. */
  measure() {
    this.measured = null;
  }

  #resize() {
    this.measure();
    if (!this.plotted || !this.frame.clientWidth) return;
    const [width, height] = this.area;
    const size = `${width}×${height}`;
    if (size === this.size) return;
    this.size = size;
    window.Plotly.relayout(this.plot, {
      width: width + MARGIN.left + MARGIN.right,
      height: height + MARGIN.top + MARGIN.bottom,
    });
    this.axes.draw(this.range, this.area);
    this.mark(this.marked ?? {});
  }

  /** The pair of positions under the pointer, or null outside the map. */
  #point({ clientX, clientY }) {
    if (!this.range) return null;
    const box = this.frame.getBoundingClientRect();
    const [width, height] = this.area;
    const right = (clientX - box.left - MARGIN.left) / width;
    const down = (clientY - box.top - MARGIN.top) / height;
    if (right < 0 || right >= 1 || down < 0 || down >= 1) return null;
    const { x, y } = this.range;
    const key = Math.round(x[0] + right * (x[1] - x[0]));
    const query = Math.round(y[1] + down * (y[0] - y[1]));
    return query >= 0 && query < this.extent.queries && key >= 0 && key < this.extent.keys ? { query, key } : null;
  }

  #move(event) {
    this.handlers.onpoint(event.buttons ? null : this.#point(event), event);
  }

  /** Plotly keeps the press to itself: without this, the keys would not follow the pointer to the map. */
  #press({ clientX, clientY }) {
    this.pressed = [clientX, clientY];
    this.frame.focus({ preventScroll: true });
  }

  #release(event) {
    const [x, y] = this.pressed ?? [Infinity, Infinity];
    const still = Math.hypot(event.clientX - x, event.clientY - y) < CLICK_REACH;
    const point = still && event.button === 0 ? this.#point(event) : null;
    if (point) this.handlers.onpick(point);
  }

  #key(event) {
    const steps = {
      ArrowLeft: { across: -0.2 },
      ArrowRight: { across: 0.2 },
      ArrowUp: { down: -0.2 },
      ArrowDown: { down: 0.2 },
      "+": { zoom: 0.5 },
      "=": { zoom: 0.5 },
      "-": { zoom: 2 },
    };
    if (!steps[event.key]) return;
    event.preventDefault();
    this.step(steps[event.key]);
  }
}

function rangeOf({ q0, q1, k0, k1 }) {
  return { x: [k0 - 0.5, k1 - 0.5], y: [q1 - 0.5, q0 - 0.5] };
}

/** A tile's picture as Plotly lays it under its axes: half a position beyond the middle of its first and last pair. */
function inPlane({ source, q0, q1, k0, k1 }) {
  const at = { x: k0 - 0.5, y: q0 - 0.5, sizex: k1 - k0, sizey: q1 - q0 };
  return { source, xref: "x", yref: "y", ...at, sizing: "stretch", layer: "below" };
}

function sameRegion(a, b) {
  return Boolean(a && b) && a.q0 === b.q0 && a.q1 === b.q1 && a.k0 === b.k0 && a.k1 === b.k1;
}

function place(element, position, low, high, pixels, box) {
  const missing = position === null || position === undefined;
  const from = missing ? -1 : ((position - 0.5 - low) / (high - low)) * pixels;
  const size = Math.max(1, pixels / (high - low));
  element.hidden = missing || from + size <= 0 || from >= pixels;
  if (element.hidden) return;
  element.classList.toggle("as-thin", size < 4);
  const start = Math.max(0, from);
  const all = box(start, Math.min(size - (start - from), pixels - start));
  for (const [name, value] of Object.entries(all)) element.style[name] = `${value}px`;
}
