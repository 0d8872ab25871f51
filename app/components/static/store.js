/** The view as it is now: parts change it, parts are told, and Python hears of it once things are quiet. */

import { debounce } from "./dom.js";
import { canonical, checked } from "./view.js";

const REPORT_AFTER = 400;
const REMEMBERED = 24;

export class Store {
  /** @param {{summary: object, wanted: object | null, onchange: (view: object, changed: Set<string>) => void}} parts */
  constructor({ summary, wanted, onchange }) {
    this.summary = summary;
    this.onchange = onchange;
    this.view = checked(wanted, summary);
    this.known = [canonical(this.view), canonical(wanted)];
    this.reportSoon = debounce(() => this.#report(), REPORT_AFTER);
  }

  /** Changes some of the view. @param {object} patch */
  change(patch) {
    if (this.#apply({ ...this.view, ...patch })) this.reportSoon();
  }

  /** A view from Python: taken unless it is only the echo of one that was reported. */
  receive(wanted) {
    const text = canonical(wanted);
    if (!wanted || this.known.includes(text)) return;
    this.#remember(text);
    this.#apply(wanted);
    this.#remember(canonical(this.view));
  }

  /** Where changes are reported to; the newest mount's. */
  reportTo(report) {
    this.report = report;
  }

  close() {
    this.reportSoon.cancel();
  }

  #apply(wanted) {
    const next = checked(wanted, this.summary);
    const changed = new Set(Object.keys(next).filter((key) => canonical(next[key]) !== canonical(this.view[key])));
    this.view = next;
    if (changed.size) this.onchange(next, changed);
    return changed.size > 0;
  }

  #report() {
    const text = canonical(this.view);
    if (text === this.known.at(-1)) return;
    this.#remember(text);
    this.report?.(this.view);
  }

  #remember(text) {
    this.known.push(text);
    if (this.known.length > REMEMBERED) this.known.shift();
  }
}
