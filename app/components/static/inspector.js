/** The Inspect page's viewer: mounts once an element, follows the data Python gives, reports what the visitor does. */

import { headsOf, mostTelling } from "./arrange.js";
import { Capture, isAbort } from "./capture.js";
import { h } from "./dom.js";
import { MapView } from "./mapview.js";
import { Overview, pictureSize } from "./overview.js";
import { loadPlotly } from "./pane.js";
import { Panel } from "./panel.js";
import { empty, failure, skeleton } from "./states.js";
import { Store } from "./store.js";
import { followTheme, readTheme } from "./theme.js";
import { Tip } from "./tip.js";
import { Tokens } from "./tokens.js";
import { layerName } from "./view.js";

const FIND_HEAD_WITHIN = 800;
const PAIRS_AT_A_GLANCE = 1e8; // more take longer to diagnose, unless that was done before
const COLOURS_ONLY = new Set(["scale"]);
const MAP_KEYS = ["layer", "head", "sequence", "reading", "pooling", "region", "compare"];

class Inspector {
  constructor(parent) {
    this.root = h("div.as");
    this.live = h("div.as-live", { "aria-live": "polite", role: "status" });
    this.stage = h("div.as-stage");
    this.root.append(this.live, this.stage);
    parent.append(this.root);
    this.tip = new Tip(this.root);
    this.theme = readTheme(this.root);
    this.unfollow = followTheme(this.root, () => this.recolour());
    this.root.addEventListener("keydown", (event) => this.#key(event));
    this.others = new Map();
    this.id = null;
  }

  /** Takes what Python gives: another capture opens it, another view is shown. */
  receive({ data, setStateValue, setTriggerValue }) {
    const given = data ?? {};
    this.report = (view) => setStateValue("view", { ...view, turn: performance.timeOrigin + performance.now() });
    this.runAgain = () => setTriggerValue("run_again", given.capture_id ?? true);
    this.captures = given.captures ?? [];
    const same = given.capture_id === this.id && given.attention === this.attention;
    if (same) this.parts?.map.offer(this.captures);
    this.recolour();
    if (!same) this.#open(given.capture_id ?? null, given.view ?? null, given.attention);
    else if (this.store) this.store.receive(given.view ?? null);
    this.store?.reportTo(this.report);
  }

  recolour() {
    const theme = readTheme(this.root);
    const same = JSON.stringify(theme) === JSON.stringify(this.theme);
    this.theme = theme;
    this.root.classList.toggle("as-dark", theme.dark);
    if (same || !this.parts) return;
    this.parts.overview.recolour();
    this.parts.map.repaint();
    this.parts.panel.update();
  }

  close() {
    this.control?.abort();
    this.unfollow();
    this.#closeParts();
    this.root.remove();
  }

  #closeParts() {
    this.store?.close();
    this.parts?.overview.destroy();
    this.parts?.map.destroy();
    this.parts = null;
    this.store = null;
    this.tip.hide();
  }

