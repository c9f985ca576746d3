// What the page asks the gateway, and what can go wrong, as one kind of error.

const PATIENCE_MS = 15_000;
const AWAY = new Set([502, 503, 504]);

/** `kind` is "key", "limit", "away" or "fault"; `code` is the gateway's own word for it. */
export class Trouble extends Error {
  constructor(kind, { code = "", status = 0, retrySeconds = null } = {}) {
    super(kind);
    Object.assign(this, { kind, code, status, retrySeconds });
  }
}

/** The body of GET /v1/usage with 30 days. Throws Trouble, or AbortError once `signal` says so. */
export async function askUsage(key, signal) {
  const answer = await ask("v1/usage?days=30", { Authorization: `Bearer ${key}` }, signal);
  if (answer.ok) return readJson(answer);
  const { error } = await readJson(answer).catch(() => ({}));
  throw new Trouble(kindOf(answer.status), {
    code: error?.code ?? "",
    status: answer.status,
    retrySeconds: seconds(answer.headers.get("Retry-After")),
  });
}

/** "ready", "unready" with the gateway's reasons, or "away" when nobody answers. */
export async function askHealth() {
  try {
    const answer = await ask("ready", {}, null);
    if (answer.ok) return { state: "ready", reasons: [] };
    const { reasons } = await readJson(answer);
    return Array.isArray(reasons) ? { state: "unready", reasons } : { state: "away", reasons: [] };
  } catch (trouble) {
    if (trouble instanceof Trouble) return { state: "away", reasons: [] };
    throw trouble;
  }
}

async function ask(path, headers, signal) {
  const patience = AbortSignal.timeout(PATIENCE_MS);
  try {
    // Relative: the page may live under a prefix that a proxy gives it.
    return await fetch(path, {
      headers,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
      referrerPolicy: "no-referrer",
      signal: signal ? AbortSignal.any([signal, patience]) : patience,
    });
  } catch (cause) {
    if (signal?.aborted) throw cause;
    throw new Trouble("away");
  }
}

async function readJson(answer) {
  try {
    return await answer.json();
  } catch {
    throw new Trouble("away", { status: answer.status });
  }
}

function kindOf(status) {
  if (status === 401) return "key";
  if (status === 429) return "limit";
  return AWAY.has(status) ? "away" : "fault";
}

function seconds(text) {
  const number = Number(text);
  return text && number > 0 ? number : null;
}
