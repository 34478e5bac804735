// The standings: every defense of a role over the threats that all of them have finished.

const CONTESTS = [
  {
    id: "repairs",
    title: "Repairs",
    role: "repair",
    kinds: ["backdoor"],
    measures: ["asr", "accuracy"],
    heads: ["ASR", "Clean"],
    verb: "lowers attack success most",
  },
  {
    id: "trainers",
    title: "Trainers",
    role: "trainer",
    kinds: ["backdoor"],
    measures: ["asr", "accuracy"],
    heads: ["ASR", "Clean"],
    verb: "lowers attack success most",
  },
  {
    id: "detectors",
    title: "Detectors of triggers",
    role: "detector",
    kinds: ["backdoor"],
    measures: ["tpr", "fpr"],
    heads: ["TPR", "FPR"],
    verb: "flags the most",
  },
  {
    id: "evasions",
    title: "Detectors of adversarial examples",
    role: "detector",
    kinds: ["evasion"],
    measures: ["tpr", "fpr"],
    heads: ["TPR", "FPR"],
    verb: "flags the most",
  },
  {
    id: "screens",
    title: "Screens of training data",
    role: "screen",
    kinds: ["backdoor"],
    measures: ["screen", "top"],
    heads: ["AUROC", "Top 1 %"],
    verb: "ranks best",
  },
  {
    id: "inspectors",
    title: "Inspectors",
    role: "inspector",
    kinds: ["clean", "backdoor"],
    measures: ["right"],
    heads: ["Right"],
    verb: "is right most often",
  },
];
const AT_FIRST = 8; // defenses of a role shown before the reader asks for all
const opened = new Set();

function drawStandings(node) {
  const cards = CONTESTS.map(contestCard).filter(Boolean);
  node.querySelector(".empty").hidden = cards.length > 0;
  node.querySelector(".contests").replaceChildren(...cards);
}

function contestCard(contest) {
  const measures = contest.measures.map(measureOf);
  const found = compare([contest.role], contest.kinds, measures);
  const off = data.defenses.filter((each) => each.role === contest.role && state.off.has(each.spec));
  if (!found.lines.length) return null;
  const before = contest.measures[0] === "asr" ? undefended(measures, contest.kinds, found.kept) : null;
  const shown = opened.has(contest.id) ? found.lines : found.lines.slice(0, AT_FIRST);
  const more = found.lines.length - shown.length;
  return el(
    "section",
    { class: "contest", id: `contest-${contest.id}` },
    el("h3", {}, contest.title),
    headline(contest, found, before, measures),
    el(
      "div",
      { class: "strip-head note", "aria-hidden": "true" },
      el("span", {}),
      el(
        "span",
        { class: "ends" },
        el("span", {}, "0"),
        el("span", {}, measures[0].label),
        el("span", {}, measures[0].unit === "percent" ? "100 %" : "1"),
      ),
      ...contest.heads.map((head) => el("span", { class: "n" }, head)),
    ),
    el(
      "ol",
      { class: "strips" },
      before ? strip(before, measures) : null,
      ...shown.map((line) => strip(line, measures)),
      ...off.map((each) => offLine(each)),
    ),
    more
      ? el(
          "button",
          {
            type: "button",
            class: "link",
            onclick: () => {
              opened.add(contest.id);
              drawStandings(document.getElementById("standings"));
            },
          },
          `Show ${more} more`,
        )
      : null,
    el("p", { class: "note" }, basis(found)),
  );
}

/** The finding in one sentence: who is best, and how good that is. */
function headline(contest, found, before, measures) {
  const [best] = found.lines;
  const [first, second] = measures;
  if (!found.common)
    return el("p", { class: "headline" }, "No threat was finished by all; each is shown over its own threats, which do not compare.");
  const value = el("b", {}, written(first, best[first.id].mean));
  const start = before && before[first.id].mean;
  const helps = !before || best[first.id].mean < start;
  const lead = helps
    ? [el("b", { class: "winner" }, el("bdi", {}, best.name)), ` ${contest.verb}`]
    : [`None of them lowers attack success; `, el("b", {}, el("bdi", {}, best.name)), " comes closest"];
  const said = before ? [": from ", written(first, start), " to ", value] : [`: ${contest.heads[0] === "AUROC" ? "AUROC " : ""}`, value];
  const other = second ? best[second.id].mean : NaN;
  const beside = {
    accuracy: () => `, at ${written(second, other)} clean accuracy${before ? ` (${written(second, before.accuracy.mean)} before)` : ""}`,
    fpr: () => ` of them, with ${written(second, other)} false alarms`,
    top: () => `; ${written(second, other)} of its first hundredth are poisoned`,
  };
  return el("p", { class: "headline" }, ...lead, ...said, Number.isFinite(other) ? beside[second.id]() : "", ".");
}

const basis = ({ common, threats, cells, lines }) =>
  common
    ? `n = ${plural(threats, "threat")}, ${cells.toLocaleString("en")} with their seeds, that all ${lines.length} have finished. A tick is a threat, the dot their mean.`
    : "n differs from line to line; take defenses out of the comparison until they have threats in common.";

/** One defense on a line from 0 to 1: a tick a threat, a dot at the mean. */
function strip(line, measures) {
  const [first, second] = measures;
  const { means, mean } = line[first.id];
  const ticks = svg(
    "svg",
    { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("path", { d: means.map((each) => `M${(100 * each).toFixed(2)} 1v8`).join("") }),
  );
  const dot = el("span", { class: "dot" });
  dot.style.left = `${100 * mean}%`;
  if (first.better) dot.style.background = line.role === "none" ? "var(--soft)" : `rgb(${scaleOf(first, [0, 1]).rgb(mean)})`;
  const track = el(
    "span",
    {
      class: "track",
      title: `from ${written(first, line[first.id].low)} to ${written(first, line[first.id].high)}, over ${plural(line.threats, "threat")}`,
    },
    ticks,
    dot,
  );
  const other = second ? el("span", { class: "n" }, written(second, line[second.id].mean)) : null;
  const compared = line.role === "none" ? el("span") : comparedBox(line);
  return el(
    "li",
    { class: line.role === "none" ? "baseline" : "" },
    el("span", { class: "name" }, compared, defenseLink(line)),
    track,
    el("span", { class: "n strong" }, written(first, mean)),
    other,
  );
}

const comparedBox = (defense) =>
  el("input", {
    type: "checkbox",
    checked: !state.off.has(defense.spec),
    title: "In the comparison",
    "aria-label": `Compare ${defense.name}`,
    onchange: () => change(() => (state.off.has(defense.spec) ? state.off.delete(defense.spec) : state.off.add(defense.spec))),
  });

const offLine = (defense) =>
  el(
    "li",
    { class: "off" },
    el("span", { class: "name" }, comparedBox(defense), defenseLink(defense)),
    el("span", { class: "note" }, "not compared"),
  );