  async #open(id, wanted, attention) {
    this.control?.abort();
    const before = attention === this.attention ? (this.store?.view ?? null) : null;
    this.#closeParts();
    this.id = id;
    this.attention = attention;
    this.others.clear();
    if (!id) return this.stage.replaceChildren(empty());
    const control = new AbortController();
    this.control = control;
    this.stage.replaceChildren(skeleton("Reading the capture", 9));
    try {
      const capture = new Capture(id, attention);
      // The chart library is large: the map waits for it, the text and the overview do not.
      loadPlotly().catch(() => {});
      const summary = await capture.summary(control.signal);
      if (!control.signal.aborted) await this.#show(capture, summary, withHeadOf(before, wanted));
    } catch (error) {
      if (isAbort(error) || control.signal.aborted) return undefined;
      const retry = () => this.#open(id, wanted, attention);
      this.stage.replaceChildren(failure(error, { retry, runAgain: () => this.runAgain() }));
    }
    return undefined;
  }

  /** Until the head is known, everything that needs none of it is read already. */
  async #show(capture, summary, wanted) {
    const onchange = (view, changed) => this.#changed(changed);
    this.store = new Store({ summary, wanted, onchange });
    this.store.reportTo(this.report);
    const shared = {
      store: this.store,
      tip: this.tip,
      theme: () => this.theme,
      announce: (text) => this.announce(text),
    };
    const panel = new Panel(shared);
    const isOpen = (side) => side.capture === capture && side.sequence === this.store.view.sequence;
    const map = new MapView({
      ...shared,
      openCapture: (other) => this.#openOther(other),
      facts: (side) => (isOpen(side) ? panel.describe(side) : []),
      onpoint: (point) => this.parts?.tokens.point(point),
      runAgain: () => this.runAgain(),
    });
    const tokens = new Tokens({ ...shared, onpoint: (at) => this.parts?.map.mark(at) });
    const overview = new Overview(shared);
    this.parts = { panel, map, tokens, overview };
    this.capture = capture;
    this.summary = summary;
    this.stage.replaceChildren(tokens.element, h("div.as-main", {}, overview.element, map.element, panel.element));
    tokens.setCapture(capture, summary);
    map.setCapture(capture, summary, this.captures);
    tokens.showText();
    const diagnostics = this.#readModel();
    if (!namesHead(wanted)) await this.#chooseHead(diagnostics);
    if (this.parts?.map !== map) return;
    map.update();
    tokens.update();
    panel.update();
    overview.draw();
    this.#comparing();
  }

  /** Opens the head that says most, unless finding it takes longer than a glance or the visitor was quicker. */
  async #chooseHead(read) {
    const { store, summary } = this;
    const { view } = store;
    const heads = headsOf(summary);
    const { query_length: queries, key_length: keys } = summary.layers[0];
    const within = heads.length * queries * keys > PAIRS_AT_A_GLANCE ? FIND_HEAD_WITHIN / 8 : FIND_HEAD_WITHIN;
    const late = new Promise((resolve) => setTimeout(resolve, within, null));
    const diagnostics = await Promise.race([read, late]);
    if (diagnostics && store.view === view) store.open(mostTelling(heads, diagnostics));
  }

  /** The pictures and the diagnostics of every head of the open prompt; the latter once read, null if they fail. */
  #readModel() {
    const { capture, summary, parts } = this;
    const { sequence } = this.store.view;
    this.reading?.abort();
    this.reading = new AbortController();
    const signal = AbortSignal.any([this.control.signal, this.reading.signal]);
    // What the prompt before showed must not stand beside the new one's map.
    parts.panel.setCapture(summary, null);
    const heads = summary.layers.reduce((sum, layer) => sum + layer.heads, 0);
    parts.overview.wait();
    const pictures = capture.overview(sequence, pictureSize(heads), signal).then((read) => {
      if (!signal.aborted && this.parts === parts) parts.overview.setPictures(summary, read);
    });
    const diagnostics = capture.diagnostics(sequence, signal).then((read) => {
      if (signal.aborted || this.parts !== parts) return null;
      this.diagnostics = read;
      panelWith(parts, summary, read);
      return read;
    });
    for (const part of ["overview", "panel"]) parts[part].element.querySelector(".as-notice")?.remove();
    for (const [part, work] of [
      ["overview", pictures],
      ["panel", diagnostics],
    ]) {
      work.catch((error) => {
        if (isAbort(error) || signal.aborted) return;
        const retry = () => this.#readModel();
        parts[part].element.append(failure(error, { retry, runAgain: () => this.runAgain() }));
      });
    }
    return diagnostics.catch(() => null);
  }

  #changed(changed) {
    const { panel, map, tokens, overview } = this.parts;
    const touches = (...keys) => keys.some((key) => changed.has(key));
    if (touches(...MAP_KEYS)) map.update();
    else if ([...changed].some((key) => COLOURS_ONLY.has(key))) {
      map.update();
      map.repaint();
    }
    if (touches("layer", "head", "sequence", "reading", "pinned", "direction", "merged", "hide_special"))
      tokens.update();
    if (touches("layer", "head", "sort", "filter", "compare")) overview.draw();
    if (touches("layer", "head")) this.#announceHead(panel);
    if (touches("sequence")) this.#readModel();
    this.#comparing();
  }

  #announceHead(panel) {
    panel.update();
    const { layer, head } = this.store.view;
    this.announce(
      [`Layer ${layerName(this.summary, layer)}, head ${head}`, ...panel.describe({ layer, head })].join(", "),
    );
  }

  #comparing() {
    this.root.classList.toggle("as-compares", Boolean(this.store.view.compare));
  }

  async #openOther(id) {
    if (!this.others.has(id)) {
      const capture = new Capture(id, this.attention);
      this.others.set(id, { capture, summary: await capture.summary() });
    }
    return this.others.get(id);
  }

  announce(text) {
    this.live.textContent = text;
  }

  #key(event) {
    if (event.key === "Escape" && this.store?.view.region) this.store.change({ region: null });
  }
}

const namesHead = (view) => Number.isInteger(view?.layer) || Number.isInteger(view?.head);

/** A view that names no head keeps the one before. */
function withHeadOf(before, wanted) {
  return before && !namesHead(wanted) ? { ...wanted, layer: before.layer, head: before.head } : wanted;
}

function panelWith(parts, summary, diagnostics) {
  parts.overview.setDiagnostics(diagnostics);
  parts.panel.setCapture(summary, diagnostics);
  parts.panel.update();
  parts.map.repaint();
}

/** @type {WeakMap<object, Inspector>} */
const mounted = new WeakMap();

/**
 * What Streamlit calls at every mount and every change of data or theme.
 * @param {{data: object, parentElement: HTMLElement, setStateValue: Function, setTriggerValue: Function}} component
 * @returns {() => void} Ends this viewer.
 */
export default function mount(component) {
  const { parentElement } = component;
  if (!mounted.has(parentElement)) mounted.set(parentElement, new Inspector(parentElement));
  const inspector = mounted.get(parentElement);
  inspector.receive(component);
  return () => {
    inspector.close();
    mounted.delete(parentElement);
  };
}
