/** The view as it is now: parts change it, parts are told, and Python hears of it once things are quiet. */

import { debounce } from "./dom.js";
import { canonical, checked } from "./view.js";

const REPORT_AFTER = 800;
const ECHO_WITHIN = 10_000;

export class Store {
  /** @param {{summary: object, wanted: object | null, onchange: (view: object, changed: Set<string>) => void}} parts */
  constructor({ summary, wanted, onchange }) {
    this.summary = summary;
    this.onchange = onchange;
    this.view = checked(wanted, summary);
    this.received = wanted ?? {};
    this.reported = canonical(this.view);
    this.awaited = [];
    this.reportSoon = debounce(() => this.#report(), REPORT_AFTER);
  }

  /** The head the viewer itself opens with; nobody has to be told. @param {{layer: number, head: number}} head */
  open({ layer, head }) {
    this.view = checked({ ...this.view, layer, head }, this.summary);
    this.reported = canonical(this.view);
  }

  /** Changes some of the view. @param {object} patch */
  change(patch) {
    if (this.#apply({ ...this.view, ...patch })) this.reportSoon();
  }

  /**
   * A view from Python. Only what Python itself changed since it last gave one counts, and not what merely comes back
   * after a report: the visitor may have moved on meanwhile.
   */
  receive(wanted) {
    if (!wanted) return;
    if (wanted.layer == null && wanted.head == null) {
      // No head is named: the one that the viewer chose stays.
      wanted = { ...wanted, layer: this.view.layer, head: this.view.head };
    }
    const differs = (key) => canonical(wanted[key]) !== canonical(this.received[key]);
    const changed = Object.keys(wanted).filter(differs);
    this.received = wanted;
    if (!changed.length || this.#isEcho(wanted, changed)) return;
    this.awaited = [];
    const unreported = canonical(this.view) !== this.reported;
    this.#apply({ ...this.view, ...Object.fromEntries(changed.map((key) => [key, wanted[key]])) });
    if (!unreported) this.reported = canonical(this.view);
  }

  /** Where changes are reported to; the newest mount's. */
  reportTo(report) {
    this.report = report;
  }

  close() {
    this.reportSoon.cancel();
  }

  #isEcho(wanted, keys) {
    const now = performance.now();
    this.awaited = this.awaited.filter(({ at }) => now - at < ECHO_WITHIN);
    const same = ({ view }) => keys.every((key) => canonical(view[key]) === canonical(wanted[key]));
    const place = this.awaited.findLastIndex(same);
    this.awaited.splice(0, place + 1);
    return place >= 0;
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
    if (text === this.reported) return;
    this.reported = text;
    this.awaited.push({ view: this.view, at: performance.now() });
    this.report?.(this.view);
  }
}
