// What the reader chose: kept in the page's address, so that a link shows the same view.

const FILTERS = ["dataset", "model", "rate", "role", "seed", "status"];
const CHOICES = ["metric", "versus", "defense", "card", "sort"]; // one value each
const ROLES = {
  trainer: "trainers",
  screen: "screens",
  detector: "detectors",
  inspector: "inspectors",
  repair: "repairs",
  none: "undefended",
  "": "victims",
};

const state = { text: "", off: new Set(), picked: new Map(FILTERS.map((name) => [name, new Set()])) };
const memo = new Map(); // what was computed since the last filter
const sections = []; // parts of the page that are drawn when they are in sight
const always = []; // what is done after every change

function readAddress() {
  const address = new URLSearchParams(location.hash.slice(1));
  for (const name of FILTERS) state.picked.set(name, new Set(address.getAll(name)));
  for (const name of CHOICES) state[name] = address.get(name) || "";
  state.text = address.get("text") || "";
  state.off = new Set(address.getAll("off"));
}

function writeAddress(step) {
  const address = new URLSearchParams();
  for (const name of FILTERS) for (const value of state.picked.get(name)) address.append(name, value);
  for (const name of CHOICES) if (state[name]) address.set(name, state[name]);
  if (state.text) address.set("text", state.text);
  for (const spec of state.off) address.append("off", spec);
  const hash = `#${address}`;
  if (hash !== location.hash) history[step ? "pushState" : "replaceState"](null, "", hash);
}

/** Change the choice and draw what is in sight anew; a step is one that the browser's back button takes back. */
function change(update, step = false) {
  update(state);
  writeAddress(step);
  refresh();
}

/** Draw what has changed: all of it after a filter, else only the parts that the choice is about. */
function refresh() {
  const filters = JSON.stringify([state.text, [...state.off], ...FILTERS.map((name) => [...state.picked.get(name)])]);
  if (filters !== refresh.filters) memo.clear();
  refresh.filters = filters;
  for (const each of sections) each.wanted = filters + each.depends();
  for (const each of always) each();
  drawVisible();
}

/** A part of the page that is drawn when it comes into sight, and again when the filters or what it depends on change. */
function section(id, draw, depends = () => "") {
  const each = { node: document.getElementById(id), draw, depends, wanted: "", drawn: null, seen: false };
  sections.push(each);
  sight.observe(each.node);
}

const sight = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) sections.find((each) => each.node === entry.target).seen = entry.isIntersecting;
    drawVisible();
  },
  { rootMargin: "100px" },
);

/** Draw the parts in sight that have changed, each in a task of its own, so that the page answers meanwhile. */
function drawVisible() {
  const next = sections.find((each) => each.seen && each.wanted !== each.drawn);
  if (!next) return;
  drawNow(next);
  clearTimeout(drawVisible.waiting);
  drawVisible.waiting = setTimeout(drawVisible);
}

function drawNow(part) {
  part.drawn = part.wanted;
  part.draw(part.node);
}

/** Draw the parts that were never in sight when there is nothing else to do, so that nothing jumps when the reader comes to them. */
function drawRest() {
  const next = sections.find((each) => each.drawn === null && !each.node.hidden);
  if (!next) {
    document.documentElement.dataset.drawn = "yes";
    return;
  }
  drawNow(next);
  setTimeout(drawRest, 20);
}

/** Compute once until the filters change. */
function once(name, compute) {
  if (!memo.has(name)) memo.set(name, compute());
  return memo.get(name);
}

/** The rows that pass every filter, in the order of the store. */
function rowsShown() {
  return once("rows", () => {
    const tests = FILTERS.filter((name) => state.picked.get(name).size).map((name) => {
      const { words, codes } = data.fields.get(name);
      return { codes, pass: Uint8Array.from(words, (word) => (state.picked.get(name).has(word) ? 1 : 0)) };
    });
    const found = textFilters();
    const rows = new Uint32Array(data.count);
    let count = 0;
    for (let row = 0; row < data.count; row++) {
      if (tests.every(({ codes, pass }) => pass[codes[row]]) && found.every((term) => term(row))) rows[count++] = row;
    }
    return rows.subarray(0, count);
  });
}

/** A test for each word that the reader typed: it must stand in some field, or begin the key. */
function textFilters() {
  const terms = state.text.toLowerCase().split(/\s+/).filter(Boolean);
  return terms.map((term) => {
    const fields = ["dataset", "model", "attack", "evasion", "defense", "role", "reason"].map((name) => {
      const { words, codes } = data.fields.get(name);
      return { codes, pass: Uint8Array.from(words, (word) => (word.toLowerCase().includes(term) ? 1 : 0)) };
    });
    const key = /^[0-9a-f]{4,24}$/.test(term) ? (row) => data.key(row).startsWith(term) : () => false;
    return (row) => fields.some(({ codes, pass }) => pass[codes[row]]) || key(row);
  });
}
