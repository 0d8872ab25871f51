/** A long text as one strip: where its received attention lies, and which part of it is shown. */

import { h, sharp } from "./dom.js";
import { palette } from "./scales.js";
import { count } from "./text.js";

const BINS = 512;
const HEIGHT = 18;

export class Minimap {
  /** @param {{theme: () => object, onpick: (token: number) => void}} parts */
  constructor({ theme, onpick }) {
    Object.assign(this, { theme, onpick });
    this.canvas = h("canvas", { role: "img" });
    this.element = h("div.as-minimap", {
      tabindex: "0",
      role: "slider",
      "aria-label": "Part of the text that is shown",
      title: "Shade: mean weight a token receives from the queries that can see it, logarithmic. Click to go there.",
      onclick: (event) => this.#click(event),
      onkeydown: (event) => this.#key(event),
    });
    this.element.append(this.canvas);
    this.element.hidden = true;
  }

  setWindow([from, to], length) {
    Object.assign(this, { from, to, length });
    this.element.setAttribute("aria-valuemin", "0");
    this.element.setAttribute("aria-valuemax", String(length));
    this.element.setAttribute("aria-valuenow", String(from));
    this.element.setAttribute("aria-valuetext", `tokens ${count(from)} to ${count(to - 1)} of ${count(length)}`);
    this.#draw();
  }

  /** Reads how much every part of the text receives in this head. */
  async setHead({ capture, layer, head, sequence, queries, keys }, wanted) {
    this.element.hidden = !wanted;
    if (!wanted) return;
    this.control?.abort();
    this.control = new AbortController();
    const { signal } = this.control;
    const asked = { layer, head, sequence, q0: 0, q1: queries, k0: 0, k1: keys, rows: 1, cols: Math.min(keys, BINS) };
    const how = { reduce: "mean", reading: "weight", encoding: "f32", effort: "first" };
    try {
      const { values } = await capture.map({ ...asked, ...how }, signal);
      if (signal.aborted) return;
      this.mass = values;
      this.#draw();
    } catch {
      this.mass = null;
    }
  }

  #draw() {
    if (this.element.hidden || !this.length) return;
    const width = this.element.clientWidth || 600;
    const context = sharp(this.canvas, width, HEIGHT);
    const theme = this.theme();
    context.fillStyle = theme.mask;
    context.fillRect(0, 4, width, HEIGHT - 8);
    if (this.mass) this.#paint(context, width);
    const left = (this.from / this.length) * width;
    context.strokeStyle = theme.accent;
    context.lineWidth = 2;
    context.strokeRect(left + 1, 1, Math.max(4, ((this.to - this.from) / this.length) * width) - 2, HEIGHT - 2);
    this.canvas.setAttribute(
      "aria-label",
      `Attention received along the text; shown: tokens ${count(this.from)} to ${count(this.to - 1)}`,
    );
  }

  #paint(context, width) {
    const colours = palette("sequential", false);
    const seen = [...this.mass].filter((value) => value > 0);
    const high = Math.log(Math.max(...seen));
    const low = Math.log(Math.min(...seen));
    const step = width / this.mass.length;
    this.mass.forEach((value, bin) => {
      if (!(value > 0)) return;
      const share = high > low ? (Math.log(value) - low) / (high - low) : 1;
      context.fillStyle = `rgb(${colours[Math.round(share * 255)].join(",")})`;
      context.fillRect(bin * step, 4, step + 0.5, HEIGHT - 8);
    });
  }

  #click(event) {
    const box = this.canvas.getBoundingClientRect();
    this.onpick(((event.clientX - box.left) / box.width) * this.length);
  }

  #key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
    if (!step) return;
    event.preventDefault();
    this.onpick((this.from + this.to) / 2 + step * (this.to - this.from));
  }
}
