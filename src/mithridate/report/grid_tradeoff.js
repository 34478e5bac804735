// Security against accuracy: every model that a defense gave, the mean of each defense, and the undefended victims.

const MARKS = 3000; // small marks drawn; of more, every second threat, or third, and so on
const CROSS = "path://M0 0L1 0L5 4L9 0L10 0L10 1L6 5L10 9L10 10L9 10L5 6L1 10L0 10L0 9L4 5L0 1z";
const shares = ([x, y]) => [100 * x, 100 * y];
const versus = () => measureOf(state.versus) || measureOf("asr");

/** Clean accuracy against what an attack reaches: a small mark a defense and threat, a large one its mean over the common threats. */
async function drawTradeoff(node) {
  const across = versus();
  const { sorted: groups, every, threats } = once(`tradeoff ${across.id}`, () => tradeoff(across));
  node.querySelector(".thinned").textContent = threats
    ? `A large mark is a mean over the ${plural(threats, "threat")} that all trainers and repairs have finished; the line joins those that none beats in both.`
    : "No threat was finished by all of them, so there are no means.";
  if (every > 1)
    node.querySelector(".thinned").textContent +=
      ` So many small marks that only those of one threat in ${every} are drawn; filter to see the others. Means are over all.`;
  drawLegend(node.querySelector(".legend"), groups);
  node.querySelector(".empty").hidden = groups.length > 0;
  const place = node.querySelector(".plot");
  place.hidden = !groups.length;
  if (!groups.length) return;
  const echarts = await library();
  if (memo.get(`tradeoff ${across.id}`)?.sorted !== groups) return; // the reader went on meanwhile
  const chart = echarts.getInstanceByDom(place) || listen(echarts.init(place));
  if (chart.getWidth() !== place.clientWidth) chart.resize();
  const span = (name, values) => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const interval = high - low < 25 ? 5 : high - low < 60 ? 10 : 20;
    return { min: interval * Math.floor(low / interval), max: Math.min(100, interval * Math.ceil(high / interval)), interval, name };
  };
  const heights = groups.flatMap((group) => group.points.map((point) => 100 * point[1]));
  const way = across.better === "low" ? "← better" : "better →";
  const named = across.better === "low" ? `${way}      ${across.label}, %` : `${across.label}, %      ${way}`;
  const options = axes({ min: 0, max: 100, name: named }, span("Clean accuracy, %      better →", heights));
  const shown = groups.filter((group) => !state.off.has(group.spec));
  const series = [front(shown, across), smallMarks(shown), means(shown, labelSides(shown, options, place))];
  chart.setOption({ ...options, series }, { replaceMerge: ["series"] });
}

function tradeoff(across) {
  const accuracy = averages(measureOf("accuracy"));
  const reached = averages(across);
  const groups = new Map();
  const width = data.defenses.length;
  const both = reached.mean.map((value, pair) => (Number.isNaN(accuracy.mean[pair]) ? NaN : value));
  const every = Math.ceil(both.filter((value) => !Number.isNaN(value)).length / MARKS);
  for (let pair = 0; pair < both.length; pair++) {
    if (Number.isNaN(both[pair])) continue;
    const id = pair % width;
    if (!groups.has(id)) groups.set(id, { id, ...data.defenses[id], points: [], pairs: [], style: styleOf(id) });
    if (Math.floor(pair / width) % every) continue;
    groups.get(id).points.push([both[pair], accuracy.mean[pair]]);
    groups.get(id).pairs.push(pair);
  }
  const { lines, common, threats } = compare(["trainer", "repair"], ["clean", "backdoor"], [across, measureOf("accuracy")]);
  if (common) for (const each of lines) if (groups.has(each.id)) groups.get(each.id).mean = [each[across.id].mean, each.accuracy.mean];
  const order = ["none", "trainer", "repair"];
  const sorted = [...groups.values()].sort((a, b) => order.indexOf(a.role) - order.indexOf(b.role) || a.name.localeCompare(b.name));
  return { sorted, every, threats };
}

/** A line through the means that no other beats in both numbers. */
function front(groups, across) {
  const sign = across.better === "low" ? -1 : 1;
  const all = groups.filter(({ mean }) => mean).map(({ mean }) => mean);
  const best = all.filter(([x, y]) => !all.some(([u, v]) => sign * u >= sign * x && v >= y && (u !== x || v !== y)));
  const style = { color: color("soft"), type: "dashed", width: 1.5 };
  return {
    type: "line",
    id: "front",
    silent: true,
    symbol: "none",
    data: best.sort((a, b) => a[0] - b[0]).map(shares),
    lineStyle: style,
    z: 3,
  };
}

