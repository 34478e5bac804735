// The three views: histograms, the class path, and planes of activations, of those populations that are shown.

const data = JSON.parse(document.getElementById("views").textContent);
const HUES = ["g0", "g1", "g3", "g2", "g4", "g5", "g6", "g7"];
const DASHES = ["solid", "dashed", "dotted"];
const MARKS = ["circle", "triangle", "rect", "diamond"];
const ROUTE = ["the class it ends in", "its true class", "another class"];
const BINS = 24;
const shown = new Set(data.populations.keys());

const lookOf = (i) => ({
  name: data.populations[i].name,
  itemStyle: { color: color(HUES[i % HUES.length]) },
  lineStyle: { color: color(HUES[i % HUES.length]), width: 2, type: DASHES[i % DASHES.length] },
});

/** Shares of each population's values in common bins, as lines with steps. */
function histogram(name, columns, range) {
  const all = columns.flat();
  const sorted = Float64Array.from(all).sort();
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  const [low, high] = range || [at(0.005), Math.max(at(0.995), at(0.005) + 1e-9)];
  const width = (high - low) / BINS;
  const bin = (value) => Math.max(0, Math.min(BINS - 1, Math.floor((value - low) / width)));
  const series = [...shown].map((i) => {
    const counts = new Array(BINS).fill(0);
    for (const value of columns[i]) counts[bin(value)] += 100 / columns[i].length;
    const points = counts.map((share, k) => [low + k * width, share]);
    points.push([high, counts[BINS - 1]]);
    return { type: "line", step: "end", symbol: "none", data: points, areaStyle: { opacity: 0.12 }, ...lookOf(i) };
  });
  const share = (value) => `${value.toFixed(1)} %`;
  return {
    ...axes({ name, min: low, max: high, axisLabel: { color: color("soft"), formatter: (v) => Number(v.toPrecision(3)) } }, { name: "% of the inputs" }),
    tooltip: tooltip({ trigger: "axis", valueFormatter: share }),
    series,
  };
}

function drawSensitivity(section) {
  const [slider, told] = [section.querySelector("input"), section.querySelector("output")];
  slider.value = Math.max(0, data.levels.findIndex((level) => level.chosen));
  const chart = new Chart(section.querySelector(".plot"), () => histogram("label-change rate", data.levels[slider.value].rates, [0, 1]));
  const say = () => {
    const { level, rates, chosen } = data.levels[slider.value];
    const changed = (100 * rates[0].reduce((sum, rate) => sum + rate, 0)) / rates[0].length;
    const own = chosen ? "; the strength that the detector chooses on clean images" : "";
    told.textContent = `${level} standard deviations of the weights: the copies change ${changed.toFixed(1)} % of the clean answers${own}`;
  };
  slider.addEventListener("input", () => {
    say();
    chart.draw();
  });
  say();
}

/** One chart a population: where its inputs' neighbors belong, layer by layer. */
function drawPath(place) {
  data.populations.forEach(({ name }, i) => {
    const [figure, title, plot] = ["figure", "figcaption", "div"].map((tag) => document.createElement(tag));
    title.textContent = name;
    plot.className = "plot";
    figure.append(title, plot);
    figure.dataset.population = i;
    place.append(figure);
    new Chart(plot, () => route(i));
  });
}

function route(i) {
  const tones = [color(HUES[i % HUES.length]), color("calm"), color("rail")];
  const layers = data.path.map(({ layer }) => layer);
  const base = axes(
    { type: "category", data: layers, axisLabel: { color: color("soft"), fontSize: 10, interval: 0, rotate: 40, width: 110, overflow: "truncate" } },
    { min: 0, max: 100, axisLabel: { color: color("soft"), formatter: "{value} %" } },
  );
  return {
    ...base,
    grid: { left: 52, right: 12, top: 42, bottom: 84 },
    legend: { top: 2, left: 0, textStyle: { color: color("soft"), fontSize: 11 }, itemWidth: 14, data: ROUTE },
    tooltip: tooltip({ trigger: "axis", valueFormatter: (value) => `${value.toFixed(1)} %` }),
    series: ROUTE.map((name, k) => ({
      name,
      type: "bar",
      stack: "all",
      barCategoryGap: "12%",
      data: data.path.map(({ shares }) => 100 * shares[i][k]),
      itemStyle: { color: tones[k] },
    })),
  };
}

function drawPlane(section) {
  const pick = section.querySelector("select");
  data.planes.forEach(({ layer }, i) => pick.add(new Option(layer, i)));
  pick.value = data.planes.length - 1;
  const called = (c) => data.classes[c] ?? "unknown";
  const chart = new Chart(section.querySelector(".plane"), () => ({
    ...axes({ scale: true, name: "first component" }, { scale: true, name: "second component" }),
    dataZoom: [
      { type: "inside", xAxisIndex: 0 },
      { type: "inside", yAxisIndex: 0 },
    ],
    tooltip: tooltip({
      formatter: ({ seriesName, data: [, , truth, answer] }) => `${seriesName}\ntrue class ${called(truth)}, answer ${called(answer)}`,
    }),
    series: [...shown].map((i) => ({
      type: "scatter",
      symbol: MARKS[i % MARKS.length],
      symbolSize: 6,
      data: data.planes[pick.value].points[i].map((point, k) => [...point, data.labels[i][k], data.predicted[i][k]]),
      ...lookOf(i),
      itemStyle: { color: color(HUES[i % HUES.length]), opacity: 0.65 },
    })),
  }));
  pick.addEventListener("change", () => chart.draw());
}

function drawFeatures(section) {
  const [pick, meaning] = [section.querySelector("select"), section.querySelector(".meaning")];
  const measures = data.measures.filter(({ view }) => view === "feature space");
  measures.forEach(({ name }, i) => pick.add(new Option(name, i)));
  const chart = new Chart(section.querySelector(".plot"), () => histogram(measures[pick.value].name, measures[pick.value].values));
  const say = () => (meaning.textContent = measures[pick.value].note);
  pick.addEventListener("change", () => {
    say();
    chart.draw();
  });
  say();
}

for (const button of document.querySelectorAll(".kind"))
  button.addEventListener("click", () => {
    const i = Number(button.dataset.population);
    if (shown.has(i)) shown.delete(i);
    else shown.add(i);
    button.setAttribute("aria-pressed", String(shown.has(i)));
    for (const figure of document.querySelectorAll("figure[data-population]")) figure.hidden = !shown.has(Number(figure.dataset.population));
    redraw();
  });

drawSensitivity(document.getElementById("sensitivity"));
drawPath(document.querySelector("#path .small"));
drawPlane(document.getElementById("path"));
drawFeatures(document.getElementById("features"));
document.documentElement.dataset.ready = "yes";
