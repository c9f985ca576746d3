// Tokens per day as bars: drawn in real pixels, so that its letters stay readable on a phone.

import { compact, count, day, longDay, many } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 190;
const EDGE = { top: 12, right: 2, bottom: 24, left: 44 };
const LABEL_PIXELS = 64;

/** Draws `days` (oldest first) into `place`; `onPoint` hears a day pointed at, or null. */
export function drawPlot(place, days, { quota, onPoint }) {
  const width = place.clientWidth;
  if (!width) return;
  const most = Math.max(...days.map((of) => of.total_tokens));
  // A quota far above all use would press the bars flat, one far below says nothing about them.
  const isInSight = quota > most / 5 && quota < most * 2;
  const ceiling = isInSight ? Math.max(most, quota) : most;
  const ticks = ticksUpTo(ceiling);
  const scale = scaleOf(width, days.length, ticks.at(-1));

  const svg = element("svg", { width, height: HEIGHT, role: "img", "aria-label": `Tokens per day. ${describe(days)}` });
  for (const tick of ticks) svg.append(...gridLine(tick, scale, width));
  const band = element("rect", { class: "band", y: EDGE.top, height: HEIGHT - EDGE.top - EDGE.bottom });
  svg.append(band);
  days.forEach((of, index) => svg.append(...bar(of, index, scale)));
  if (isInSight) svg.append(...quotaLine(quota, scale, width));
  svg.append(...dayLabels(days, scale));
  follow(svg, band, days, scale, onPoint);
  place.replaceChildren(svg);
}

/** The plot in a sentence, where there is anything to plot; the table below has every number. */
export function describe(days) {
  const busiest = days.reduce((a, b) => (b.total_tokens > a.total_tokens ? b : a));
  return `Busiest: ${longDay(busiest.date)}, ${many(busiest.total_tokens, "token", "tokens")}.`;
}

/** One day in a sentence. */
export function describeDay(of) {
  const tokens = `${count(of.input_tokens)} in, ${count(of.output_tokens)} out`;
  return `${longDay(of.date)}: ${tokens}, ${many(of.requests, "request", "requests")}`;
}

/** 0 and two to five round numbers, the last at or above `most`. */
function ticksUpTo(most) {
  const rough = Math.max(most, 4) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const last = Math.ceil(Math.max(most, 4) / step);
  return Array.from({ length: last + 1 }, (_, index) => index * step);
}

function scaleOf(width, days, top) {
  const step = (width - EDGE.left - EDGE.right) / days;
  const tall = HEIGHT - EDGE.top - EDGE.bottom;
  return {
    step,
    thick: Math.max(3, Math.min(step * 0.72, 18)),
    left: (index) => EDGE.left + index * step,
    centre: (index) => EDGE.left + (index + 0.5) * step,
    y: (tokens) => HEIGHT - EDGE.bottom - (tokens / top) * tall,
    indexAt: (x) => Math.floor((x - EDGE.left) / step),
  };
}

function gridLine(tick, scale, width) {
  const y = Math.round(scale.y(tick)) + 0.5;
  const line = element("line", { class: tick ? "grid" : "base", x1: EDGE.left, x2: width, y1: y, y2: y });
  return [line, text(compact(tick), { x: EDGE.left - 8, y: y + 4, "text-anchor": "end" })];
}

function quotaLine(quota, scale, width) {
  const y = Math.round(scale.y(quota)) + 0.5;
  const line = element("line", { class: "quota", x1: EDGE.left, x2: width, y1: y, y2: y });
  return [line, text("quota", { class: "quota", x: width - 2, y: y - 5, "text-anchor": "end" })];
}

function bar(of, index, scale) {
  const x = scale.centre(index) - scale.thick / 2;
  const [zero, middle, top] = [0, of.input_tokens, of.total_tokens].map(scale.y);
  return [["input", zero, middle], ["output", middle, top]]
    .filter(([, from, to]) => from - to >= 0.5)
    .map(([kind, from, to]) =>
      element("rect", { class: kind, x, y: to, width: scale.thick, height: from - to }));
}

function dayLabels(days, scale) {
  const last = days.length - 1;
  const every = scale.step * 7 < LABEL_PIXELS ? 14 : 7;
  return days.flatMap((of, index) => {
    if ((last - index) % every) return [];
    const [x, anchor] = index === last
      ? [scale.left(index + 1), "end"] : [scale.centre(index), "middle"];
    return [text(index === last ? "today" : day(of.date), { x, y: HEIGHT - 6, "text-anchor": anchor })];
  });
}

function follow(svg, band, days, scale, onPoint) {
  svg.addEventListener("pointermove", (event) => {
    const index = scale.indexAt(event.offsetX);
    if (!days[index]) return;
    band.setAttribute("x", scale.left(index));
    band.setAttribute("width", scale.step);
    onPoint(days[index]);
  });
  svg.addEventListener("pointerleave", () => {
    band.setAttribute("width", 0);
    onPoint(null);
  });
}

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function text(words, attributes) {
  const made = element("text", attributes);
  made.textContent = words;
  return made;
}
