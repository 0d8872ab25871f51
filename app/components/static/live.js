/** A profile while it is measured: its figures now, memory over time, the latency of each run, the cells that are done. */

import { h } from "./dom.js";
import { loadPlotly } from "./pane.js";
import { followTheme, readTheme } from "./theme.js";

const EVERY = 220;
const EVERY_UNREACHED = 1000;
const WINDOW = 120; // seconds that the charts show
const CONFIG = { displayModeBar: false, responsive: true };
const FACTS = [
  ["allocated", "allocated in tensors"],
  ["process", "this process"],
  ["device", "in use, by whoever"],
  ["utilisation", "busy"],
  ["power", "power"],
  ["temperature", "temperature"],
  ["seconds", "last run"],
];
const MEMORY = [
  ["allocated", "allocated in tensors", "#D55E00"],
  ["process", "this process", "#0072B2"],
  ["device", "in use, by whoever", "#8A93A0"],
];

class Live {
  constructor(parent) {
    this.facts = h("dl.as-live-facts");
    this.memory = h("div.as-live-chart", { role: "img" });
    this.runs = h("div.as-live-chart", { role: "img" });
    this.table = h("tbody");
    this.head = h("thead");
    const charts = h(
      "div.as-live-charts",
      {},
      h("figure", {}, h("h2", { text: "Memory" }), this.memory),
      h("figure", {}, h("h2", { text: "Latency of each run" }), this.runs),
    );
    const table = h("table.pg-table", {}, this.head, this.table);
    this.element = h("div.as.as-live-profile", {}, this.facts, charts, h("div.as-live-table", {}, table));
    parent.append(this.element);
    this.stopTheme = followTheme(this.element, () => this.#draw());
  }

  /** Takes what Python gives: another profile is followed from its start. */
  receive({ data }) {
    if (data.profile === this.profile) return;
    this.profile = data.profile;
    this.colours = data.colours;
    this.head.replaceChildren(h("tr", {}, ...data.header.map((name) => h("th", { scope: "col", text: name }))));
    this.table.replaceChildren();
    this.#begin();
    this.#follow(data.profile);
  }

  close() {
    this.profile = null;
    this.stopTheme();
    for (const chart of [this.memory, this.runs]) if (this.drawn) window.Plotly.purge(chart);
    this.element.remove();
  }

  async #follow(profile) {
    await loadPlotly();
    let after = 0;
    while (this.profile === profile) {
      const told = await read(`/attnscope/profiles/${encodeURIComponent(profile)}?after=${after}`);
      if (this.profile !== profile) return;
      if (told) {
        after = told.next;
        for (const event of told.events) this.#take(event);
        if (told.events.length) this.#draw(told.words);
      }
      await new Promise((done) => setTimeout(done, told ? EVERY : EVERY_UNREACHED));
    }
  }

  /** What was seen before a sweep went on after a break says nothing of now. */
  #begin() {
    this.samples = [];
    this.points = [];
    this.began = null;
    this.known = {};
    this.backend = "";
  }

  #take(event) {
    if (event.kind === "begin") this.#begin();
    this.began ??= event.at;
    const at = event.at - this.began;
    if (event.kind === "cell") this.backend = event.backend;
    else if (event.kind === "sample") this.samples.push({ ...event, at });
    else if (event.kind === "run") this.points.push({ at, seconds: event.seconds, backend: this.backend });
    else if (event.kind === "record") this.#row(event.row);
    for (const list of [this.samples, this.points]) while (list.length && list[0].at < at - WINDOW) list.shift();
  }

  #row(texts) {
    const [backend, ...others] = texts;
    const swatch = h("i.pg-swatch", { style: `background:${this.colours[backend] ?? "#6B7280"}` });
    this.table.prepend(h("tr", {}, h("th", { scope: "row" }, swatch, backend), ...others.map((text) => h("td", { text }))));
  }

  #draw(words = {}) {
    this.known = { ...this.known, ...words };
    const known = FACTS.filter(([name]) => this.known[name]);
    this.facts.replaceChildren(
      ...known.map(([name, title]) => h("div", {}, h("dt", { text: title }), h("dd", { text: this.known[name] }))),
    );
    if (!window.Plotly) return;
    this.drawn = true;
    const theme = readTheme(this.element);
    this.memory.setAttribute("aria-label", `Memory over time. ${known.map(([n, t]) => `${t}: ${this.known[n]}`).join(", ")}`);
    this.runs.setAttribute("aria-label", `Latency of each run. Last: ${this.known.seconds ?? "none yet"}`);
    window.Plotly.react(this.memory, this.#memory(), layout(theme, { title: "GiB", rangemode: "tozero" }), CONFIG);
    window.Plotly.react(this.runs, this.#latency(), layout(theme, { title: "ms", type: "log" }), CONFIG);
  }

  #memory() {
    return MEMORY.map(([key, name, color]) => {
      const known = this.samples.filter((sample) => sample[key] !== null);
      const y = known.map((sample) => sample[key] / 2 ** 30);
      return { x: known.map((sample) => sample.at), y, name, mode: "lines", line: { color, width: 1.5 } };
    }).filter((trace) => trace.x.length);
  }

  #latency() {
    const backends = [...new Set(this.points.map((point) => point.backend))];
    return backends.map((backend) => {
      const mine = this.points.filter((point) => point.backend === backend);
      return {
        x: mine.map((point) => point.at),
        y: mine.map((point) => 1000 * point.seconds),
        name: backend,
        mode: "markers",
        marker: { color: this.colours[backend], size: 5 },
      };
    });
  }
}

function layout(theme, yaxis) {
  const axis = { color: theme.muted, gridcolor: theme.line, zeroline: false };
  return {
    autosize: true,
    showlegend: true,
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    margin: { l: 56, r: 8, t: 8, b: 40 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: theme.text },
    xaxis: { ...axis, title: { text: "s" } },
    yaxis: { ...axis, ...yaxis, title: { text: yaxis.title } },
    hovermode: false,
  };
}

/** What happened; null where the server does not answer, or does not know the profile yet. */
async function read(address) {
  try {
    const answer = await fetch(address, { credentials: "same-origin" });
    return answer.ok ? await answer.json() : null;
  } catch {
    return null;
  }
}

/** @type {WeakMap<object, Live>} */
const mounted = new WeakMap();

/** What Streamlit calls at every mount and every change. @returns {() => void} Ends the following. */
export default function mount(component) {
  const { parentElement } = component;
  if (!mounted.has(parentElement)) mounted.set(parentElement, new Live(parentElement));
  mounted.get(parentElement).receive(component);
  return () => {
    mounted.get(parentElement)?.close();
    mounted.delete(parentElement);
  };
}
