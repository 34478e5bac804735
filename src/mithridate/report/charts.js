// What all pages with charts share: Apache ECharts, unpacked when the first chart comes into sight, and one look.

const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", Arial, sans-serif';

/** What a base64 gzip stream in the page holds. */
function inflate(id) {
  const text = document.getElementById(id).textContent;
  const bytes = Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")));
}

const library = () => (library.loading ||= loadLibrary());

/** Run the packed library as a script; the page's policy allows just this text. */
async function loadLibrary() {
  const script = document.createElement("script");
  script.textContent = await (await inflate("echarts")).text();
  document.head.append(script);
  return window.echarts;
}

/** The colors of the page's scheme, read again when it changes; every page says how it draws itself again. */
const theme = { dark: matchMedia("(prefers-color-scheme: dark)"), colors: new Map() };
theme.dark.addEventListener("change", () => {
  theme.colors.clear();
  redraw();
});

function color(name) {
  if (!theme.colors.has(name)) theme.colors.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  return theme.colors.get(name);
}

/** What all charts share: no animation, no HTML, the page's font and colors. */
function axes(x, y) {
  const axis = (each) => ({
    type: "value",
    nameLocation: "middle",
    nameGap: 30,
    axisLine: { show: true, onZero: false, lineStyle: { color: color("soft") } },
    splitLine: { lineStyle: { color: color("line") } },
    nameTextStyle: { color: color("ink"), fontSize: 13 },
    axisLabel: { color: color("soft"), fontSize: 12 },
    ...each,
  });
  return {
    animation: false,
    textStyle: { fontFamily: FONT },
    grid: { left: 64, right: 26, top: 26, bottom: 54 },
    xAxis: axis(x),
    yAxis: axis({ nameGap: 42, ...y }),
  };
}
