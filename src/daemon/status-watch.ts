import type { RelayStatus } from '../relay/relay.ts';

const INTERVAL_MS = 250;

/** Tells of a change in what a relay is doing: its state, or how it reads and why. Its counters do not count as changes. */
export class StatusWatch {
  readonly #read: () => RelayStatus;
  readonly #onChange: (status: RelayStatus) => void;
  #timer: NodeJS.Timeout | undefined;
  #told: string | undefined;

  constructor(read: () => RelayStatus, onChange: (status: RelayStatus) => void) {
    this.#read = read;
    this.#onChange = onChange;
  }

  /** Begins to look by itself. */
  start(): void {
    this.#timer = setInterval(() => {
      this.look();
    }, INTERVAL_MS);
    this.#timer.unref();
  }

  /** Looks now. */
  look(): void {
    const status = this.#read();
    if (status.state === 'leading' && status.source === undefined) return; // between two states
    const summary = summaryOf(status);
    if (summary === this.#told) return;
    this.#told = summary;
    this.#onChange(status);
  }

  /** Looks for the last time. */
  stop(): void {
    clearInterval(this.#timer);
    this.look();
  }
}

function summaryOf({ state, source }: RelayStatus): string {
  return [state, source?.mode, source?.reason].join('\n');
}
