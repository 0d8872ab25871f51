/** The cache while it grows: bytes held after each token, beside what was predicted. */

import { h } from "./dom.js";

const CONFIG = { displayModeBar: false, responsive: true };
const UNITS = [
  [2 ** 30, "GiB"],
  [2 ** 20, "MiB"],
  [2 ** 10, "KiB"],
  [1, "bytes"],
];

export class CacheChart {
  constructor() {
    this.plot = h("div.as-gen-chart", { role: "img" });
    this.element = h("section", { hidden: true }, h("h2", { text: "KV cache" }), this.plot);
  }

  recolour(theme) {
    this.theme = theme;
    if (this.steps) this.draw(this.steps, this.predicted);
  }

  /** @param {{cache: number[]}[]} steps @param {number[] | null} predicted */
  draw(steps, predicted) {
    [this.steps, this.predicted] = [steps, predicted];
    if (!window.Plotly || this.element.hidden) return;
    const held = steps.map((step) => step.cache.reduce((a, b) => a + b, 0));
    const most = Math.max(...held, ...(predicted ?? []));
    const [unit, word] = UNITS.find(([size]) => most >= size) ?? UNITS.at(-1);
    const line = (values, name, style) => ({
      x: values.map((_, at) => at + 1),
      y: values.map((value) => value / unit),
      name,
      mode: "lines",
      line: style,
    });
    const traces = [line(held, "held", { color: "#0072B2", width: 3 })];
    if (predicted) traces.push(line(predicted, "predicted", { color: this.theme.text, width: 1.5, dash: "dot" }));
    this.plot.setAttribute("aria-label", `KV cache: ${held.at(-1)} bytes held after ${held.length} tokens`);
    window.Plotly.react(this.plot, traces, this.#layout(word), CONFIG);
  }

  close() {
    if (this.plot.classList.contains("js-plotly-plot")) window.Plotly.purge(this.plot);
  }

  #layout(word) {
    const axis = { color: this.theme.muted, gridcolor: this.theme.line, zeroline: false };
    return {
      autosize: true,
      showlegend: true,
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
      margin: { l: 48, r: 8, t: 8, b: 36 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: this.theme.text },
      xaxis: { ...axis, title: { text: "tokens said" } },
      yaxis: { ...axis, title: { text: word }, rangemode: "tozero" },
      hovermode: false,
    };
  }
}
