import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';
import type { Append, HomeLog } from '../broker/log.ts';
import type { Tracing } from '../telemetry/tracing.ts';

/** How many messages of an append are looked up: what does not fit has no span of the relay in its trace. */
const MOST_LOOKED_UP = 100;
/** How many appends may wait for their look-up: what comes faster has none. */
const MOST_WAITING = 50;

/** An append that is durable. Times are Unix milliseconds. */
interface Durable {
  readonly places: ReadonlyMap<number, Place>;
  readonly startedAt: number;
  readonly endedAt: number;
}

/**
 * Adds a span for the append to the traces of the messages in it. The relay does not read headers, so they are looked up
 * afterwards, beside its work and never before it: a few of each append, one append after the other, and only so many
 * wait.
 */
export class AppendSpans {
  readonly #log: Pick<HomeLog, 'headersOf'>;
  readonly #tracing: Tracing;
  readonly #logger: Logger;
  readonly #waiting: Durable[] = [];
  #run: Promise<void> | undefined;

  constructor(log: Pick<HomeLog, 'headersOf'>, tracing: Tracing, logger: Logger) {
    this.#log = log;
    this.#tracing = tracing;
    this.#logger = logger;
  }

  /** These are durable, and the attempt to make them so began then, in Unix milliseconds. Returns at once. */
  appended(appends: readonly Append[], startedAt: number): void {
    if (!this.#tracing.isOn || appends.length === 0 || this.#waiting.length >= MOST_WAITING) return;
    const places = new Map(placesOf(appends).slice(0, MOST_LOOKED_UP));
    this.#waiting.push({ places, startedAt, endedAt: Date.now() });
    this.#run ??= this.#recordAll();
  }

  /** Resolves when nothing waits. */
  async settled(): Promise<void> {
    await this.#run;
  }

  async #recordAll(): Promise<void> {
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) await this.#record(next);
    this.#run = undefined; // at once: what comes from now on begins anew
  }

  async #record({ places, startedAt, endedAt }: Durable): Promise<void> {
    try {
      for (const { id, messageId, headers } of await this.#log.headersOf([...places.keys()])) {
        const place = places.get(id);
        if (place !== undefined) this.#tracing.appended({ ...place, messageId, headers, startedAt, endedAt });
      }
    } catch (error) {
      this.#logger.debug({ error: messageOf(error) }, 'an append has no spans: its messages could not be looked up');
    }
  }
}

type Place = Pick<Append, 'topic' | 'partition'>;

function placesOf(appends: readonly Append[]): [id: number, place: Place][] {
  return appends.flatMap(({ topic, partition, ids }) =>
    ids.slice(0, MOST_LOOKED_UP).map((id): [number, Place] => [id, { topic, partition }]),
  );
}
