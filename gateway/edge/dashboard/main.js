// The page itself: a key comes in, its usage is shown and kept fresh, the key goes.

import { askHealth, askUsage } from "./gateway.js";
import { Poller } from "./poller.js";
import { clearReport, put, showReport, summary } from "./report.js";
import { countdown, keyTrouble, plainReasons, trouble as troubleWords } from "./words.js";

const REFRESH_SECONDS = 30;
const UNWELL_SECONDS = 5;
const RETRY_MAX_SECONDS = 60;
const KEY = /^[\x21-\x7e]+$/;
const at = (id) => document.getElementById(id);

/** One key from its entry until it is forgotten. It lives in this object and nowhere else. */
class Session {
  #key;
  #ended = new AbortController();
  #troubles = 0;
  #poller = new Poller(() => this.#look());
  #report = null;
  #refreshedFor = "";

  constructor(key) {
    this.#key = key;
    this.#poller.start();
  }

  end() {
    this.#key = "";
    this.#poller.stop();
    this.#ended.abort();
  }

  /** Called every second: the countdown, and fresh numbers when the day turns. */
  tick() {
    if (this.#report === null || this.#report.quota_tokens === null) return;
    const left = new Date(this.#report.resets_at) - Date.now();
    put("countdown", countdown(left));
    if (left < -1000 && this.#refreshedFor !== this.#report.resets_at) {
      this.#refreshedFor = this.#report.resets_at;
      this.#poller.now();
    }
  }

  async #look() {
    try {
      const report = await askUsage(this.#key, this.#ended.signal);
      if (!this.#ended.signal.aborted) this.#show(report);
      return REFRESH_SECONDS;
    } catch (trouble) {
      if (this.#ended.signal.aborted) return REFRESH_SECONDS;
      if (trouble.kind === undefined) throw trouble;
      return this.#explain(trouble);
    }
  }

  #show(report) {
    const isFirst = this.#report === null;
    this.#report = report;
    enter("session");
    at("report").hidden = false;
    showReport(report);
    this.tick();
    if (isFirst || this.#troubles) put("announcer", summary(report));
    this.#troubles = 0;
    put("notice", "");
    if (isFirst) at("forget").focus();
  }

  /** Says what is wrong, and tells in how many seconds to try again. */
  #explain(trouble) {
    if (trouble.kind === "key") {
      forget(keyTrouble(trouble.code));
      return REFRESH_SECONDS;
    }
    this.#troubles += 1;
    const patience = Math.min(RETRY_MAX_SECONDS, UNWELL_SECONDS * 2 ** (this.#troubles - 1));
    const waitSeconds = trouble.retrySeconds ?? patience;
    enter("session");
    put("notice", troubleWords(trouble, new Date(Date.now() + waitSeconds * 1000)));
    return waitSeconds;
  }
}

let session = null;

/** Shows the entry or the session, never both. */
function enter(shown) {
  for (const id of ["starting", "entry", "session"]) at(id).hidden = id !== shown;
  at("key-submit").disabled = false;
}

function forget(reason = "") {
  session?.end();
  session = null;
  at("report").hidden = true;
  clearReport();
  put("notice", "");
  put("announcer", "");
  enter("entry");
  put("key-error", reason);
  at("key").toggleAttribute("aria-invalid", reason !== "");
  at("key").focus();
}

function begin(event) {
  event.preventDefault();
  const key = at("key").value.trim();
  at("key").value = "";
  if (!KEY.test(key)) {
    forget(key ? "A key has no spaces and no special letters. Copy it again." : "Enter your API key.");
    return;
  }
  put("key-error", "");
  at("key").removeAttribute("aria-invalid");
  at("key-submit").disabled = true;
  session?.end();
  session = new Session(key);
}

const HEALTH = { ready: "Service is up", unready: "Service is down", away: "Gateway does not answer" };

async function lookAfterHealth() {
  const { state, reasons } = await askHealth();
  at("health").dataset.state = state;
  put("health", HEALTH[state]);
  at("service").hidden = state !== "unready";
  list("service-reasons", plainReasons(reasons));
  list("service-raw", reasons);
  return state === "ready" ? REFRESH_SECONDS : UNWELL_SECONDS;
}

function list(id, lines) {
  const before = [...at(id).children].map((item) => item.textContent);
  if (JSON.stringify(before) === JSON.stringify(lines)) return;
  at(id).replaceChildren(...lines.map((line) => {
    const item = document.createElement("li");
    item.textContent = line;
    return item;
  }));
}

at("key-form").addEventListener("submit", begin);
at("forget").addEventListener("click", () => forget());
// A page that the browser keeps for its back button must not keep the key, sent or only typed.
addEventListener("pagehide", () => {
  at("key").value = "";
  forget();
});
setInterval(() => session?.tick(), 1000);
forget();
new Poller(lookAfterHealth).start();
