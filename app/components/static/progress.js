/** Follows a job over its own route, draws how far it is, and tells Python once it is over. */

import { h } from "./dom.js";

const EVERY = 150;
const EVERY_UNREACHED = 1000;
const ENDED = new Set(["done", "failed", "cancelled"]);

class Follower {
  constructor(parent) {
    this.step = h("strong");
    this.pace = h("span");
    this.bar = h("i");
    this.track = h(
      "div.as-job-track",
      { role: "progressbar", "aria-label": "Progress", "aria-valuemin": 0, "aria-valuemax": 100 },
      this.bar,
    );
    this.cancelling = h("button", { type: "button", text: "Cancel", onclick: () => this.#cancel() });
    const words = h("div.as-job-words", { role: "status" }, this.step, this.pace);
    this.element = h("div.as-job", {}, h("div.as-job-about", {}, words, this.track), this.cancelling);
    parent.append(this.element);
  }

  /** Takes what Python gives: another job is followed from its start. */
  receive({ data, setTriggerValue }) {
    this.over = (job) => setTriggerValue("over", job);
    if (data.job === this.job) return;
    this.job = data.job;
    this.cancelling.disabled = false;
    this.#draw({ progress: data.share, words: data });
    this.#follow(data.job);
  }

  close() {
    this.job = null;
    this.element.remove();
  }

  async #follow(job) {
    while (this.job === job) {
      const status = await read(`/attnscope/jobs/${encodeURIComponent(job)}`);
      if (this.job !== job) return;
      if (status === "gone" || ENDED.has(status?.state)) {
        this.over(job);
        return;
      }
      if (status) this.#draw(status);
      else this.pace.textContent = "The server does not answer; trying again";
      await new Promise((done) => setTimeout(done, status ? EVERY : EVERY_UNREACHED));
    }
  }

  #draw({ progress, words }) {
    const share = Math.min(Math.max(progress, 0), 1);
    this.step.textContent = words.step;
    this.pace.textContent = words.pace;
    this.bar.style.width = `${(100 * share).toFixed(1)}%`;
    this.track.setAttribute("aria-valuenow", Math.round(100 * share));
  }

  async #cancel() {
    this.cancelling.disabled = true;
    const answer = await fetch(`/attnscope/jobs/${encodeURIComponent(this.job)}/cancel`, { method: "POST" }).catch(
      () => null,
    );
    if (!answer?.ok) this.cancelling.disabled = false;
  }
}

/** A job's status; "gone" where the server knows no such job, null where it could not be asked. */
async function read(address) {
  try {
    const answer = await fetch(address, { credentials: "same-origin" });
    if (answer.status === 404) return "gone";
    return answer.ok ? await answer.json() : null;
  } catch {
    return null;
  }
}

/** @type {WeakMap<object, Follower>} */
const mounted = new WeakMap();

/** What Streamlit calls at every mount and every change. @returns {() => void} Ends the following. */
export default function mount(component) {
  const { parentElement } = component;
  if (!mounted.has(parentElement)) mounted.set(parentElement, new Follower(parentElement));
  mounted.get(parentElement).receive(component);
  return () => {
    mounted.get(parentElement)?.close();
    mounted.delete(parentElement);
  };
}
