// The table of all cards, of which only the lines in sight are in the page.

const LINE = 32; // pixels
const COLUMNS = [
  { id: "status", title: "Status", field: "status", width: 92 },
  { id: "attack", title: "Attack", width: 190, text: (row) => data.text("evasion", row) || data.text("attack", row) || "clean" },
  { id: "rate", title: "Rate", field: "rate", width: 64, text: (row) => rateName(data.text("rate", row)), n: true },
  {
    id: "defense",
    title: "Defense",
    width: 210,
    text: (row) => (data.pair[row] < 0 ? "victim" : defenseName(data.defenses[data.fields.get("defense").codes[row]])),
  },
  { id: "dataset", title: "Data set", field: "dataset", width: 110 },
  { id: "model", title: "Model", field: "model", width: 120 },
  { id: "seed", title: "Seed", field: "seed", width: 56, n: true },
  { id: "asr", title: "ASR", number: "metrics asr", show: percent },
  { id: "accuracy", title: "Accuracy", number: "metrics clean_accuracy", show: percent },
  { id: "der", title: "DER", number: "metrics der", show: (value) => value.toFixed(3) },
  { id: "tpr", title: "TPR", number: "metrics tpr", show: percent },
  { id: "fpr", title: "FPR", number: "metrics fpr", show: percent },
  { id: "auroc", title: "AUROC", number: "metrics auroc", show: (value) => value.toFixed(3) },
  { id: "right", title: "Right", number: "metrics right", show: (value) => (value ? "yes" : "no"), width: 60 },
  { id: "seconds", title: "Seconds", number: "seconds all", show: compact },
].map((each) => ({ width: 80, n: Boolean(each.number), ...each }));

/** The table of all cards. */
class Cards {
  constructor(box) {
    this.box = box;
    this.body = box.querySelector(".lines");
    this.head = box.querySelector(".heads");
    this.active = -1;
    const widths = COLUMNS.map((each) => `${each.width}px`).join(" ");
    box.style.setProperty("--widths", widths);
    box.addEventListener("scroll", () => this.draw());
    box.addEventListener("keydown", (event) => this.key(event));
  }

  load() {
    const [id, down] = state.sort.split(":");
    const column = COLUMNS.find((each) => each.id === id);
    this.rows = column ? sorted(column, Boolean(down)) : rowsShown();
    this.active = -1;
    this.body.style.height = `${this.rows.length * LINE}px`;
    this.box.setAttribute("aria-rowcount", this.rows.length + 1);
    this.box.scrollTop = 0;
    this.head.replaceChildren(...COLUMNS.map((each) => this.heading(each, id, down)));
    this.first = -1;
    this.draw();
  }

  heading(column, id, down) {
    const on = column.id === id;
    const following = { [column.id]: `${column.id}:down`, [`${column.id}:down`]: "" }; // up, down, and as it was
    const sort = () => change(() => (state.sort = following[state.sort] ?? column.id));
    return el(
      "div",
      { role: "columnheader", class: column.n ? "n" : "", "aria-sort": on ? (down ? "descending" : "ascending") : "none" },
      el("button", { type: "button", onclick: sort }, column.title, on ? (down ? " ↓" : " ↑") : ""),
    );
  }

  /** Put the lines in sight into the page. */
  draw() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / LINE) - 6);
    if (first === this.first) return;
    this.first = first;
    const count = Math.ceil(this.box.clientHeight / LINE) + 12;
    const lines = [];
    for (let i = first; i < Math.min(first + count, this.rows.length); i++) lines.push(this.line(i));
    this.body.replaceChildren(...lines);
  }

  line(i) {
    const row = this.rows[i];
    const cells = COLUMNS.map((column) =>
      el(
        "div",
        { role: "cell", class: column.n ? "n" : "" },
        column.id === "status" ? statusMark(data.text("status", row)) : el("bdi", {}, shown(column, row)),
      ),
    );
    const node = el(
      "div",
      {
        role: "row",
        id: `line${i}`,
        class: `line${i === this.active ? " active" : ""}`,
        "aria-rowindex": i + 2,
        onclick: () => openRow(row),
      },
      ...cells,
    );
    node.style.top = `${i * LINE}px`;
    return node;
  }

  key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 12, PageUp: -12 }[event.key];
    if (event.target !== this.box) return;
    if (event.key === "Enter" && this.active >= 0) openRow(this.rows[this.active]);
    else if (!step || !this.rows.length) return;
    else {
      this.active = Math.min(Math.max(this.active + step, 0), this.rows.length - 1);
      const top = this.active * LINE;
      this.box.scrollTop = Math.min(Math.max(this.box.scrollTop, top + 2 * LINE - this.box.clientHeight + 18), top);
      this.first = -1;
      this.draw();
      this.box.setAttribute("aria-activedescendant", `line${this.active}`);
    }
    event.preventDefault();
  }
}

const openRow = (row) => change(() => (state.card = data.key(row).replace(/^0{24}$/, `cell${data.pair[row]}`)), true);

function shown(column, row) {
  if (column.text) return column.text(row);
  if (column.field) return data.text(column.field, row);
  const value = data.columns.has(column.number) ? data.columns.get(column.number).at(row) : NaN;
  return Number.isNaN(value) ? "" : column.show(value);
}

/** The rows shown in the order of a column; rows without a value come last either way. */
function sorted(column, down) {
  const rows = rowsShown();
  const keys = new Float64Array(data.count);
  if (column.number) {
    const numbers = data.columns.get(column.number);
    for (const row of rows) keys[row] = numbers ? numbers.at(row) : NaN;
  } else {
    const texts = new Map();
    for (const row of rows) texts.set(shown(column, row), 0);
    [...texts.keys()].sort(inOrder).forEach((text, i) => texts.set(text, text ? i : NaN));
    for (const row of rows) keys[row] = texts.get(shown(column, row));
  }
  for (const row of rows) keys[row] = Number.isNaN(keys[row]) ? Infinity : down ? -keys[row] : keys[row];
  return Uint32Array.from(rows).sort((a, b) => (keys[a] < keys[b] ? -1 : keys[a] > keys[b] ? 1 : a - b));
}