/** On which side of each mean its name has room; names without any are left out, the pointer tells them. */
function labelSides(groups, { grid, yAxis }, place) {
  const [wide, high] = [place.clientWidth - grid.left - grid.right, place.clientHeight - grid.top - grid.bottom];
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = `600 12px ${FONT}`;
  const named = groups.filter(({ mean }) => mean);
  const at = ({ mean: [x, y] }) => [x * wide, (1 - (100 * y - yAxis.min) / (yAxis.max - yAxis.min)) * high];
  const taken = named.map(at).map(([x, y]) => [x - 8, y - 8, x + 8, y + 8]);
  const found = new Map();
  for (const group of named) {
    const [x, y] = at(group);
    const half = pen.measureText(group.name).width / 2;
    const rooms = {
      right: [x + 9, y - 7, x + 14 + 2 * half, y + 7],
      left: [x - 14 - 2 * half, y - 7, x - 9, y + 7],
      top: [x - half, y - 24, x + half, y - 9],
      bottom: [x - half, y + 9, x + half, y + 24],
    };
    const free = ([x0, y0, x1, y1]) =>
      x0 > 0 &&
      x1 < wide + grid.right &&
      y0 > 0 &&
      y1 < high &&
      !taken.some((each) => x0 < each[2] && x1 > each[0] && y0 < each[3] && y1 > each[1]);
    const side = Object.keys(rooms).find((each) => free(rooms[each]));
    if (!side) continue;
    taken.push(rooms[side]);
    found.set(group, side);
  }
  return found;
}

const shapeOf = ({ style }) => (style.shape === "cross" ? CROSS : style.shape);

/** One series of every small mark: x, y, which defense, and which cell; one series a defense would take ten times as long. */
function smallMarks(groups) {
  const points = groups.flatMap((group, i) => group.points.map((point, k) => [...shares(point), i, group.pairs[k]]));
  const look = { color: ({ value }) => groups[value[2]].style.color, opacity: 0.45 };
  return { type: "scatter", id: "small", symbol: (value) => shapeOf(groups[value[2]]), symbolSize: 7, itemStyle: look, data: points };
}

/** The large marks, with their names where there is room. */
function means(groups, sides) {
  const text = { color: color("ink"), fontSize: 12, fontWeight: 600, textBorderColor: color("card"), textBorderWidth: 3 };
  const points = groups
    .filter(({ mean }) => mean)
    .map((group) => ({
      name: group.spec,
      value: shares(group.mean),
      symbol: shapeOf(group),
      itemStyle: { color: group.style.color, opacity: 1, borderColor: color("card"), borderWidth: 1.5 },
      label: { show: sides.has(group), position: sides.get(group), formatter: () => group.name, ...text },
    }));
  return { type: "scatter", id: "means", symbolSize: 17, data: points, z: 5 };
}

/** Marks answer the pointer as the heat map's cells do. */
function listen(chart) {
  chart.on("mouseover", (event) => {
    const { clientX, clientY } = event.event.event;
    const [x, y, , pair] = event.value;
    const defense = data.defenses.find(({ spec }) => spec === event.name);
    const mean = () => `Mean over the common threats: ${versus().label} ${x.toFixed(1)} %, clean accuracy ${y.toFixed(1)} %.`;
    showTip(
      clientX,
      clientY,
      ...(event.seriesId === "small" ? aboutCell(pair, versus()) : [el("b", {}, defense.name), el("p", {}, mean())]),
    );
  });
  chart.on("mouseout", hideTip);
  chart.on("click", (event) => (event.seriesId === "small" ? openCell(event.value[3]) : showMethod(event.name)));
  addEventListener("resize", () => chart.resize());
  return chart;
}

function drawLegend(node, groups) {
  const toggle = (spec) => change(() => (state.off.has(spec) ? state.off.delete(spec) : state.off.add(spec)));
  node.replaceChildren(
    ...groups.map((group) =>
      el(
        "button",
        {
          type: "button",
          class: "chip",
          title: group.spec,
          "aria-pressed": String(!state.off.has(group.spec)),
          onclick: () => toggle(group.spec),
        },
        symbol(group.style),
        el("bdi", {}, defenseName(group)),
      ),
    ),
  );
}
