// A page of its own for every defense: what it claims, where it stands, and its result on every threat.

const showMethod = (spec) => change(() => Object.assign(state, { defense: spec, card: "" }), true);

/** Which defense has the page to itself; -1 for none. */
const ownPage = () => (state.defense ? data.defenses.findIndex((each) => each.spec === state.defense) : -1);

/** The page of one defense: what it claims, where it stands, and its result on every threat. */
function drawMethod(node) {
  const id = ownPage();
  if (id < 0) return;
  const defense = data.defenses[id];
  const own = data.measures.filter((each) => each.roles.includes(defense.role));
  node.replaceChildren(
    el("button", { type: "button", class: "link back", onclick: () => change(() => (state.defense = ""), true) }, "← All defenses"),
    el("h2", {}, el("bdi", {}, defense.name)),
    el("p", { class: "note" }, el("code", {}, el("bdi", {}, defense.spec)), `, one of the ${ROLES[defense.role]}`),
    ...claimsOf(defense),
    ...CONTESTS.filter((each) => each.role === defense.role)
      .map((contest) => placeIn(contest, id))
      .filter(Boolean),
    el("h3", {}, "Every threat"),
    el("div", { class: "scroll", tabindex: "0" }, threatTable(id, own)),
  );
}

function claimsOf(defense) {
  const names = Object.keys(data.claims).filter((name) => new RegExp(`(^|\\+)${name}(?=$|[:+])`).test(defense.spec));
  return names.map((name) => {
    const { role, summary, scope, cost, paper } = data.claims[name];
    const facts = [
      ["claims to work against", scope.join(", ") || "–"],
      ["claimed cost", cost],
      ["paper", paper],
    ];
    return el(
      "div",
      { class: "claim" },
      el("p", {}, el("b", {}, name), ` (${role}): `, summary),
      el("dl", { class: "facts" }, ...facts.map(([key, text]) => el("div", {}, el("dt", {}, key), el("dd", {}, text)))),
    );
  });
}

function placeIn(contest, id) {
  const measures = contest.measures.map(measureOf);
  const found = compare([contest.role], contest.kinds, measures);
  const place = found.lines.findIndex((each) => each.id === id);
  if (place < 0) return null;
  const line = found.lines[place];
  const rank = found.common ? `Place ${place + 1} of ${found.lines.length} ${contest.title.toLowerCase()}` : contest.title;
  const told = measures.map((each) => `${each.label} ${written(each, line[each.id].mean)}`).join(", ");
  return el(
    "div",
    { class: "place" },
    el("p", {}, el("b", {}, `${rank}: `), `${told} on average. `, el("span", { class: "note" }, basis(found))),
    el("ol", { class: "strips" }, strip(line, measures)),
  );
}

function threatTable(id, own) {
  const width = data.defenses.length;
  const pairs = data.threats.map((_, threat) => threat * width + id).filter((pair) => statusOf(pair));
  const tables = own
    .map(averages)
    .map((table, i) => ({ ...table, measure: own[i] }))
    .filter(({ n }) => pairs.some((pair) => n[pair]));
  const scales = tables.map(({ measure, mean }) =>
    scaleOf(
      measure,
      pairs.map((pair) => mean[pair]),
    ),
  );
  const head = el(
    "tr",
    {},
    el("th", { scope: "col" }, "Threat"),
    el("th", { scope: "col" }, "On"),
    ...tables.map(({ measure }) => el("th", { scope: "col", class: "n", title: measure.meaning }, measure.label)),
    el("th", { scope: "col", class: "n" }, "n"),
  );
  const lines = pairs.map((pair) => {
    const status = statusOf(pair);
    const values = tables.map(({ measure, mean }, i) => valueTd(measure, mean[pair], scales[i]));
    const reason = data.text("reason", data.rowsOf(pair)[0]);
    const rest =
      status === "done"
        ? values
        : [el("td", { colspan: String(tables.length) || "1" }, statusMark(status), el("span", { class: "note" }, ` ${reason}`))];
    const open = el(
      "button",
      { type: "button", class: "link", onclick: () => openCell(pair) },
      el("bdi", {}, threatName(data.threatOf(pair))),
    );
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, open),
      el("td", { class: "note" }, data.threatOf(pair).group),
      ...rest,
      el("td", { class: "n" }, String(statuses()[STATUS.length * pair])),
    );
  });
  return el("table", { class: "threats" }, el("thead", {}, head), el("tbody", {}, ...lines));
}

function valueTd(measure, value, scale) {
  const known = Number.isFinite(value);
  const chip = el("span", { class: "value" }, known ? written(measure, value) : "–");
  if (known) {
    const rgb = scale.rgb(value);
    chip.style.background = `rgb(${rgb})`;
    chip.style.color = inkOn(rgb);
  }
  return el("td", { class: "n" }, chip);
}
