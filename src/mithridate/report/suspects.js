// Training images under suspicion: losses while learning, scores by class, and what the judge knows.

const data = JSON.parse(document.getElementById("suspects").textContent);
const LINES = ["solid", "dashed"];
const percent = (value) => `${(100 * value).toFixed(1)} %`;
const short = (value) => String(Number(value.toPrecision(3)));

/** Mean loss of each population, and around it the band that holds eight images of ten. */
function losses(populations, hues) {
  const epochs = populations[0].mean.map((_, i) => i + 1);
  const series = populations.flatMap(({ name, count, mean, low, high }, i) => {
    const tone = color(hues[i]);
    const edge = { type: "line", stack: name, symbol: "none", silent: true, lineStyle: { opacity: 0 }, tooltip: { show: false } };
    const width = high.map((value, k) => (value === null ? null : value - low[k]));
    return [
      { ...edge, name: `${name} from`, data: low },
      { ...edge, name: `${name} to`, data: width, areaStyle: { color: tone, opacity: 0.16 } },
      {
        name: `${name} (${count.toLocaleString("en")})`,
        type: "line",
        data: mean,
        symbolSize: 6,
        itemStyle: { color: tone },
        lineStyle: { color: tone, width: 2.5, type: LINES[i] },
      },
    ];
  });
  return {
    ...axes({ type: "category", data: epochs, name: "epoch", boundaryGap: epochs.length < 2 }, { name: "loss (cross-entropy)", min: 0 }),
    grid: { left: 64, right: 26, top: 44, bottom: 54 },
    legend: { top: 8, data: series.filter((_, i) => i % 3 === 2).map(({ name }) => name), textStyle: { color: color("ink"), fontSize: 13 } },
    tooltip: tooltip({ trigger: "axis", valueFormatter: (value) => (value === null ? "–" : value.toFixed(3)) }),
    series,
  };
}

/** Scores are drawn on an axis that is even around the middle and brings far ones closer, as a logarithm does. */
const bend = (score) => Math.asinh((score - data.scores.center) / data.scores.spread);
const unbend = (place) => data.scores.center + data.scores.spread * Math.sinh(place);

const scoreAxis = () => {
  const [low, high] = data.scores.range;
  const margin = 0.03 * (high - low);
  return { name: "score", min: low - margin, max: high + margin, axisLabel: { color: color("soft"), fontSize: 12, showMinLabel: false, showMaxLabel: false, hideOverlap: true, formatter: (v) => short(unbend(v)) } };
};

/** One row a class; marks are moved up and down a little, by a rule, so that they do not hide each other. */
function strip() {
  const { names, strip: classes } = data.scores;
  const points = (flag) =>
    classes.flatMap((rows, i) =>
      rows.flatMap(([score, flagged, name], k) => (flagged === flag ? [[bend(score), names.length - 1 - i + 0.62 * (((k * 0.618) % 1) - 0.5), score, name]] : [])),
    );
  const narrow = document.getElementById("strip").clientWidth < 600;
  const rows = { min: -1, max: names.length, interval: 1, splitLine: { show: false }, axisTick: { show: false } };
  const label = { color: color("ink"), fontSize: 12, width: narrow ? 84 : 150, overflow: "truncate", formatter: (v) => names[names.length - 1 - v] ?? "" };
  const kinds = [
    ["not flagged", 0, "circle", "g0", 4],
    ["flagged", 1, "path://M0 0L10 10M10 0L0 10", "bad", 7],
  ];
  return {
    ...axes(scoreAxis(), { ...rows, name: "", axisLabel: label }),
    grid: { left: narrow ? 96 : 164, right: 20, top: 40, bottom: 54 },
    legend: { top: 8, textStyle: { color: color("ink"), fontSize: 13 } },
    tooltip: tooltip({ formatter: ({ seriesName, data: [, , score, name] }) => `${name}\n${seriesName}, score ${short(score)}` }),
    series: kinds.map(([name, flag, symbol, hue, symbolSize]) => ({
      name,
      type: "scatter",
      symbol,
      symbolSize,
      data: points(flag),
      itemStyle: { color: color(hue), borderColor: color(hue), borderWidth: flag ? 1.5 : 0, opacity: flag ? 0.9 : 0.55 },
    })),
  };
}

