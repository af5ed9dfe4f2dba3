import { closeSync, createReadStream, openSync, writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { Logger } from '../../src/base/logger.ts';

/**
 * `invoke`: it begins. `ok`: it happened. `fail`: it did not, for certain. `info`: nobody can tell, or something worth
 * knowing.
 */
export type Outcome = 'invoke' | 'ok' | 'fail' | 'info';

/** One line of the history. */
export interface HistoryEvent {
  /** Milliseconds on the machine's monotonic clock, which all processes share. */
  readonly at: number;
  readonly process: string;
  readonly op: string;
  readonly outcome: Outcome;
  readonly [field: string]: unknown;
}

/**
 * What happened, as lines of JSON. Every process appends to the same file, a line a write and nothing in between, so that
 * what was written stays written however the process ends.
 */
export class History {
  readonly #file: number;
  readonly #process: string;

  constructor(path: string, process: string) {
    this.#file = openSync(path, 'a');
    this.#process = process;
  }

  write(op: string, outcome: Outcome, fields: object = {}): void {
    const event = { at: monotonicMs(), process: this.#process, op, outcome, ...fields };
    writeSync(this.#file, `${JSON.stringify(event)}\n`);
  }

  close(): void {
    closeSync(this.#file);
  }
}

/** What a process says goes into the history, except for what it says all the time. */
export function historyLogger(history: History): Logger {
  const write =
    (level: string) =>
    (fields: object, message: string): void => {
      history.write('log', 'info', { level, message, ...fields });
    };
  return { debug: () => undefined, info: write('info'), warn: write('warn'), error: write('error') };
}

export function monotonicMs(): number {
  return Number(process.hrtime.bigint() / 1_000n) / 1_000;
}

/** All events, in the order in which they were written. */
export async function* readHistory(path: string): AsyncGenerator<HistoryEvent, void, undefined> {
  for await (const line of createInterface({ input: createReadStream(path) })) yield JSON.parse(line) as HistoryEvent;
}
