// The page: filters above, and below them one defense, or everything.

const map = new HeatMap(document.querySelector("#map .map"));
new MapPointer(map);
const table = new Cards(document.querySelector("#cards-table .cards"));

/** The measure that the reader chose, or the first that the cards have. */
function chosenMeasure() {
  const there = (each) =>
    data.columns.has(`${each.part} ${each.name}`) && data.defenses.some(({ role }) => role !== "none" && each.roles.includes(role));
  return measureOf(state.metric) || data.measures.find(there) || data.measures[0];
}

function options(select, measures, value) {
  select.replaceChildren(...measures.map((each) => el("option", { value: each.id, selected: each.id === value }, each.label)));
}

function drawMap(node) {
  const measure = chosenMeasure();
  const { rows, columns } = map.load(measure);
  node.querySelector(".empty").hidden = rows > 0;
  node.querySelector(".frame").hidden = !rows;
  node.querySelector("select").value = measure.id;
  node.querySelector(".meaning").textContent =
    `${measure.meaning} ${{ low: "Lower is better.", high: "Higher is better.", "": "" }[measure.better]}`;
  const { low, high, ramp } = map.scale;
  const ends = measure.better === "high" ? [high, low] : [low, high];
  const colors = Array.from({ length: 9 }, (_, i) => `rgb(${onRamp(ramp, i / 8)})`);
  const key = node.querySelector(".ramp");
  key.querySelector(".colors").style.background = `linear-gradient(to right, ${colors.join(", ")})`;
  key.querySelector(".from").textContent = `${measure.better ? "better " : ""}${written(measure, ends[0])}`;
  key.querySelector(".to").textContent = `${written(measure, ends[1])}${measure.better ? " worse" : ""}`;
  node.querySelector(".size").textContent = `${plural(rows, "threat")} × ${plural(columns, "defense")}`;
}

/** One list of check boxes a filter; a filter with a single value is no choice and is left out. */
function drawFilters() {
  const named = { role: (word) => ROLES[word], rate: (word) => (word === "" ? "none" : rateName(word)), seed: (word) => `seed ${word}` };
  const lists = FILTERS.map((name) => {
    const { words } = data.fields.get(name);
    if (words.length < 2) return null;
    const picked = state.picked.get(name);
    const show = named[name] || ((word) => word || "none");
    const summary = picked.size ? [...picked].map(show).join(", ") : "all";
    const boxes = words.toSorted(inOrder).map((word) =>
      el(
        "label",
        {},
        el("input", {
          type: "checkbox",
          checked: picked.has(word),
          onchange: (event) => change(() => (event.target.checked ? picked.add(word) : picked.delete(word))),
        }),
        el("bdi", {}, show(word)),
      ),
    );
    const open = document.querySelector(`#filters details[data-name=${name}]`)?.open;
    return el(
      "details",
      { "data-name": name, name: "filter", open },
      el(
        "summary",
        { class: picked.size ? "set" : "" },
        el("span", { class: "note" }, { dataset: "data set" }[name] || name),
        ` ${summary}`,
      ),
      el("div", { class: "boxes" }, ...boxes),
    );
  });
  const focus = document.activeElement?.closest?.("#filters details");
  const place = focus && [focus.dataset.name, [...focus.querySelectorAll("input, summary")].indexOf(document.activeElement)];
  document.querySelector("#filters .lists").replaceChildren(...lists.filter(Boolean));
  if (place) document.querySelector(`#filters details[data-name=${place[0]}]`)?.querySelectorAll("input, summary")[place[1]]?.focus();
  const search = document.querySelector("#filters input[type=search]");
  if (search !== document.activeElement) search.value = state.text;
}

function drawCount() {
  const n = rowsShown().length;
  document.querySelector("#filters .count").textContent =
    n === data.count ? plural(n, "cell") : `${n.toLocaleString("en")} of ${plural(data.count, "cell")}`;
  document.querySelector("#filters .reset").hidden = n === data.count && !state.off.size;
}

/** Which parts of the page there are in this view. */
function show() {
  const one = ownPage() >= 0;
  document.getElementById("method").hidden = !one;
  for (const node of document.querySelectorAll(".overview")) node.hidden = one || (node.id === "papers" && !data.published.length);
}

/** Go to the top of a defense's page when it opens. */
function arrive() {
  if (state.defense && state.defense !== arrive.at) document.getElementById("filters").scrollIntoView();
  arrive.at = state.defense;
}

function listenToReader() {
  const [metric, versus, search] = ["#map select", "#tradeoff select", "#filters input[type=search]"].map((each) =>
    document.querySelector(each),
  );
  const there = (each) => data.columns.has(`${each.part} ${each.name}`);
  options(metric, data.measures.filter(there), chosenMeasure().id);
  options(
    versus,
    data.measures.filter((each) => there(each) && (each.id === "asr" || each.id.startsWith("robust"))),
    "asr",
  );
  metric.addEventListener("change", () => change(() => (state.metric = metric.value)));
  versus.addEventListener("change", () => change(() => (state.versus = versus.value)));
  search.addEventListener("input", () => change(() => (state.text = search.value.trim())));
  document.querySelector("#filters .reset").addEventListener("click", () =>
    change(() => {
      for (const picked of state.picked.values()) picked.clear();
      state.off.clear();
      state.text = search.value = "";
    }),
  );
  document.getElementById("download").addEventListener("click", download);
  document.querySelector("#panel .close").addEventListener("click", () => panel.close());
  for (const button of document.querySelectorAll("[data-go]"))
    button.addEventListener("click", () => document.getElementById(button.dataset.go).scrollIntoView({ behavior: "smooth" }));
  addEventListener("pointerdown", (event) => {
    for (const list of document.querySelectorAll("#filters details[open]")) if (!list.contains(event.target)) list.open = false;
  });
  addEventListener("popstate", () => {
    readAddress();
    refresh();
  });
}

readAddress();
listenToReader();
always.push(show, drawFilters, drawCount, showPanel, arrive);
section("method", drawMethod, () => state.defense);
section("standings", drawStandings);
section("map", drawMap, () => state.metric);
section("tradeoff", drawTradeoff, () => state.versus);
section("costs", drawCosts);
section("papers", (node) => node.querySelector(".tables").replaceChildren(paperTable(data.published)));
section(
  "cards-table",
  () => table.load(),
  () => state.sort,
);
refresh();
performance.mark("ready");
document.documentElement.dataset.ready = "yes";
setTimeout(drawRest, 300);
