/** The two axes of a map: tokens where there is room for them, positions where there is not. Plain text elements. */

import { h } from "./dom.js";
import { count, label } from "./text.js";

export const MARGIN = Object.freeze({ left: 66, right: 2, top: 2, bottom: 54 });
const ROOM = 8; // pixels a token needs
const STEPS = [1, 2, 5];

export class Axes {
  constructor() {
    this.queries = h("div.as-axis.as-axis-q");
    this.keys = h("div.as-axis.as-axis-k");
    this.queryTitle = h("span.as-axis-title.as-axis-title-q", { text: "query ↓" });
    this.keyTitle = h("span.as-axis-title.as-axis-title-k", { text: "key →" });
    this.element = h("div.as-axes", { "aria-hidden": "true" });
    this.element.append(this.queries, this.keys, this.queryTitle, this.keyTitle);
  }

  /** @param {{queryTokens: string[], keyTokens: string[]}} tokens */
  setTokens({ queryTokens, keyTokens }) {
    this.tokens = { queries: queryTokens, keys: keyTokens };
  }

  /** @param {{x: [number, number], y: [number, number]}} range @param {[number, number]} area */
  draw(range, [width, height]) {
    fill(this.queries, this.tokens.queries, range.y[1], range.y[0], height, "top");
    fill(this.keys, this.tokens.keys, range.x[0], range.x[1], width, "left");
    Object.assign(this.queries.style, { top: `${MARGIN.top}px`, width: `${MARGIN.left - 6}px`, height: `${height}px` });
    Object.assign(this.keys.style, {
      left: `${MARGIN.left}px`,
      top: `${MARGIN.top + height + 5}px`,
      width: `${width}px`,
    });
  }
}

/** Labels of one axis, reusing the elements of the last drawing. */
function fill(axis, tokens, low, high, pixels, side) {
  const per = pixels / (high - low);
  const first = Math.max(0, Math.ceil(low));
  const last = Math.min(tokens.length - 1, Math.floor(high));
  const near = per >= ROOM;
  const step = near ? 1 : niceStep(46 / per);
  axis.classList.toggle("as-near", near);
  axis.style.fontSize = near ? `${Math.max(8.5, Math.min(10.5, per))}px` : "";
  let used = 0;
  for (let at = near ? first : Math.ceil(first / step) * step; at <= last; at += step) {
    const tick = axis.children[used] ?? axis.appendChild(h("bdi"));
    used += 1;
    tick.textContent = near ? label(tokens[at]) : count(at);
    tick.style[side] = `${(at - low) * per}px`;
  }
  while (axis.children.length > used) axis.lastChild.remove();
}

/** The next of 1, 2, 5, 10, 20, 50, ... not under `wanted`. */
export function niceStep(wanted) {
  let ten = 1;
  for (;;) {
    for (const step of STEPS) if (step * ten >= wanted) return step * ten;
    ten *= 10;
  }
}
