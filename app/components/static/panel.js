/** What is known about the open head: its diagnostics, and where each ranks among all heads. */

import { headsOf, rangeOf, rankOf, valueOf } from "./arrange.js";
import { h, sharp } from "./dom.js";
import { skeleton } from "./states.js";
import { count, inSentence, measure } from "./text.js";

const STRIP = [40, 11];

export class Panel {
  /** @param {{theme: () => object}} parts */
  constructor({ store, theme }) {
    Object.assign(this, { store, theme });
    this.list = h("dl.as-diagnostics");
    this.note = h("p.as-note");
    this.facts = h("dl.as-facts");
    this.ranks = h("span.as-note", { title: "Where this head stands among all heads; 1 is the highest value" });
    this.element = h("section.as-panel", { "aria-label": "This head" });
    this.element.append(h("div.as-head", {}, h("h2", { text: "This head" }), this.ranks), this.list, this.note, this.facts);
  }

  setCapture(summary, diagnostics) {
    this.summary = summary;
    this.heads = headsOf(summary);
    this.ranks.textContent = `rank of ${count(this.heads.length)}`;
    this.diagnostics = diagnostics;
    this.note.textContent = diagnostics?.note ?? "";
  }

  update() {
    if (!this.summary) return;
    const head = { layer: this.store.view.layer, head: this.store.view.head };
    if (!this.diagnostics) this.list.replaceChildren(skeleton("Reading the diagnostics", 6));
    else this.list.replaceChildren(...(this.diagnostics?.keys ?? []).map((key) => this.#row(key, head)));
    this.#showFacts(head);
  }

  /** The most telling diagnostics of a head, in words. */
  describe({ layer, head }) {
    if (!this.diagnostics) return [];
    const ranked = this.diagnostics.keys
      .map((key) => ({ ...key, rank: this.#rank(key.key, { layer, head }) }))
      .filter(({ rank }) => rank !== null)
      .sort((a, b) => a.rank - b.rank);
    return ranked
      .slice(0, 2)
      .map(
        ({ key, title, unit }) =>
          `${inSentence(title)} ${measure(valueOf(this.diagnostics, key, { layer, head }), unit)}`,
      );
  }

  /** The rank of a head where the diagnostic tells heads apart. */
  #rank(key, head) {
    const [low, high] = rangeOf(key, this.heads, this.diagnostics);
    return low < high ? rankOf(head, key, this.heads, this.diagnostics) : null;
  }

  #row({ key, title, unit, explanation, source }, head) {
    const value = measure(valueOf(this.diagnostics, key, head), unit);
    const rank = this.#rank(key, head);
    const place =
      rank === null ? "no rank: undefined here, or the same everywhere" : `rank ${rank} of ${this.heads.length}`;
    const canvas = h("canvas", { role: "img", "aria-label": place });
    const words = [explanation, source ? `Source: ${source}.` : "", rank === null ? "" : `${place}, 1 the highest.`]
      .filter(Boolean)
      .join(" ");
    const row = h("div", { title: words, "aria-description": words, tabindex: "0" });
    row.append(
      h("dt", { text: title }),
      h("dd.as-value", { text: value }),
      h("dd.as-rank", {}, canvas, h("small", { text: rank === null ? "" : `${rank}` })),
    );
    this.#spread(canvas, key, head);
    return row;
  }

  /** Every head a faint tick, this one a strong one. */
  #spread(canvas, key, head) {
    const [width, height] = STRIP;
    const context = sharp(canvas, width, height);
    const theme = this.theme();
    const [low, high] = rangeOf(key, this.heads, this.diagnostics);
    const at = (value) => 1 + ((value - low) / (high - low || 1)) * (width - 3);
    context.fillStyle = theme.muted;
    context.globalAlpha = 0.35;
    for (const other of this.heads) {
      const value = valueOf(this.diagnostics, key, other);
      if (!Number.isNaN(value)) context.fillRect(at(value), 3, 1, height - 6);
    }
    context.globalAlpha = 1;
    context.fillStyle = theme.accent;
    const own = valueOf(this.diagnostics, key, head);
    if (!Number.isNaN(own)) context.fillRect(at(own) - 0.5, 0, 2.5, height);
  }

  #showFacts({ layer, head }) {
    const shape = this.summary.layers[layer];
    const kv = this.heads.find((each) => each.layer === layer && each.head === head).kv;
    const rule = shape.pattern?.title ?? shape.pattern?.key ?? "";
    const parameters = Object.entries(shape.pattern?.parameters ?? {}).map(([name, value]) => `${name} ${value}`);
    const facts = [
      ["mask", [rule, ...parameters].filter(Boolean).join(", ")],
      ["kv head", `${kv} of ${count(shape.kv_heads)}`],
      ["head dimension", count(shape.head_dim)],
      shape.softcap ? ["softcap", String(shape.softcap)] : null,
      shape.sinks ? ["learned sink", "yes"] : null,
    ];
    this.facts.replaceChildren(
      ...facts
        .filter(Boolean)
        .map(([name, value]) => h("div", {}, h("dt", { text: name }), h("dd.as-value", { text: value }))),
    );
  }
}
