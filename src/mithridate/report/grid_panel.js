// What is known of one cell: a note beside the pointer, and a panel with every seed, number, curve and picture.

const panel = document.getElementById("panel");
panel.addEventListener("click", (event) => event.target === panel && panel.close());
panel.addEventListener("close", () => state.card && change(() => (state.card = "")));

/** What the note beside a heat-map cell says. */
function aboutCell(pair, measure) {
  const rows = data.rowsOf(pair);
  const done = rows.filter((row) => data.is("status", row, "done"));
  const told = data.measures.filter((each) => each.roles.includes(data.defenseOf(pair).role));
  const lines = told.map((each) => {
    const { mean, n } = meanOf(data.column(each.part, each.name), done);
    return n ? el("div", { class: each === measure ? "chosen" : "" }, el("dt", {}, each.label), el("dd", {}, written(each, mean))) : null;
  });
  const others = rows
    .filter((row) => !done.includes(row))
    .map((row) =>
      el(
        "p",
        {},
        statusMark(data.text("status", row)),
        ` seed ${data.text("seed", row)}: ${data.text("reason", row) || "no reason given"}`,
      ),
    );
  return [
    el("b", {}, el("bdi", {}, defenseName(data.defenseOf(pair)))),
    el("p", { class: "note" }, el("bdi", {}, threatName(data.threatOf(pair))), `, ${data.threatOf(pair).group}`),
    done.length ? el("dl", {}, ...lines) : null,
    done.length > 1 ? el("p", { class: "note" }, `mean of ${plural(done.length, "seed")}`) : null,
    ...others.slice(0, 4),
  ].filter(Boolean);
}

const openCell = (pair) => change(() => (state.card = data.key(data.rowsOf(pair)[0]).replace(/^0{24}$/, `cell${pair}`)), true);

/** Open the panel of the card in the address, or close it. */
function showPanel() {
  const row = rowOf(state.card);
  if (row < 0) return void (panel.open && panel.close());
  const pair = data.pair[row];
  const rows = pair < 0 ? [row] : data.rowsOf(pair);
  panel.querySelector(".inside").replaceChildren(...panelParts(row, pair, rows));
  if (!panel.open) panel.showModal();
  panel.scrollTop = 0;
  for (const place of panel.querySelectorAll("[data-curve]")) drawCurves(place, place.dataset.curve, curvesOf(rows, place.dataset.curve));
}

function rowOf(key) {
  if (/^cell\d+$/.test(key)) return data.rowsOf(Number(key.slice(4)))[0] ?? -1;
  if (!/^[0-9a-f]{24}$/.test(key)) return -1;
  const wanted = key.match(/../g).map((pair) => parseInt(pair, 16));
  for (let row = 0; row < data.count; row++) if (wanted.every((byte, i) => data.keys[12 * row + i] === byte)) return row;
  return -1;
}

function panelParts(row, pair, rows) {
  const victim = pair < 0;
  const threat = data.threats[data.threat[row]];
  const title = victim ? `Victim: ${threatName(threat)}` : `${defenseName(data.defenseOf(pair))} against ${threatName(threat)}`;
  return [
    el("p", { class: "kicker" }, threat.group),
    el("h2", {}, el("bdi", {}, title)),
    ...picturesOf(rows),
    el("h3", {}, rows.length > 1 ? "Numbers, by seed" : "Numbers"),
    el("div", { class: "scroll", tabindex: "0" }, numbersTable(rows)),
    ...publishedOf(pair),
    ...curveParts(rows),
    el("h3", {}, "Cost"),
    el("div", { class: "scroll", tabindex: "0" }, costOf(rows)),
    el("h3", {}, "Settings"),
    settingsOf(row),
    victim ? null : el("p", {}, defenseLink(data.defenseOf(pair)), data.defenseOf(pair).role === "none" ? "" : ": all its results"),
  ].filter(Boolean);
}

function settingsOf(row) {
  const names = [
    "dataset",
    "images",
    "model",
    "trainer",
    "attack",
    "dose",
    "defense",
    "evasion",
    "robustness",
    "protocol",
    "hardware",
    "commit",
    "versions",
  ];
  const lines = names
    .filter((name) => data.text(name, row))
    .map((name) => el("div", {}, el("dt", {}, name), el("dd", {}, el("code", {}, el("bdi", {}, data.text(name, row))))));
  const keys = (data.pair[row] < 0 ? [row] : data.rowsOf(data.pair[row])).map(
    (each) => `${data.key(each)} (seed ${data.text("seed", each)})`,
  );
  return el(
    "dl",
    { class: "settings-list" },
    ...lines,
    el("div", {}, el("dt", {}, "cards"), el("dd", {}, el("code", {}, keys.join(", ")))),
  );
}

function picturesOf(rows) {
  const shown = [...new Set(rows.map((row) => data.victim[row] - 1))].filter((victim) => data.pictures[victim]);
  return shown
    .slice(0, 1)
    .map((victim) =>
      el(
        "figure",
        {},
        el("img", { src: `data:image/png;base64,${data.pictures[victim]}`, alt: "What the trigger does to images" }),
        el("figcaption", {}, "What the trigger does to images of this victim."),
      ),
    );
}

const curvesOf = (rows, name) =>
  rows.filter((row) => data.curves[row] && data.curves[row][name]).map((row) => ({ row, values: data.curves[row][name] }));

function curveParts(rows) {
  const names = [...new Set(rows.flatMap((row) => Object.keys(data.curves[row] || {})))].filter(
    (name) => curvesOf(rows, name)[0].values.length,
  );
  const titles = { roc: "ROC curve", per_class: "Suspicion of each class" };
  return names.flatMap((name) => [
    el("h3", {}, titles[name] || name),
    el("div", { class: "curve", "data-curve": name, role: "img", "aria-label": titles[name] || name }),
  ]);
}

/** Other people's numbers of this cell. */
function publishedOf(pair) {
  const width = data.defenses.length;
  const found = data.published.filter((each) => each.cells.some(([threat, defense]) => threat * width + defense === pair));
  if (!found.length) return [];
  return [el("h3", {}, "Beside the papers"), el("div", { class: "scroll", tabindex: "0" }, paperTable(found, pair))];
}