/** Two populations' scores in common bins. */
function histogram(counts, names, hues, y, more) {
  const [low, high] = data.scores.range;
  const width = (high - low) / counts[0].length;
  const middles = counts[0].map((_, k) => short(unbend(low + (k + 0.5) * width)));
  return {
    ...axes({ type: "category", data: middles, name: "score", axisLabel: { color: color("soft"), fontSize: 12 } }, y),
    grid: { left: 64, right: 26, top: 44, bottom: 54 },
    legend: { top: 8, textStyle: { color: color("ink"), fontSize: 13 } },
    tooltip: tooltip({ trigger: "axis", valueFormatter: (value) => (value ?? 0).toLocaleString("en", { maximumFractionDigits: 1 }) }),
    series: counts.map((values, i) => ({
      name: names[i],
      type: "bar",
      data: values.map((value) => value || null),
      itemStyle: { color: color(hues[i]) },
      barCategoryGap: "8%",
      barGap: "4%",
      ...more,
    })),
  };
}

/** Counts of one class's images, or of all, stacked. */
const found = (i) => histogram(data.scores.bins[i], ["not flagged", "flagged"], ["g0", "bad"], { name: "images", minInterval: 1 }, { stack: "all" });

/** Shares, for the poisoned images may be few. */
function known() {
  const shares = data.scores.truth.map((counts) => {
    const all = counts.reduce((sum, count) => sum + count, 0);
    return counts.map((count) => (100 * count) / all);
  });
  return histogram(shares, ["clean", "poisoned"], ["calm", "judge"], { name: "% of its kind" }, {});
}

function drawScores(section) {
  const pick = section.querySelector("select");
  ["all classes", ...data.scores.names].forEach((name, i) => pick.add(new Option(name, i)));
  const place = document.getElementById("strip");
  place.classList.toggle("tall", data.scores.names.length > 14);
  place.classList.toggle("flat", data.scores.names.length < 5);
  new Chart(place, strip);
  const chart = new Chart(document.getElementById("bins"), () => found(Number(pick.value)));
  pick.addEventListener("change", () => chart.draw());
}

/** What became of the model, for the judge. */
function course() {
  const steps = data.course.map(([step]) => step);
  const line = (name, k, hue, type) => ({
    name,
    type: "line",
    data: data.course.map((row) => row[k]),
    symbolSize: 6,
    itemStyle: { color: color(hue) },
    lineStyle: { color: color(hue), width: 2.5, type },
  });
  return {
    ...axes({ type: "category", data: steps, axisLabel: { color: color("soft"), fontSize: 11, rotate: 40 } }, { min: 0, max: 1, axisLabel: { color: color("soft"), formatter: (v) => `${100 * v} %` } }),
    grid: { left: 64, right: 26, top: 44, bottom: 84 },
    legend: { top: 8, textStyle: { color: color("ink"), fontSize: 13 } },
    tooltip: tooltip({ trigger: "axis", valueFormatter: percent }),
    series: [line("clean accuracy", 1, "g0", "solid"), line("attack success rate", 2, "bad", "dashed")],
  };
}

for (const [id, key, hues] of [["loss-found", "found", ["g1", "g0"]], ["loss-truth", "truth", ["judge", "calm"]]]) {
  const place = document.getElementById(id);
  if (place) new Chart(place, () => losses(data.losses[key], hues.slice(-data.losses[key].length)));
}
if (data.scores) drawScores(document.getElementById("scores"));
if (document.getElementById("known")) new Chart(document.getElementById("known"), known);
if (document.getElementById("course")) new Chart(document.getElementById("course"), course);
document.documentElement.dataset.ready = "yes";
