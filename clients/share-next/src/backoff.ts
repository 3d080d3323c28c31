/** How long to wait before the next attempt: longer each time, and not the same for everybody. */
export class Backoff {
  #failures = 0;

  constructor(
    private readonly shortest = 250,
    private readonly longest = 30_000,
    private readonly random: () => number = Math.random,
  ) {}

  /** Milliseconds to wait after one more failure: from half to all of a bound that doubles. */
  next(): number {
    const bound = Math.min(this.longest, this.shortest * 2 ** this.#failures++);
    return bound * (0.5 + this.random() / 2);
  }

  reset(): void {
    this.#failures = 0;
  }
}
