/** A wait that can be cut short. */
export class Pause {
  readonly over: Promise<void>;
  #end: () => void = () => undefined;

  constructor(milliseconds: number) {
    this.over = new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.#end = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  end(): void {
    this.#end();
  }
}

/** Whether `work` is over, whichever way, within `milliseconds`. */
export async function within(work: Promise<unknown>, milliseconds: number): Promise<boolean> {
  const pause = new Pause(Math.max(milliseconds, 0));
  const done = work.then(
    () => true,
    () => true,
  );
  const result = await Promise.race([done, pause.over.then(() => false)]);
  pause.end();
  return result;
}
