// How numbers, names and marks are written and drawn. Everything from cards goes into the page as text, never as HTML.

/** An element; attributes that begin with "on" are listeners, children are elements or text. */
function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  fill(node, attributes, children);
  return node;
}

function svg(name, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  fill(node, attributes, children);
  return node;
}

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
}

const percent = (share) => {
  if (!Number.isFinite(share)) return "–";
  if (share > 0 && share < 0.0005) return "<\u00a00.1\u00a0%";
  if (share > 0.9995 && share < 1) return ">\u00a099.9\u00a0%";
  return `${(Math.round(1000 * share) / 10).toFixed(1)}\u00a0%`;
};
const compact = (value) =>
  !Number.isFinite(value) ? "–" : Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3)));
const count = (value) => (Number.isFinite(value) ? Math.round(value).toLocaleString("en") : "–");
const plural = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
const bytes = (value) =>
  !Number.isFinite(value) ? "–" : value < 2 ** 30 ? `${Math.round(value / 2 ** 20)} MiB` : `${(value / 2 ** 30).toFixed(1)} GiB`;

function seconds(value) {
  if (!Number.isFinite(value)) return "–";
  if (value < 1) return `${value.toFixed(2)} s`;
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 100) return `${Math.round(value)} s`;
  return value < 6000 ? `${(value / 60).toFixed(1)} min` : `${(value / 3600).toFixed(1)} h`;
}

/** A value of a measure, in full and as short as a heat-map cell needs it. */
const written = (measure, value) =>
  ({ percent, seconds, number: (each) => (Number.isFinite(each) ? each.toFixed(3) : "–") })[measure.unit](value);

function brief(measure, value) {
  if (measure.unit === "number") return value >= 0.995 && value < 1 ? ".99" : value.toFixed(2).replace(/^0/, "");
  if (measure.unit === "seconds")
    return value < 9.95 ? value.toPrecision(2) : value < 995 ? String(Math.round(value)) : `${Math.round(value / 60)}m`;
  const whole = Math.round(100 * value);
  return whole === 100 && value < 1 ? ">99" : whole === 0 && value > 0 ? "<1" : String(whole);
}

const collator = new Intl.Collator("en", { numeric: true });

/** The order of two words: by the numbers that they begin with, if both do, else as people sort names. */
const inOrder = (a, b) => parseFloat(a) - parseFloat(b) || collator.compare(a, b);

const rateName = (rate) => (rate === "" ? "" : `${compact(100 * Number(rate))}\u00a0%`);
const threatName = (threat) => [threat.name, rateName(threat.rate)].filter(Boolean).join(" ");
const defenseName = (defense) => (defense.role === "none" ? "undefended" : defense.name);
const statusMark = (word) =>
  el("span", { class: `mark ${word}` }, { done: "✓", dead: "†", failed: "✕", missing: "…" }[word] || "", ` ${word}`);

/** A link to a defense's own page. */
function defenseLink(defense) {
  if (defense.role === "none") return el("span", {}, "undefended");
  return el(
    "button",
    { type: "button", class: "link", title: defense.spec, onclick: () => showMethod(defense.spec) },
    el("bdi", {}, defense.name),
  );
}

/** Draw everything again: the colors have changed. */
function redraw() {
  for (const each of sections) each.drawn = null;
  drawVisible();
}

const RAMPS = {
  good: ["good-3", "good-2", "good-1", "ramp-0", "bad-1", "bad-2", "bad-3"], // from good to bad
  plain: ["ramp-0", "much-1", "much-2", "much-3"],
};

/** Red, green and blue of a place in [0, 1] on a ramp. */
function onRamp(name, place) {
  const stops = once(`ramp ${name} ${theme.dark.matches}`, () =>
    RAMPS[name].map((each) =>
      color(each)
        .match(/\w\w/g)
        .map((pair) => parseInt(pair, 16)),
    ),
  );
  const at = Math.min(Math.max(place, 0), 1) * (stops.length - 1);
  const below = Math.min(Math.floor(at), stops.length - 2);
  return stops[below].map((value, i) => Math.round(value + (at - below) * (stops[below + 1][i] - value)));
}

/** Black or white, whichever stands out more from a color (WCAG: always at least 4.5 to 1). */
function inkOn(rgb) {
  const [r, g, b] = rgb.map((value) => ((value / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}

/** How a measure's values are colored: where each lies in [0, 1], and the ends of the legend. */
function scaleOf(measure, values) {
  const known = values.filter(Number.isFinite);
  let [low, high] = [known.reduce((a, b) => Math.min(a, b), Infinity), known.reduce((a, b) => Math.max(a, b), -Infinity)];
  if (measure.scale === "share" || !known.length) [low, high] = [0, 1];
  if (measure.scale === "range")
    [low, high] = measure.better === "low" ? [0, Math.max(high, 0.1)] : [Math.max(0, Math.min(low, high - 0.2)), high];
  const log = measure.scale === "log";
  const to = log ? (value) => Math.log(Math.max(value, 1e-3)) : (value) => value;
  const share = (value) => (to(value) - to(low)) / (to(high) - to(low) || 1);
  const place = measure.better === "high" ? (value) => 1 - share(value) : share;
  return {
    low,
    high,
    ramp: measure.better ? "good" : "plain",
    place,
    rgb: (value) => onRamp(measure.better ? "good" : "plain", place(value)),
  };
}

const tip = document.getElementById("tip");

/** Show a note beside a point of the window, where there is room. */
function showTip(x, y, ...children) {
  tip.replaceChildren(...children);
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - width - 8))}px`;
  tip.style.top = `${y + 18 + height > innerHeight ? Math.max(8, y - height - 12) : y + 18}px`;
}

const hideTip = () => {
  tip.hidden = true;
};
