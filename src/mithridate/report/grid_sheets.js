// The CSV file, the table of costs, and other people's numbers beside ours.

/** The rows shown as CSV: every field and every number with its interval. A text that a spreadsheet would run gets a ' before it. */
async function csv() {
  const fields = [...data.fields.keys()];
  const columns = [...data.columns].map(([name, column]) => [name.replace(/^metrics /, "").replace(/^(seconds|cost) /, "$1_"), column]);
  const numbers = columns.flatMap(([name, { width }]) => (width === 3 ? [name, `${name} low`, `${name} high`] : [name]));
  const quoted = (text) => {
    const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const parts = [`${["key", ...fields, ...numbers].map(quoted).join(",")}\r\n`];
  const rows = rowsShown();
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i];
    const values = columns.flatMap(([, column]) => Array.from({ length: column.width }, (_, part) => column.at(row, part)));
    parts.push(
      `${[data.key(row), ...fields.map((name) => quoted(data.text(name, row))), ...values.map((value) => (Number.isNaN(value) ? "" : value))].join(",")}\r\n`,
    );
    if (i % 1000 === 999) await new Promise((resume) => setTimeout(resume)); // let the page breathe
  }
  return parts;
}

async function download() {
  const link = el("a", { href: URL.createObjectURL(new Blob(await csv(), { type: "text/csv" })), download: "cards.csv" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/** What each defense costs, on the average over its finished cards. */
function drawCosts(node) {
  const rows = new Map();
  for (const row of rowsShown()) {
    if (data.pair[row] < 0 || !data.is("status", row, "done")) continue;
    const id = data.fields.get("defense").codes[row];
    if (data.defenses[id].role === "none") continue;
    if (!rows.has(id)) rows.set(id, []);
    rows.get(id).push(row);
  }
  const parts = [
    ["seconds defense", seconds],
    ["cost forwards", count],
    ["cost gradients", count],
    ["cost peak_memory", bytes],
  ];
  const lines = [...rows].map(([id, own]) => ({
    defense: data.defenses[id],
    n: own.length,
    means: parts.map(([name]) => meanOf(data.columns.get(name), own).mean),
  }));
  const order = Object.keys(ROLES);
  lines.sort((a, b) => order.indexOf(a.defense.role) - order.indexOf(b.defense.role) || a.means[0] - b.means[0]);
  const most = parts.map((_, i) => Math.max(...lines.map(({ means }) => means[i]).filter(Number.isFinite)));
  const bar = (value, i) => {
    const node = el("td", { class: "n amount" }, el("span", { class: "fill" }), el("span", {}, parts[i][1](value)));
    node.firstChild.style.width = `${Number.isFinite(value) && most[i] > 0 ? (100 * value) / most[i] : 0}%`;
    return node;
  };
  node
    .querySelector("tbody")
    .replaceChildren(
      ...lines.flatMap(({ defense, n, means }, i) =>
        [
          i && lines[i - 1].defense.role === defense.role
            ? null
            : el("tr", { class: "role" }, el("th", { colspan: "6", scope: "rowgroup" }, ROLES[defense.role])),
          el(
            "tr",
            {},
            el("th", { scope: "row" }, defenseLink(defense)),
            ...means.map(bar),
            el("td", { class: "n" }, n.toLocaleString("en")),
          ),
        ].filter(Boolean),
      ),
    );
}

/** Other people's numbers beside ours; those of one cell, or all. */
function paperTable(found, pair = -1) {
  const heads = ["Paper", "Of", "What", "Theirs", "Ours", "Note"].map((text, i) =>
    el("th", { scope: "col", class: i === 3 || i === 4 ? "n" : "" }, text),
  );
  return el(
    "table",
    { class: "papers" },
    el("thead", {}, el("tr", {}, ...heads)),
    el("tbody", {}, ...found.flatMap((each) => paperLines(each, pair))),
  );
}

function paperLines(each, pair) {
  const width = data.defenses.length;
  const cells = each.cells.map(([threat, defense]) => threat * width + defense).filter((own) => pair < 0 || own === pair);
  const show = each.metric === "auroc" || each.metric === "der" ? (value) => value.toFixed(3) : percent;
  const about = [each.defense, each.attack || "clean", rateName(each.rate ?? ""), each.dataset, each.model].filter(Boolean).join(", ");
  const names = [(own) => defenseName(data.defenseOf(own)), (own) => threatName(data.threatOf(own))];
  const telling = names.filter((name) => new Set(cells.map(name)).size > 1); // what tells our cells apart
  const ours = (cells.length ? cells : [-1]).map((own) => {
    const done = own < 0 ? [] : data.rowsOf(own).filter((row) => data.is("status", row, "done"));
    const { mean, n } = meanOf(data.column("metrics", each.metric), done);
    const from = n ? plural(n, "seed") : `no number: ${statusOf(own) || "filtered out"}`;
    const words = own < 0 ? "not in this grid" : [...telling.map((name) => name(own)), ...each.differs, from].join("; ");
    const open =
      n && pair < 0 ? el("button", { type: "button", class: "link", onclick: () => openCell(own) }, show(mean)) : n ? show(mean) : "–";
    return [el("td", { class: "n" }, open), el("td", { class: "note" }, words)];
  });
  return ours.map((told, i) =>
    el(
      "tr",
      {},
      el("td", {}, i ? "" : el("bdi", {}, each.paper), i ? "" : el("span", { class: "note" }, ` ${each.where}`)),
      el("td", {}, i ? "" : each.source),
      el("td", {}, i ? "" : el("bdi", {}, `${metricName(each.metric)}: ${about}`)),
      el("td", { class: "n" }, i ? "" : show(each.value)),
      ...told,
    ),
  );
}

const metricName = (name) => data.measures.find((each) => each.name === name)?.label || name;
