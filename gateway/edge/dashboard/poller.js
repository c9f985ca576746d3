// Asks again and again, but only while somebody looks at the page.

/** `look` is asynchronous and tells in how many seconds to look again. */
export class Poller {
  #look;
  #timer = 0;
  #dueAt = 0;
  #isLooking = false;
  #isOn = false;
  #onSight = () => this.#arm();

  constructor(look) {
    this.#look = look;
  }

  start() {
    this.#isOn = true;
    document.addEventListener("visibilitychange", this.#onSight);
    this.now();
  }

  stop() {
    this.#isOn = false;
    document.removeEventListener("visibilitychange", this.#onSight);
    clearTimeout(this.#timer);
  }

  now() {
    this.#dueAt = 0;
    this.#arm();
  }

  #arm() {
    clearTimeout(this.#timer);
    if (!this.#isOn || this.#isLooking || document.hidden) return;
    this.#timer = setTimeout(() => this.#run(), Math.max(0, this.#dueAt - Date.now()));
  }

  async #run() {
    this.#isLooking = true;
    // A look that never came back to tell otherwise is repeated at the usual pace.
    let waitSeconds = 30;
    try {
      waitSeconds = await this.#look();
    } finally {
      this.#isLooking = false;
      this.#dueAt = Date.now() + waitSeconds * 1000;
      this.#arm();
    }
  }
}
