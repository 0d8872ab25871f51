/** A generation, while tokens come and after: its text, what a token looked at, every head's share, the cache. */

import { button, debounce, h, select } from "./dom.js";
import { CacheChart } from "./generation_cache.js";
import { HeadsGrid } from "./generation_heads.js";
import { loadPlotly } from "./pane.js";
import { count, label, weight } from "./text.js";
import { followTheme, readTheme } from "./theme.js";
import { TokenText } from "./tokentext.js";
import { TopList } from "./toplist.js";

const EVERY = 180;
const EVERY_UNREACHED = 1000;
const REPORT_AFTER = 600;
const TOP = 5;
const KINDS = { self: "own text", decoder: "own text", cross: "source" };

class Generation {
  constructor(parent) {
    this.source = this.#text("The source", () => {});
    this.text = this.#text("The prompt and what was said after it", (place) => this.#pick(place));
    this.sourceRow = h("div.as-named", { hidden: true }, h("p.as-side", { text: "Source" }), this.source.element);
    this.slider = h("input", { type: "range", min: 0, max: 0, step: 1, "aria-label": "The token looked at" });
    this.slider.addEventListener("input", () => this.#look({ step: Number(this.slider.value) }));
    this.newest = button("Newest", () => this.#look({ step: null }), { title: "Follow the newest token" });
    this.where = h("span.as-note", { role: "status" });
    this.choices = h("div.as-bar");
    this.bar = h("div.as-head.as-gen-bar", {}, h("div.as-bar", {}, this.newest, this.slider, this.where), this.choices);
    this.top = new TopList();
    this.likely = h("ol.as-top");
    this.taken = h("p.as-note");
    this.grid = new HeadsGrid((chosen) => this.#look(chosen));
    this.cache = new CacheChart();
    const side = h(
      "div.as-gen-side",
      {},
      h("section", {}, h("h2", { text: "It looked at" }), this.top.element),
      h("section", {}, h("h2", { text: "It could have been" }), this.taken, this.likely),
      this.cache.element,
    );
    const about = h("p.as-note", { text: "Rows of the token read last, from whose query the chosen one was said" });
    const heads = h("section.as-gen-heads", {}, h("h2", { text: "Where every head looked" }), about, this.grid.element);
    const strip = h("div.as-strip", {}, this.bar, this.sourceRow, this.text.element);
    this.element = h("div.as.as-generation", {}, strip, h("div.as-gen-body", {}, heads, side));
    parent.append(this.element);
    this.unfollow = followTheme(this.element, () => this.#recolour());
    this.reportSoon = debounce(() => this.report({ ...this.view }), REPORT_AFTER);
    this.#recolour();
  }

  #text(name, onpick) {
    return new TokenText({ name, onhover: () => {}, onpick, onkey: (event) => this.#key(event), onwindow: () => {} });
  }

  /** Takes what Python gives: another generation is followed from its start; a view that Python changed is shown. */
  receive({ data, setStateValue }) {
    this.report = (view) => setStateValue("view", { ...view, turn: performance.timeOrigin + performance.now() });
    this.titles = data.parts;
    this.over = data.over;
    const given = JSON.stringify(data.view);
    if (data.generation !== this.id) {
      this.id = data.generation;
      this.view = { ...data.view };
      this.#begin();
      this.#follow(data.generation);
    } else if (given !== this.given && given !== JSON.stringify(this.view)) {
      this.view = { ...data.view };
      this.#draw();
    }
    this.given = given;
  }

  close() {
    this.id = null;
    this.reportSoon.cancel();
    this.unfollow();
    this.cache.close();
    this.element.remove();
  }

  #recolour() {
    const theme = readTheme(this.element);
    this.element.classList.toggle("as-dark", theme.dark);
    this.cache.recolour(theme);
  }

  #begin() {
    this.facts = null;
    this.steps = [];
    this.rows = new Map();
    this.cache.element.hidden = true;
    this.choices.replaceChildren();
  }

  async #follow(id) {
    let after = 0;
    while (this.id === id) {
      const told = await read(`/attnscope/generations/${encodeURIComponent(id)}?after=${after}`);
      if (this.id !== id) return;
      if (told) {
        if (told.facts && !this.facts) this.#open(told);
        after = told.next;
        this.steps.push(...told.steps);
        if (told.steps.length) this.#grown();
        if (told.ended || (this.over && !told.steps.length)) {
          this.cache.element.hidden = true;
          return;
        }
      }
      await new Promise((done) => setTimeout(done, told ? EVERY : EVERY_UNREACHED));
    }
  }

  #open({ facts, asked }) {
    this.facts = facts;
    this.asked = asked;
    const { source } = facts;
    this.sourceRow.hidden = !source;
    if (source) this.source.build({ ...source, words: null }, { merged: false, at: 0 });
  }

  /** More was said. */
  #grown() {
    const tokens = [...this.facts.tokens, ...this.steps.map((step) => step.text)];
    this.text.build({ tokens, words: null, marks: this.facts.marks }, { merged: false, at: tokens.length - 1 });
    const said = tokens.map((_, place) => place).slice(this.facts.tokens.length);
    this.text.classify("as-said", said);
    this.slider.max = this.steps.length - 1;
    this.slider.disabled = this.steps.length < 2;
    if (!this.over) {
      this.cache.element.hidden = false;
      loadPlotly().then(() => this.cache.draw(this.steps, this.facts.predicted), () => {});
    }
    this.#draw();
  }

