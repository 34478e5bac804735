// The marks of defenses, and a card's curves.

const SHAPES = ["circle", "rect", "triangle", "diamond", "arrow"];
const HUES = 8; // with five shapes, forty different marks
const sketches = {
  circle: "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z",
  rect: "M-4.5-4.5h9v9h-9z",
  triangle: "M0-5.5l5 9.5h-10z",
  diamond: "M0-6l6 6-6 6-6-6z",
  arrow: "M0-6l4.5 11-4.5-3.5-4.5 3.5z",
  cross: "M-4-4l8 8m0-8l-8 8",
};

/** Color and shape of a defense: the same everywhere on the page. */
function styleOf(id) {
  const { role } = data.defenses[id];
  if (role === "none") return { color: color("soft"), shape: "cross" };
  const place = once("styled", () =>
    data.defenses
      .map((_, i) => i)
      .filter((i) => measureOf("asr").roles.includes(data.defenses[i].role) && data.defenses[i].role !== "none"),
  ).indexOf(id);
  return { color: color(`g${place % HUES}`), shape: SHAPES[place % SHAPES.length] };
}

function symbol({ color: fill, shape }, size = 14) {
  const drawn = shape === "cross" ? { fill: "none", stroke: fill, "stroke-width": 2 } : { fill };
  return svg(
    "svg",
    { viewBox: "-7 -7 14 14", width: size, height: size, "aria-hidden": "true" },
    svg("path", { d: sketches[shape], ...drawn }),
  );
}

/** Curves of some cards in one chart: points are joined to a line, values are drawn as bars. */
async function drawCurves(place, name, curves) {
  const echarts = await library();
  if (!place.isConnected) return;
  const chart = echarts.init(place);
  const points = Array.isArray(curves[0].values[0]);
  const look = (i) => ({
    itemStyle: { color: color(`g${i % HUES}`) },
    lineStyle: { color: color(`g${i % HUES}`), width: 2, type: ["solid", "dashed", "dotted"][i % 3] },
  });
  if (points) {
    const roc =
      name === "roc"
        ? [
            {
              type: "line",
              data: [
                [0, 0],
                [1, 1],
              ],
              symbol: "none",
              silent: true,
              lineStyle: { color: color("soft"), type: "dashed", width: 1 },
            },
          ]
        : [];
    const lines = curves.map(({ values }, i) => ({ type: "line", symbol: "none", data: values, ...look(i) }));
    const titled =
      name === "roc"
        ? [
            { min: 0, max: 1, name: "false-positive rate" },
            { min: 0, max: 1, name: "true-positive rate" },
          ]
        : [{}, {}];
    chart.setOption({ ...axes(...titled), series: [...roc, ...lines] });
    return;
  }
  const labels = curves[0].values.map((_, i) => String(i));
  const bars = curves.map(({ values }, i) => ({ type: "bar", data: values, ...look(i) }));
  chart.setOption({
    ...axes(
      { type: "category", data: labels, name: name === "per_class" ? "class" : name },
      { name: name === "per_class" ? "suspicion" : "" },
    ),
    series: bars,
  });
}
