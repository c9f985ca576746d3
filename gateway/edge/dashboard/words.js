// Numbers, times and troubles as people say them.

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const moment = new Intl.DateTimeFormat("en-GB", {
  weekday: "long", day: "numeric", month: "long", hour: "2-digit", minute: "2-digit",
});
// Days are dates of the quota's time zone: shown as they are, never shifted.
const dayFormat = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
const longDayFormat = new Intl.DateTimeFormat("en-GB", {
  weekday: "short", day: "numeric", month: "short", timeZone: "UTC",
});

export const count = (number) => whole.format(number);
export const compact = (number) => short.format(number);
export const time = (date) => clock.format(date);
export const day = (text) => dayFormat.format(new Date(text));
export const longDay = (text) => longDayFormat.format(new Date(text));
export const many = (number, one, more) => `${count(number)} ${number === 1 ? one : more}`;

/** When the quota comes back, in the reader's own time. */
export const resetMoment = (date) => `Resets on ${moment.format(date)} your time,`;

export function countdown(milliseconds) {
  const left = Math.ceil(milliseconds / 1000);
  if (left <= 0) return "any moment now.";
  const [hours, minutes, seconds] = [Math.floor(left / 3600), Math.floor(left / 60) % 60, left % 60];
  if (hours) return `in ${hours} h ${minutes} min.`;
  return minutes ? `in ${minutes} min ${seconds} s.` : `in ${seconds} s.`;
}

const KEY_TROUBLES = {
  api_key_expired: "This key has expired. Ask the operator for a new one.",
  api_key_revoked: "This key was revoked or replaced. Ask the operator for the one that counts now.",
};
const UNKNOWN_KEY = "This gateway does not know that key. Check that you copied all of it.";

/** Why the key does not open anything. */
export const keyTrouble = (code) => KEY_TROUBLES[code] ?? UNKNOWN_KEY;

/** Why there are no fresh numbers, and what happens next. */
export function trouble({ kind, status }, retryAt) {
  const again = `This page tries again by itself at ${time(retryAt)}.`;
  if (kind === "limit") return `Too many requests came from your address. ${again}`;
  if (kind === "away") {
    return `The gateway does not answer. It may be restarting, or the network is down. ${again}`;
  }
  return `The gateway could not say what was used (status ${status}). ${again}`;
}

// What /ready says to operators, and what it means to those who only use the service.
const REASONS = [
  [/draining/, "The gateway is restarting. This takes a minute at most."],
  [/nothing answers/, "The model server does not answer. It may be starting or switched off."],
  [/engine is not running/, "The model server is up, but its engine has stopped."],
  [/refuses our key/, "The model server refuses the gateway. Only the operator can mend that."],
  [/lists no model/, "The model server has not loaded a model."],
  [/in time/, "The model server is too slow to say how it is."],
  [/not asked yet/, "The gateway has just started and is still looking for the model server."],
  [/ledger/, "The gateway is opening its books."],
];
const UNKNOWN_REASON = "Something the service depends on is missing.";

/** The gateway's reasons in plain words, each once. */
export function plainReasons(reasons) {
  const known = reasons.flatMap((reason) =>
    reason.split("; ").map((part) => REASONS.find(([sign]) => sign.test(part))?.[1] ?? UNKNOWN_REASON));
  return [...new Set(known)];
}
