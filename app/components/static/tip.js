/** One floating note beside the pointer: rows of a name and a value, as text. */

import { h } from "./dom.js";

export class Tip {
  /** @param {HTMLElement} root The positioned element the note stays inside. */
  constructor(root) {
    this.root = root;
    this.element = h("div.as-tip", { "aria-hidden": "true" });
    this.element.hidden = true;
    root.append(this.element);
  }

  /**
   * @param {{clientX: number, clientY: number}} at
   * @param {string} title
   * @param {[string, string, boolean?][]} rows Name, value, and whether the value is a token's text.
   */
  show(at, title, rows, note = "") {
    const body = rows.flatMap(([name, value, token]) => [
      h("dt", { text: name }),
      h("dd", {}, token ? h("bdi.as-token", { text: value }) : h("span", { text: value })),
    ]);
    this.element.replaceChildren(h("strong", { text: title }), h("dl", {}, ...body));
    if (note) this.element.append(h("p", { text: note }));
    this.element.hidden = false;
    this.#place(at);
  }

  hide() {
    this.element.hidden = true;
  }

  #place({ clientX, clientY }) {
    const frame = this.root.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.element;
    let left = clientX - frame.left + 16;
    if (left + width > frame.width) left = Math.max(0, clientX - frame.left - width - 16);
    let top = clientY - frame.top + 16;
    if (clientY + 16 + height > window.innerHeight) top = clientY - frame.top - height - 12;
    this.element.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
  }
}