  get #attention() {
    const kinds = Object.keys(this.steps[0].shares);
    return kinds.includes(this.view.attention) ? this.view.attention : kinds[0];
  }

  get #layers() {
    return this.steps[0].shares[this.#attention].length;
  }

  get #layer() {
    return Math.min(this.view.layer ?? this.#layers - 1, this.#layers - 1);
  }

  get #head() {
    const heads = this.steps[0].shares[this.#attention][this.#layer].length;
    return this.view.head === null || this.view.head === undefined ? null : Math.min(this.view.head, heads - 1);
  }

  get #step() {
    const last = this.steps.length - 1;
    return this.view.step === null || this.view.step === undefined ? last : Math.min(this.view.step, last);
  }

  #look(change) {
    this.view = { ...this.view, ...change };
    this.#draw();
    this.reportSoon();
  }

  #pick(place) {
    const step = place - this.facts.tokens.length;
    if (step >= 0) this.#look({ step });
  }

  #key(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move || !this.steps.length) return;
    event.preventDefault();
    this.#look({ step: Math.max(0, Math.min(this.steps.length - 1, this.#step + move)) });
  }

  #draw() {
    if (!this.steps.length) return;
    const step = this.steps[this.#step];
    this.slider.value = this.#step;
    this.newest.setAttribute("aria-pressed", String(this.view.step === null));
    this.where.textContent = `token ${count(step.number + 1)} of ${count(this.steps.length)} said`;
    this.#choose();
    const parts = this.facts.parts[this.#attention];
    const chosen = { layer: this.#layer, head: this.#head };
    this.grid.draw(step.shares[this.#attention], parts.map((part) => [part, this.titles[part]]), chosen);
    this.#likelihoods(step);
    this.text.classify("as-subject", [this.facts.tokens.length + step.number]);
    this.text.reveal(this.facts.tokens.length + step.number);
    this.#light(step);
  }

  /** The drop-downs; made anew only when what they offer changes. */
  #choose() {
    const heads = this.steps[0].shares[this.#attention][this.#layer].length;
    const offered = `${this.#attention} ${this.#layers} ${heads}`;
    if (offered !== this.offered || !this.choices.children.length) {
      this.offered = offered;
      const kinds = Object.keys(this.steps[0].shares);
      this.kind = select({
        label: "Looks at",
        options: kinds.map((kind) => [kind, KINDS[kind]]),
        value: this.#attention,
        onchange: (attention) => this.#look({ attention, layer: null, head: null }),
      });
      this.layerChoice = select({
        label: "Layer",
        options: numbered(this.#layers),
        value: String(this.#layer),
        onchange: (layer) => this.#look({ layer: Number(layer) }),
      });
      this.headChoice = select({
        label: "Head",
        options: [["mean", "mean of all"], ...numbered(heads)],
        value: "mean",
        onchange: (head) => this.#look({ layer: this.#layer, head: head === "mean" ? null : Number(head) }),
      });
      const fields = [this.layerChoice.element, this.headChoice.element];
      this.choices.replaceChildren(...(kinds.length > 1 ? [this.kind.element] : []), ...fields);
    }
    this.layerChoice.set(String(this.#layer));
    this.headChoice.set(this.#head === null ? "mean" : String(this.#head));
  }

  #likelihoods(step) {
    const drawn = step.chance < 1 ? `; it was drawn with ${percent(step.chance)}` : "";
    this.taken.replaceChildren(
      h("bdi.as-token", { text: label(step.text) }),
      ` has ${percent(step.probability)} of the model's next-token probability${drawn}`,
    );
    const most = step.alternatives[0][1];
    this.likely.replaceChildren(
      ...step.alternatives.map(([text, probability]) => {
        const row = h("li", {}, h("bdi.as-token", { text: label(text) }), h("i"), h("b", { text: weight(probability) }));
        row.style.setProperty("--share", String(probability / most));
        row.classList.toggle("as-taken", text === step.text);
        return row;
      }),
    );
  }

  async #light(step) {
    const [attention, layer, head] = [this.#attention, this.#layer, this.#head];
    const key = `${attention} ${layer} ${head} ${step.number}`;
    this.wanted = key;
    if (!this.rows.has(key)) {
      const named = new URLSearchParams({ query: step.query, layer, attention, worker: this.facts.worker });
      if (head !== null) named.set("head", head);
      const found = await readRow(`/attnscope/generations/${encodeURIComponent(this.id)}/row?${named}`);
      if (this.wanted !== key) return;
      if (typeof found === "string") {
        this.top.fail(found);
        this.text.shine([], 0);
        return;
      }
      this.rows.set(key, found);
    }
    const row = this.rows.get(key);
    const crosses = attention === "cross";
    const [lit, dark] = crosses ? [this.source, this.text] : [this.text, this.source];
    const most = row.reduce((a, b) => Math.max(a, b), 0);
    lit.shine(row, most);
    if (this.facts.source) dark.shine([], 0);
    const tokens = crosses ? this.facts.source.tokens : lit.tokens;
    const order = [...row.keys()].sort((a, b) => row[b] - row[a]).slice(0, TOP);
    const entries = order.map((at) => ({ name: label(tokens[at]), position: at, value: row[at] }));
    this.top.show({ name: "", position: step.query }, entries, { direction: "pays", whole: true });
    const name = (text) => h("bdi.as-token", { text: label(text) });
    const read = this.text.tokens[step.query];
    this.top.subject.replaceChildren(name(read), ` at ${count(step.query)} was read, then `, name(step.text), " was said");
  }
}

function numbered(number) {
  return Array.from({ length: number }, (_, at) => [String(at), String(at)]);
}

function percent(share) {
  return `${(100 * share).toPrecision(3)} %`;
}

/** Steps after a position; null where the server does not answer, or does not know the generation yet. */
async function read(address) {
  try {
    const answer = await fetch(address, { credentials: "same-origin" });
    return answer.ok ? await answer.json() : null;
  } catch {
    return null;
  }
}

/** A row of weights, or why there is none. */
async function readRow(address) {
  try {
    const answer = await fetch(address, { credentials: "same-origin" });
    if (answer.ok) return new Float32Array(await answer.arrayBuffer());
    const { error, remedy } = await answer.json();
    return `${error} ${remedy}`;
  } catch {
    return "The server does not answer.";
  }
}

/** @type {WeakMap<object, Generation>} */
const mounted = new WeakMap();

/** What Streamlit calls at every mount and every change. @returns {() => void} Ends the following. */
export default function mount(component) {
  const { parentElement } = component;
  if (!mounted.has(parentElement)) mounted.set(parentElement, new Generation(parentElement));
  mounted.get(parentElement).receive(component);
  return () => {
    mounted.get(parentElement)?.close();
    mounted.delete(parentElement);
  };
}
