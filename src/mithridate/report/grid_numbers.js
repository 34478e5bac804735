// The tables of a panel: every number of every seed, and what it took.

/** Every number of every seed, with its interval, and what it was before the defense. */
function numbersTable(rows) {
  const names = [...data.columns.keys()]
    .filter((name) => name.startsWith("metrics ") && rows.some((row) => data.columns.get(name).codes[row]))
    .map((name) => name.slice(8));
  const known = data.measures.map((each) => each.name);
  const rank = (name) => (known.indexOf(name) + 1 || 99) + (name.endsWith("_before") ? 0.5 : 0);
  names.sort((a, b) => rank(a.replace(/_before$/, "")) - rank(b.replace(/_before$/, "")) || a.localeCompare(b));
  const head = rows.map((row) =>
    el("th", { class: "n", scope: "col" }, `seed ${data.text("seed", row)} `, statusMark(data.text("status", row))),
  );
  const done = rows.filter((row) => data.is("status", row, "done"));
  const mean = done.length > 1;
  const lines = names.map((name) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, metricLabel(name)),
      mean ? el("td", { class: "n strong" }, number(name, meanOf(data.column("metrics", name), done).mean)) : null,
      ...rows.map((row) => valueCell(name, row)),
    ),
  );
  const reasons = rows.some((row) => data.text("reason", row))
    ? [
        el(
          "tr",
          {},
          el("th", { scope: "row" }, "reason"),
          mean ? el("td") : null,
          ...rows.map((row) => el("td", {}, el("bdi", {}, data.text("reason", row)))),
        ),
      ]
    : [];
  return el(
    "table",
    { class: "numbers" },
    el(
      "thead",
      {},
      el("tr", {}, el("th", {}, "number"), mean ? el("th", { class: "n", scope: "col" }, `mean of ${done.length}`) : null, ...head),
    ),
    el("tbody", {}, ...reasons, ...lines),
  );
}

function valueCell(name, row) {
  const value = data.number("metrics", name, row);
  const [low, high] = [data.number("metrics", name, row, 1), data.number("metrics", name, row, 2)];
  const range = Number.isNaN(low) ? null : el("span", { class: "note" }, ` ${percent(low)} to ${percent(high)}`);
  return el("td", { class: "n" }, Number.isNaN(value) ? "" : number(name, value), range);
}

const YES = ["right", "infected", "alive"];
const PLAIN = ["target", "poisoned", "covers"];
const NUMBER = ["auroc", "der", "p_value"];

function number(name, value) {
  if (YES.includes(name) && (value === 0 || value === 1)) return value ? "yes" : "no";
  if (PLAIN.includes(name)) return compact(value);
  return NUMBER.includes(name) ? compact(value) : percent(value);
}

function metricLabel(name) {
  const before = name.endsWith("_before");
  const bare = name.replace(/_before$/, "");
  const label =
    {
      asr: "ASR",
      clean_accuracy: "Clean accuracy",
      fpr: "FPR",
      tpr: "TPR",
      auroc: "AUROC",
      der: "DER",
      p_value: "p-value",
      precision_top: "Poisoned among the top 1 %",
      recovered_accuracy: "Recovered accuracy",
      asr_reactivated: "ASR brought back",
      asr_reactivated_twin: "ASR, clean twin fine-tuned alike",
      accuracy_cost: "Accuracy under the clean twin's",
      successful: "Attacks that work",
    }[bare] || bare.replaceAll("_", " ");
  return el("span", { class: before ? "note" : "" }, el("bdi", {}, label), before ? ", undefended" : "");
}

function costOf(rows) {
  const lines = [...data.columns.keys()].filter(
    (name) => !name.startsWith("metrics ") && rows.some((row) => data.columns.get(name).codes[row]),
  );
  const show = (name, value) => (name.startsWith("seconds ") ? seconds(value) : name.endsWith("memory") ? bytes(value) : count(value));
  const label = (name) =>
    ({
      "seconds all": "time of the whole cell",
      "seconds defense": "time of the defense",
      "cost forwards": "images forward",
      "cost gradients": "images backward",
      "cost peak_memory": "peak memory",
    })[name] || name.replace(/^(seconds|cost) /, "").replaceAll("_", " ");
  return el(
    "table",
    {},
    el(
      "tbody",
      {},
      ...lines.map((name) =>
        el(
          "tr",
          {},
          el("th", { scope: "row" }, el("bdi", {}, label(name))),
          ...rows.map((row) =>
            el("td", { class: "n" }, Number.isNaN(data.columns.get(name).at(row)) ? "" : show(name, data.columns.get(name).at(row))),
          ),
        ),
      ),
    ),
  );
}
