/** The page's colours, read from Streamlit's theme variables as they are now. */

/**
 * @typedef {{dark: boolean, text: string, muted: string, accent: string, line: string, mask: string,
 *   ground: string}} Theme Colours as a canvas takes them.
 */

const NAMES = ["text", "muted", "accent", "line", "mask", "ground"];

/** Whether a CSS colour is darker than middle grey. */
function isDark(colour) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  const [red, green, blue] = context.getImageData(0, 0, 1, 1).data;
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue < 128;
}

/** @param {HTMLElement} root @returns {Theme} */
export function readTheme(root) {
  const probe = document.createElement("i");
  probe.hidden = true;
  root.append(probe);
  const theme = {};
  for (const name of NAMES) {
    probe.style.color = `var(--as-${name})`;
    theme[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  theme.dark = isDark(theme.ground);
  return theme;
}

/** Calls `changed` whenever the theme's colours turn out different. @returns {() => void} Stops watching. */
export function followTheme(root, changed) {
  let known = JSON.stringify(readTheme(root));
  const look = () => {
    const theme = readTheme(root);
    const text = JSON.stringify(theme);
    if (text === known) return;
    known = text;
    changed(theme);
  };
  const observer = new MutationObserver(look);
  const watched = { attributes: true, attributeFilter: ["class", "style", "data-theme"] };
  observer.observe(document.documentElement, watched);
  observer.observe(document.body, watched);
  const media = matchMedia("(prefers-color-scheme: dark)");
  media.addEventListener("change", look);
  return () => {
    observer.disconnect();
    media.removeEventListener("change", look);
  };
}
