/** What stands in a part's place while it has nothing to show: empty, loading, failed, let go. */

import { button, h } from "./dom.js";

/** Quiet bars where the content will be. */
export function skeleton(label, lines = 3) {
  const bars = Array.from({ length: lines }, () => h("i"));
  return h("div.as-skeleton", { role: "status", "aria-label": label }, ...bars);
}

/**
 * A sentence, its remedy and what can be done.
 * @param {{title: string, remedy?: string, reference?: string, action?: [string, () => void] | null}} what
 */
export function notice({ title, remedy = "", reference = "", action = null }) {
  return h(
    "div.as-notice",
    { role: "alert" },
    h("strong", { text: title }),
    remedy ? h("p", { text: remedy }) : null,
    action ? button(action[0], action[1]) : null,
    reference ? h("small", { text: `Reference ${reference}` }) : null,
  );
}

/** The notice for an error of a request. */
export function failure(error, { retry, runAgain }) {
  if (error.gone) {
    return notice({
      title: error.message,
      remedy: error.remedy || "Run the prompt again to see it.",
      reference: error.reference,
      action: ["Run again", runAgain],
    });
  }
  return notice({
    title: error.message,
    remedy: error.remedy || "Try again; if it keeps failing, give the reference to whoever runs this server.",
    reference: error.reference,
    action: ["Try again", retry],
  });
}

/** What the page shows before anything was inspected. */
export function empty() {
  return notice({
    title: "Nothing inspected yet.",
    remedy: "Give a prompt and press Run: every head of the model appears here.",
  });
}
