/** The tokens a token attends to most, or that attend to it most, with their weights. */

import { h } from "./dom.js";
import { count, weight } from "./text.js";

const SHADING = "Shade and underline grow with the square root of the weight; the strongest is the largest in the list";

/** @typedef {{name: string, position: number, value: number}} Entry */

export class TopList {
  constructor() {
    this.list = h("ol.as-top");
    this.subject = h("p.as-note", { title: SHADING });
    this.element = h("div.as-top-frame", {}, this.subject, this.list);
  }

  /**
   * @param {{name: string, position: number}} subject @param {Entry[]} entries Largest first.
   * @param {{direction: string, whole: boolean}} how `whole`: every token was looked at, not only those shown.
   */
  show({ name, position }, entries, { direction, whole }) {
    const words = direction === "pays" ? "attends to" : "is attended to by";
    const where = whole ? "" : " (in the text shown)";
    this.subject.replaceChildren(h("bdi.as-token", { text: name }), ` ${count(position)} ${words}${where}`);
    const most = entries.length ? entries[0].value : 1;
    this.list.replaceChildren(...entries.map((entry) => this.#row(entry, most)));
    this.words = entries
      .slice(0, 3)
      .map((entry) => `${entry.name} ${weight(entry.value)}`)
      .join(", ");
  }

  /** Says why there is nothing to list. */
  fail(message) {
    this.subject.textContent = message;
    this.list.replaceChildren();
  }

  #row({ name, position, value }, most) {
    const token = h("bdi.as-token", { text: name });
    const row = h("li", {}, token, h("i", { text: count(position) }), h("b", { text: weight(value) }));
    row.style.setProperty("--share", String(value / most));
    return row;
  }
}
