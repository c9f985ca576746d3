// The answer of GET /v1/usage, put on the page. Text only: nothing of it is ever read as HTML.

import { describe, describeDay, drawPlot } from "./plot.js";
import { count, longDay, many, resetMoment, time } from "./words.js";

const at = (id) => document.getElementById(id);

let days = [];
let quota = null;
let shown = "";
const redraw = () => drawPlot(at("plot"), days, { quota, onPoint: caption });
new ResizeObserver(() => days.length && redraw()).observe(at("plot"));

export function showReport(report) {
  put("key-name", report.name);
  put("key-id", report.key_id === report.name ? "" : report.key_id);
  showToday(report);
  // Rebuilt only if it differs, so that nobody who reads a table is thrown out of it.
  const { key_id, quota_tokens, history, history_is_complete } = report;
  const news = JSON.stringify({ key_id, quota_tokens, history, history_is_complete });
  if (news !== shown) {
    shown = news;
    showHistory(report);
    showModels(report);
  }
  put("updated", `As of ${time(new Date())}. Refreshed every 30 s while you look.`);
  put("zone", `A day is a day in ${report.time_zone}.`);
}

/** Leaves no number of one key behind for the next reader of the page. */
export function clearReport() {
  days = [];
  shown = "";
  const words = [
    "key-name", "key-id", "figure", "figure-words", "standing", "reset", "countdown",
    "history-total", "history-gap", "plot-caption", "updated", "zone",
  ];
  for (const id of words) put(id, "");
  for (const id of ["plot", "facts", "days", "models"]) at(id).replaceChildren();
  at("meter").removeAttribute("aria-valuetext");
}

/** Today in a sentence, for those who hear the page. */
export function summary(report) {
  const used = `${many(report.total_tokens, "token", "tokens")} used today`;
  if (report.quota_tokens === null) return `${used}. This key has no daily limit.`;
  return `${used}, ${count(report.remaining_tokens)} left of ${count(report.quota_tokens)}.`;
}

/** Writes only what differs: a screen reader is not told the same again. */
export function put(id, words) {
  const place = at(id);
  if (place.textContent !== words) place.textContent = words;
}

function showToday(report) {
  const { quota_tokens: limit, reserved_tokens: reserved, remaining_tokens: left } = report;
  const used = report.total_tokens;
  const hasLimit = limit !== null;
  put("figure", count(hasLimit ? left : used));
  put("figure-words", hasLimit ? `of ${count(limit)} tokens left` : "tokens used, no daily limit");
  at("meter").hidden = !hasLimit;
  if (hasLimit) showMeter(used, reserved, limit);
  put("standing", standing(report));
  put("reset", hasLimit ? resetMoment(new Date(report.resets_at)) : "");
  const facts = [
    ["Used", used], ["Reserved", reserved], ["Input", report.input_tokens],
    ["Output", report.output_tokens], ["Requests", report.requests], ["Refused", report.refusals],
  ];
  at("facts").replaceChildren(...facts.map(([name, number]) => {
    const pair = make("div");
    pair.append(make("dt", name), make("dd", count(number)));
    return pair;
  }));
}

function showMeter(used, reserved, limit) {
  const share = (tokens) => `${Math.min(100, limit ? (tokens / limit) * 100 : 100)}%`;
  const meter = at("meter");
  meter.setAttribute("aria-valuemax", limit);
  meter.setAttribute("aria-valuenow", Math.min(used + reserved, limit));
  meter.setAttribute("aria-valuetext", `${count(used)} used and ${count(reserved)} reserved of ${count(limit)}`);
  // Through the object model: a style attribute is what the content policy forbids.
  at("meter-used").style.width = share(used);
  at("meter-reserved").style.width = share(reserved);
}

function standing({ quota_tokens: limit, remaining_tokens: left, total_tokens: used }) {
  if (limit === null || left > 0) return "";
  if (used >= limit) return "Today's quota is used up. Requests are refused until it resets.";
  return "What is left is reserved by running requests, and comes back as they end.";
}

function showHistory(report) {
  days = [...report.history].reverse();
  quota = report.quota_tokens;
  const tokens = days.reduce((sum, of) => sum + of.total_tokens, 0);
  const requests = days.reduce((sum, of) => sum + of.requests, 0);
  put("history-total", tokens || requests
    ? `${many(tokens, "token", "tokens")} in ${many(requests, "request", "requests")}.`
    : "Nothing used yet. The first request will show up here.");
  put("history-gap", report.history_is_complete
    ? "" : "Earlier days cannot be read just now. They show as nothing used.");
  at("history-figure").hidden = !tokens;
  at("history-table").hidden = !days.some((of) => of.requests || of.refusals);
  redraw();
  caption(null);
  at("days").replaceChildren(...report.history.map((of) => row(longDay(of.date), [
    of.input_tokens, of.output_tokens, of.total_tokens, of.requests, of.refusals,
  ])));
}

function caption(pointed) {
  put("plot-caption", pointed ? describeDay(pointed) : describe(days));
}

function showModels(report) {
  const totals = new Map();
  for (const of of report.history) {
    for (const [model, usage] of Object.entries(of.models)) {
      const sum = totals.get(model) ?? { tokens: 0, requests: 0 };
      totals.set(model, {
        tokens: sum.tokens + usage.total_tokens, requests: sum.requests + usage.requests,
      });
    }
  }
  const byTokens = [...totals].sort(([, a], [, b]) => b.tokens - a.tokens);
  at("no-models").hidden = byTokens.length > 0;
  at("models-table").hidden = byTokens.length === 0;
  at("models").replaceChildren(...byTokens.map(([model, sum]) =>
    row(model, [report.models[model]?.total_tokens ?? 0, sum.tokens, sum.requests])));
}

function row(name, numbers) {
  const made = make("tr");
  const head = make("th", name);
  head.scope = "row";
  made.append(head, ...numbers.map((number) => make("td", count(number))));
  return made;
}

function make(tag, words = "") {
  const made = document.createElement(tag);
  made.textContent = words;
  return made;
}
