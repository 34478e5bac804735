// Charts that wait until they are looked at.

const charts = [];

/** A chart that draws itself from `options()` when it comes into sight, and again when something has changed. */
class Chart {
  constructor(place, options) {
    Object.assign(this, { place, options, chart: null, seen: false });
    charts.push(this);
    new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && this.draw()).observe(place);
    new ResizeObserver(() => this.chart?.resize()).observe(place);
  }

  async draw() {
    const echarts = await library();
    this.seen = true;
    this.chart ||= echarts.init(this.place);
    this.chart.setOption(this.options(), { notMerge: true });
    this.place.dataset.drawn = "yes";
  }
}

function redraw() {
  for (const chart of charts) if (chart.seen) chart.draw();
}

/** Drawn on the canvas: the page's policy lets no chart write HTML with styles, and names come from strangers. */
const tooltip = (extra) => ({
  renderMode: "richText",
  backgroundColor: color("card"),
  borderColor: color("line"),
  textStyle: { color: color("ink"), fontSize: 13 },
  confine: true,
  ...extra,
});
