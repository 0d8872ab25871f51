/** Every head of the model as one small picture on one canvas. */

import { CAPTION, arrange, headsOf, neighbour, placeAt, rangeOf, valueOf } from "./arrange.js";
import { decode } from "./capture.js";
import { button, h, segmented, select, sharp } from "./dom.js";
import { palette, shade } from "./scales.js";
import { inSentence, measure } from "./text.js";
import { layerName, lengths } from "./view.js";

const BYTES = 900_000;

/** How fine each head's picture is, so that all of them stay under a megabyte. */
export const pictureSize = (heads) => Math.max(16, Math.min(48, Math.floor(Math.sqrt(BYTES / heads))));

/** As many digits as a link keeps. */
const digits = (value) => Number(value.toPrecision(5));

export class Overview {
  /** @param {{store: object, tip: object, theme: () => object, announce: (text: string) => void}} parts */
  constructor({ store, tip, theme }) {
    Object.assign(this, { store, tip, theme });
    this.canvas = h("canvas", { role: "img" });
    this.frame = h("div.as-overview-frame", {
      tabindex: "0",
      role: "group",
      onkeydown: (event) => this.#key(event),
      onmousemove: (event) => this.#hover(event),
      onmouseleave: () => this.tip.hide(),
      onclick: (event) => this.#click(event),
    });
    this.frame.append(this.canvas);
    this.controls = h("div.as-bar");
    this.filterRow = h("div.as-bar.as-filter");
    this.note = h("p.as-note");
    this.element = h("section.as-overview", { "aria-label": "All heads" });
    this.element.append(
      h("div.as-head", {}, h("h2", { text: "All heads" }), this.controls),
      this.filterRow,
      this.frame,
      this.note,
    );
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.frame);
  }

  destroy() {
    this.observer.disconnect();
  }

  /** Says that the pictures are being made, while there are none. */
  wait() {
    this.diagnostics = null;
    this.note.textContent = "Reading every head";
    this.frame.classList.add("as-waiting");
  }

  /** A capture's heads and pictures; `diagnostics` may come later, by `setDiagnostics`. */
  setPictures(summary, pictures) {
    this.summary = summary;
    this.heads = headsOf(summary);
    this.pictures = pictures;
    this.sprite = null;
    this.frame.classList.remove("as-waiting");
    this.draw();
  }

  setDiagnostics(diagnostics) {
    this.diagnostics = diagnostics;
    this.#buildControls();
    this.draw();
  }

  /** Redraws with the theme's colours. */
  recolour() {
    this.sprite = null;
    this.draw();
  }

  #buildControls() {
    const { keys } = this.diagnostics;
    const named = keys.map(({ key, title }) => [key, title]);
    const { sort, filter } = this.store.view;
    const order = select({
      label: "sort",
      options: [["", "by layer"], ...named],
      value: sort?.key ?? "",
      title: "Lay the heads out in the order of a diagnostic",
      onchange: (key) => this.store.change({ sort: key ? { key, descending: true } : null }),
    });
    this.order = order;
    this.turn = button(
      "↓",
      () => {
        const now = this.store.view.sort;
        if (now) this.store.change({ sort: { ...now, descending: !now.descending } });
      },
      { title: "Turn the order round", className: "as-icon" },
    );
    this.controls.replaceChildren(order.element, this.turn);
    const which = select({
      label: "filter",
      options: [["", "show all"], ...named],
      value: filter?.key ?? "",
      title: "Keep only the heads on one side of a threshold",
      onchange: (key) => this.#startFilter(key),
    });
    this.which = which;
    this.side = segmented({
      label: "Which side of the threshold",
      options: [
        [">=", "≥", "at least"],
        ["<=", "≤", "at most"],
      ],
      value: filter?.op ?? ">=",
      onchange: (op) => this.store.change({ filter: { ...this.store.view.filter, op } }),
    });
    this.slider = h("input.as-slider", {
      type: "range",
      "aria-label": "threshold",
      oninput: () =>
        this.store.change({ filter: { ...this.store.view.filter, value: digits(Number(this.slider.value)) } }),
    });
    this.amount = h("output.as-amount");
    this.filterRow.replaceChildren(which.element, this.side.element, this.slider, this.amount);
  }

  #startFilter(key) {
    if (!key) return this.store.change({ filter: null });
    const [low, high] = rangeOf(key, this.heads, this.diagnostics);
    const op = this.store.view.filter?.op ?? ">=";
    return this.store.change({ filter: { key, op, value: digits((low + high) / 2) } });
  }

  #showControls() {
    if (!this.diagnostics) return;
    const { sort, filter } = this.store.view;
    this.order.set(sort?.key ?? "");
    this.turn.hidden = !sort;
    this.turn.textContent = sort?.descending === false ? "↑" : "↓";
    this.turn.setAttribute("aria-label", sort?.descending === false ? "lowest first" : "highest first");
    this.which.set(filter?.key ?? "");
    for (const part of [this.side.element, this.slider, this.amount]) part.hidden = !filter;
    if (!filter) return;
    const [low, high] = rangeOf(filter.key, this.heads, this.diagnostics);
    this.side.set(filter.op);
    Object.assign(this.slider, { min: low, max: high, step: (high - low) / 200 || 1 });
    this.slider.value = String(filter.value);
    const unit = this.diagnostics.keys.find(({ key }) => key === filter.key)?.unit ?? "";
    this.amount.textContent = measure(filter.value, unit);
  }

  draw() {
    if (!this.pictures) return;
    this.#showControls();
    const { view } = this.store;
    const width = this.frame.clientWidth || 320;
    this.arrangement = arrange({ heads: this.heads, width, view, diagnostics: this.diagnostics });
    const { cell, places, height, captions } = this.arrangement;
    const context = sharp(this.canvas, this.arrangement.width, height);
    const theme = this.theme();
    this.sprite ??= this.#paintSprite();
    context.font = `10px ${getComputedStyle(this.element).fontFamily}`;
    context.textAlign = "center";
    if (!captions) this.#labels(context, theme);
    const [columns, rows] = this.size;
    for (const { head, x, y, faded } of places) {
      context.globalAlpha = faded ? 0.14 : 1;
      context.fillStyle = theme.mask;
      context.fillRect(x, y, cell, cell);
      const from = [head.head * columns, head.layer * rows, columns, rows];
      context.drawImage(this.sprite, ...from, x, y, cell, cell);
      if (captions) {
        context.fillStyle = theme.muted;
        context.fillText(`${layerName(this.summary, head.layer)}.${head.head}`, x + cell / 2, y + cell + CAPTION - 3);
      }
    }
    context.globalAlpha = 1;
    this.#outline(context, view, theme.accent, []);
    if (view.compare?.kind === "head") this.#outline(context, view.compare, theme.text, [3, 2]);
    this.#describe();
  }

  #outline(context, { layer, head }, colour, dash) {
    const { cell, places } = this.arrangement;
    const place = places.find((p) => p.head.layer === layer && p.head.head === head);
    if (!place) return;
    context.strokeStyle = colour;
    context.lineWidth = 2;
    context.setLineDash(dash);
    context.strokeRect(place.x - 1, place.y - 1, cell + 2, cell + 2);
    context.setLineDash([]);
  }

  #labels(context, theme) {
    const { cell, places, top } = this.arrangement;
    context.fillStyle = theme.muted;
    const everyColumn = Math.ceil(16 / (cell + 3));
    const everyRow = Math.ceil(12 / (cell + 3));
    const groups = new Map();
    for (const { head, x, y } of places) {
      if (head.layer === 0 && head.head % everyColumn === 0) context.fillText(head.head, x + cell / 2, top - 4);
      if (head.head === 0 && head.layer % everyRow === 0)
        context.fillText(layerName(this.summary, head.layer), 8, y + cell / 2 + 3.5);
      if (head.layer > 0) continue;
      const known = groups.get(head.kv) ?? [x, x];
      groups.set(head.kv, [known[0], x + cell]);
    }
    if (top < 20) return;
    context.strokeStyle = theme.line;
    context.lineWidth = 1;
    for (const [kv, [from, to]] of groups) {
      const name = to - from > 34 ? `kv ${kv}` : String(kv);
      context.fillText(name, (from + to) / 2, 9);
      context.beginPath();
      context.moveTo(from, 13.5);
      context.lineTo(to, 13.5);
      context.stroke();
    }
  }

  /** All pictures side by side at their own size, coloured once. */
  #paintSprite() {
    const { codes, shape } = this.pictures;
    const [layers, heads, rows, columns] = shape;
    this.size = [columns, rows];
    const canvas = document.createElement("canvas");
    canvas.width = heads * columns;
    canvas.height = layers * rows;
    const context = canvas.getContext("2d");
    const image = context.createImageData(canvas.width, canvas.height);
    const pixels = new Uint32Array(image.data.buffer);
    const packed = this.#packed();
    for (let place = 0; place < codes.length; place += 1) {
      const x = place % columns;
      const y = Math.floor(place / columns) % rows;
      const head = Math.floor(place / (rows * columns)) % heads;
      const layer = Math.floor(place / (rows * columns * heads));
      pixels[(layer * rows + y) * canvas.width + head * columns + x] = packed[codes[place]];
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }

  /** Code to pixel, by the same rule as the large map on its logarithmic scale. */
  #packed() {
    const colours = palette("sequential", this.theme().dark);
    const { lo, hi, scale } = this.pictures;
    const values = decode(Uint8Array.from({ length: 256 }, (_, code) => code).buffer, {
      encoding: "u8",
      lo,
      hi,
      scale,
    });
    const [, keys] = lengths(this.summary, this.store.view.sequence);
    const { shares } = shade(values, { rows: 1, cols: 256, scale: "log", reading: "weight", keys });
    const packed = new Uint32Array(256);
    for (let code = 0; code < 255; code += 1) {
      const [red, green, blue] = colours[Math.round(Math.min(1, shares[code]) * 255)];
      packed[code] = (255 << 24) | (blue << 16) | (green << 8) | red;
    }
    return packed;
  }

  #describe() {
    const { layer, head, filter, sort } = this.store.view;
    const layers = this.summary.layers.length;
    const most = Math.max(...this.summary.layers.map(({ heads }) => heads));
    const shown = this.arrangement.places.filter(({ faded }) => !faded).length;
    const order = sort ? `sorted by ${this.#title(sort.key)}` : "layer ↓ head →";
    const kept = filter ? `, ${shown} of ${this.heads.length} heads pass` : "";
    this.note.textContent = `${order}${kept}; click or arrow keys open a head, shift-click compares`;
    const open = `layer ${layerName(this.summary, layer)}, head ${head}`;
    const text = `${layers} layers of ${most} heads, each a small attention map; outlined: ${open}`;
    this.canvas.setAttribute("aria-label", `${text}${kept}`);
    this.frame.setAttribute("aria-label", "All heads. Arrow keys open a head.");
  }

  #title(key) {
    return inSentence(this.diagnostics?.keys.find((each) => each.key === key)?.title ?? key);
  }

  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    return this.arrangement ? placeAt(this.arrangement, event.clientX - box.left, event.clientY - box.top) : null;
  }

  #hover(event) {
    const place = this.#at(event);
    this.frame.style.cursor = place && !place.faded ? "pointer" : "";
    if (!place) return this.tip.hide();
    const { layer, head, kv } = place.head;
    const rows = (this.diagnostics?.keys ?? []).map(({ key, title, unit }) => [
      title,
      measure(valueOf(this.diagnostics, key, place.head), unit),
    ]);
    return this.tip.show(event, `Layer ${layerName(this.summary, layer)}, head ${head} · kv ${kv}`, rows);
  }

  #click(event) {
    const place = this.#at(event);
    if (!place || place.faded) return;
    const { layer, head } = place.head;
    if (event.shiftKey) this.store.change({ compare: { kind: "head", layer, head } });
    else this.store.change({ layer, head });
  }

  #key(event) {
    if (!event.key.startsWith("Arrow") || !this.arrangement) return;
    event.preventDefault();
    const next = neighbour(this.arrangement, this.store.view, event.key);
    if (next) this.store.change({ layer: next.layer, head: next.head });
  }
}
