// Draws each chart from the table below it, so that both always say the same.
/* global uPlot */
const HEIGHT = 220;
const [HOUR, DAY] = [3600, 86400];
const APART = [1, 2, 3, 6, 12].map((hours) => hours * HOUR).concat([1, 2, 3, 7, 14, 28, 91, 182, 364].map((days) => days * DAY));
const charts = new Map();
const redrawn = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) {
    const chart = charts.get(target);
    if (chart && Math.abs(chart.width - contentRect.width) > 1) chart.setSize({ width: contentRect.width, height: HEIGHT });
  }
});

export function drawCharts() {
  for (const [place, chart] of charts) { chart.destroy(); charts.delete(place); }
  for (const figure of document.querySelectorAll("figure.plot")) drawChart(figure);
}

function drawChart(figure) {
  const place = figure.querySelector(".canvas");
  const rows = [...figure.querySelectorAll("tbody tr")];
  const heads = [...figure.querySelectorAll("thead th")].slice(1);
  const times = rows.map((row) => Number(row.dataset.at));
  const values = heads.map((_, column) => rows.map((row) => {
    const data = row.cells[column + 1].querySelector("data");
    return data ? Number(data.value) : null;
  }));
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const [ink, grid] = [colour("quiet-ink"), colour("line")];
  const font = `12px ${style.fontFamily || "sans-serif"}`;
  const axis = { stroke: ink, font, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1, size: 4 } };
  const zone = figure.dataset.zone;
  const links = rows.map((row) => row.cells[0].querySelector("a")?.href);
  const single = times.length === 1;
  const stepSeconds = { hour: 3600, day: 86400, week: 604800, month: 2678400 }[figure.dataset.step];
  const options = {
    width: place.clientWidth, height: HEIGHT,
    tzDate: (at) => uPlot.tzDate(new Date(at * 1e3), zone),
    cursor: { drag: { x: true, y: false, setScale: false }, points: { size: 6 } },
    select: { show: true },
    legend: { live: true },
    scales: {
      x: { time: true, range: (_, low, high) => single || figure.querySelector("[data-form=bar]") ? [low - stepSeconds / 2, high + stepSeconds / 2] : [low, high] },
      // From zero: a bar, or a line of counts, that begins elsewhere exaggerates.
      y: { range: (_, low, high) => [Math.min(0, low ?? 0), (high || 1) * 1.08] },
    },
    axes: [
      { ...axis, size: 34, space: 70, incrs: APART.filter((apart) => apart >= Math.min(stepSeconds, 7 * DAY)), values: (_, ticks) => ticks.map((at) => tick(at, zone, ticks[1] - ticks[0])) },
      { ...axis, label: figure.dataset.unit, labelFont: font, labelSize: 18, size: 56, values: (_, ticks) => ticks.map(short) },
    ],
    series: [{ value: (_, at) => (at == null ? "–" : label(at, figure.dataset)) }, ...heads.map((head) => series(head, colour))],
    bands: bandsOf(heads, colour),
    plugins: [marksOf(figure, colour("warnings"))],
  };
  const chart = new uPlot(options, [times, ...values], place);
  charts.set(place, chart);
  redrawn.observe(place);
  chart.over.addEventListener("click", () => {
    const at = chart.cursor.idx;
    if (at != null && links[at] && chart.select.width < 4) location.href = links[at];
  });
  chart.hooks.setSelect = [() => {
    if (chart.select.width < 4) return;
    const from = chart.posToIdx(chart.select.left);
    const to = chart.posToIdx(chart.select.left + chart.select.width);
    if (to > from) zoom(times[from], times[to] + stepSeconds);
  }];
}

function series(head, colour) {
  const { form } = head.dataset;
  // Over bars of its own colour a line would not be seen.
  const isOverBars = form === "thin" && head.closest("tr").querySelector("[data-form=bar]");
  const stroke = colour(isOverBars ? "ink" : head.dataset.colour);
  const shown = { label: head.textContent.trim(), stroke, spanGaps: false, points: { show: form === "line" ? undefined : false, size: 5, filter: form === "bar" ? undefined : alone }, value: (_, value) => (value == null ? "–" : value.toLocaleString("en", { maximumFractionDigits: 1 })) };
  if (form === "bar") return { ...shown, fill: stroke + (head.dataset.colour === "errors" ? "" : "b0"), width: 0, paths: uPlot.paths.bars({ size: [0.7, 48], align: 0 }) };
  if (form === "thin") return { ...shown, width: 1.25, dash: [4, 4] };
  if (form === "low" || form === "high") return { ...shown, width: 1 };
  return { ...shown, width: 2 };
}

// What no line leads to or from would not be seen without a point.
function alone(chart, number, isShown) {
  if (isShown) return null;
  const values = chart.data[number];
  return values.flatMap((value, at) => (value != null && values[at - 1] == null && values[at + 1] == null ? [at] : []));
}

function bandsOf(heads, colour) {
  const low = heads.findIndex((head) => head.dataset.form === "low") + 1;
  const high = heads.findIndex((head) => head.dataset.form === "high") + 1;
  return low && high ? [{ series: [high, low], fill: colour(heads[low - 1].dataset.colour) + "26" }] : [];
}

function marksOf(figure, stroke) {
  const marks = [...figure.querySelectorAll(".marks li")].map((mark) => Number(mark.dataset.at));
  return { hooks: { draw: [(chart) => {
    const { ctx, bbox } = chart;
    ctx.save();
    ctx.strokeStyle = stroke;
    ctx.setLineDash([3, 3]);
    for (const at of marks) {
      const x = Math.round(chart.valToPos(at, "x", true)) + 0.5;
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  }] } };
}

function zoom(from, to) {
  const url = new URL(location.href);
  url.searchParams.set("range", "custom");
  url.searchParams.set("start", new Date(from * 1e3).toISOString());
  url.searchParams.set("end", new Date(to * 1e3).toISOString());
  location.href = url.href;
}

function label(at, { step, zone }) {
  const shown = { timeZone: zone, month: "short", day: "numeric", ...(step === "hour" ? { hour: "2-digit", minute: "2-digit", hourCycle: "h23" } : { year: "numeric" }) };
  return new Intl.DateTimeFormat("en-GB", shown).format(new Date(at * 1e3));
}

function tick(at, zone, apart) {
  const date = new Date(at * 1e3);
  const day = new Intl.DateTimeFormat("en-GB", { timeZone: zone, day: "numeric", month: "short" }).format(date);
  if (apart >= 86400) return day;
  const time = new Intl.DateTimeFormat("en-GB", { timeZone: zone, hour: "2-digit", minute: "2-digit" }).format(date);
  return time === "00:00" ? day : time;
}

function short(value) {
  if (value == null) return "";
  const size = Math.abs(value);
  if (size >= 1e9) return `${+(value / 1e9).toFixed(1)} G`;
  if (size >= 1e6) return `${+(value / 1e6).toFixed(1)} M`;
  if (size >= 1e4) return `${+(value / 1e3).toFixed(1)} k`;
  return value.toLocaleString("en");
}
