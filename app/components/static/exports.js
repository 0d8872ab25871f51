/** The export menu: links that make a file of what is shown, with the view's own parameters. */

import { h } from "./dom.js";
import { layerName } from "./view.js";

const PICTURES = [
  ["html", "HTML"],
  ["png", "PNG"],
  ["svg", "SVG"],
  ["pdf", "PDF"],
];
const DATA = [
  ["csv", "CSV"],
  ["parquet", "Parquet"],
  ["json", "JSON"],
];
const THINGS = [
  ["map", "This map"],
  ["overview", "All heads"],
  ["diagnostics", "Diagnostics"],
  ["tokens", "Token attention"],
];

export class ExportMenu {
  constructor({ store, theme }) {
    this.store = store;
    this.theme = theme;
    this.list = h("div.as-menu-body");
    this.handle = h("summary", { text: "Export" });
    this.element = h("details.as-menu", { ontoggle: () => this.#fill() }, this.handle, this.list);
    this.element.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.element.open) return;
      event.stopPropagation();
      this.element.open = false;
      this.handle.focus();
    });
    this.outside = (event) => {
      if (!event.composedPath().includes(this.element)) this.element.open = false;
    };
    document.addEventListener("pointerdown", this.outside);
  }

  destroy() {
    document.removeEventListener("pointerdown", this.outside);
  }

  setCapture(capture, summary) {
    this.summary = summary;
    this.capture = capture;
    this.element.open = false;
  }

  #fill() {
    if (!this.element.open || !this.capture) return;
    const { view } = this.store;
    const shared = {
      layer: layerName(this.summary, view.layer),
      head: view.head,
      sequence: view.sequence,
      reading: view.reading,
      scale: view.scale,
      reduce: view.pooling,
      ...(view.region ?? {}),
      pinned: view.pinned,
      direction: view.direction,
      merged: view.merged ? 1 : null,
      theme: this.theme().dark ? "dark" : "light",
    };
    const link = (what, [format, text]) =>
      h("a", { href: this.capture.address("export", { what, format, ...shared }), download: "", text });
    this.list.replaceChildren(
      ...THINGS.map(([what, title]) =>
        h(
          "div.as-menu-row",
          { role: "group", "aria-label": title },
          h("span", { text: title }),
          ...[...PICTURES, ...DATA].map((format) => link(what, format)),
        ),
      ),
    );
  }
}
