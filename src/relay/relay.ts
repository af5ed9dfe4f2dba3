import { hostname } from 'node:os';
import { backoffMs } from '../base/backoff.ts';
import { TailraceError, messageOf } from '../base/errors.ts';
import type { Service } from '../base/lifecycle.ts';
import { silentLogger, type Logger } from '../base/logger.ts';
import { pause } from '../base/signal.ts';
import { uuidV7 } from '../base/uuid.ts';
import type { HomeLog, RelayMode } from '../broker/log.ts';
import { isTransient } from '../postgres/sqlstate.ts';
import type { Source, SourceStatus } from '../source/source.ts';
import { loadTracing } from '../telemetry/load-tracing.ts';
import { AppendSpans } from './append-spans.ts';
import { Pump, type Appended } from './pump.ts';
import { Router } from './router.ts';
import { UnroutableAlarm } from './unroutable-alarm.ts';

export interface RelayOptions {
  /** Where committed messages come from. */
  readonly source: Source;
  /** The log in the outbox's own database. */
  readonly log: HomeLog;
  /** Names this process to operators. @defaultValue the host's name and a random part */
  readonly holder?: string;
  /** How long a relay that says nothing keeps others from taking over, in milliseconds. @defaultValue 10_000 */
  readonly leaseMs?: number;
  readonly logger?: Logger;
  /** Called once if the relay halts: it met something that trying again cannot mend, and stopped rather than go on over a gap. */
  readonly onHalt?: (error: unknown) => void;
}

/**
 * `starting`: connecting. `standby`: another relay holds the lease. `leading`: reading and appending. `retrying`: waits to
 * try again after an error that can pass. `halted`: met one that cannot. `stopped`: never started, or stopped.
 */
export type RelayState = 'stopped' | 'starting' | 'standby' | 'leading' | 'retrying' | 'halted';

export interface RelayStatus {
  readonly state: RelayState;
  /** How the source reads, while leading. */
  readonly source: SourceStatus | undefined;
  /** The mode that an operator has asked for; `undefined`: none, the source's own. */
  readonly wantedMode?: RelayMode;
  /** Messages appended by this object. */
  readonly appended: number;
  /** Appends made by this object. */
  readonly batches: number;
  /** Messages that this object could not route: it set them aside as dead letters of the relay. */
  readonly deadLettered: number;
  /** What the last attempt failed with; `undefined` while all is well. */
  readonly error: unknown;
  /** When the first attempt failed since all was well. */
  readonly errorSince?: Date | undefined;
}

export interface Relay extends Service {
  /**
   * Resolves when messages flow, or when it stands by for another relay. Rejects with what trying again cannot mend; waits
   * as long as a server cannot be reached.
   */
  start(): Promise<void>;
  /** Finishes the append under way, acknowledges it, and gives the lease up, so that a standby takes over at once. */
  stop(): Promise<void>;
  status(): RelayStatus;
}

/** Moves committed messages from a source into the home log: none lost, invented, doubled or reordered. */
export function createRelay(options: RelayOptions): Relay {
  const { leaseMs = 10_000 } = options;
  if (!Number.isInteger(leaseMs) || leaseMs < 1_000) {
    throw new TailraceError(
      'INVALID_OPTION',
      `leaseMs is ${leaseMs}, expected a whole number of milliseconds, at least 1000.`,
    );
  }
  return new LeasedRelay(options, leaseMs);
}

class LeasedRelay implements Relay {
  readonly #options: RelayOptions;
  readonly #leaseMs: number;
  readonly #logger: Logger;
  readonly #holder: string;
  readonly #stopping = new AbortController();
  readonly #router = new Router();
  readonly #alarm: UnroutableAlarm;
  readonly #spans: AppendSpans | undefined;
  #run: Promise<void> | undefined;
  #state: RelayState = 'stopped';
  #source: SourceStatus | undefined;
  #error: unknown;
  #errorSince: Date | undefined;
  #wantedMode: RelayMode | undefined;
  #appended = 0;
  #batches = 0;
  #deadLettered = 0;

  constructor(options: RelayOptions, leaseMs: number) {
    this.#options = options;
    this.#leaseMs = leaseMs;
    this.#logger = options.logger ?? silentLogger;
    this.#alarm = new UnroutableAlarm(this.#logger);
    const tracing = loadTracing();
    this.#spans = tracing && new AppendSpans(options.log, tracing, this.#logger);
    this.#holder = options.holder ?? `${hostname()} ${uuidV7().slice(-12)}`;
  }

  start(): Promise<void> {
    if (this.#run !== undefined || this.#stopping.signal.aborted) {
      return Promise.reject(new TailraceError('STOPPED', 'A relay is started once. Create another one.'));
    }
    return new Promise((resolve, reject) => {
      this.#run = this.#runUntilStopped(resolve).then(resolve, reject);
    });
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new TailraceError('STOPPED', 'The relay was stopped.'));
    await this.#run;
    await this.#spans?.settled();
    if (this.#state !== 'halted') this.#state = 'stopped';
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  status(): RelayStatus {
    return {
      state: this.#state,
      source: this.#source,
      ...(this.#wantedMode !== undefined && { wantedMode: this.#wantedMode }),
      appended: this.#appended,
      batches: this.#batches,
      deadLettered: this.#deadLettered,
      error: this.#error,
      errorSince: this.#errorSince,
    };
  }

  async #runUntilStopped(ready: () => void): Promise<void> {
    for (let attempt = 1; !this.#isStopping(); attempt++) {
      const batchesBefore = this.#batches;
      try {
        await this.#lead(ready);
      } catch (error) {
        if (this.#isStopping()) return;
        if (!canPass(error)) {
          this.#halt(error);
          throw error;
        }
        if (this.#batches > batchesBefore) attempt = 1;
        await this.#retryLater(error, attempt);
      }
    }
  }

  #isStopping(): boolean {
    return this.#stopping.signal.aborted;
  }

  #halt(error: unknown): void {
    this.#fail('halted', error);
    this.#logger.error({ error: messageOf(error) }, 'the relay halted');
    this.#options.onHalt?.(error);
  }

  async #retryLater(error: unknown, attempt: number): Promise<void> {
    const waitMs = backoffMs(attempt);
    this.#fail('retrying', error);
    this.#logger.warn({ error: messageOf(error), attempt, waitMs: Math.round(waitMs) }, 'the relay starts over');
    await pause(waitMs, this.#stopping.signal);
  }

  #fail(state: 'retrying' | 'halted', error: unknown): void {
    this.#state = state;
    this.#error = error;
    this.#errorSince ??= new Date();
  }

  #recover(state: 'standby' | 'leading'): void {
    this.#state = state;
    this.#error = undefined;
    this.#errorSince = undefined;
  }

  /** One time of holding the lease, from waiting for it to losing it. */
  async #lead(ready: () => void): Promise<void> {
    this.#state = 'starting';
    let pump: Pump | undefined;
    const writer = await this.#options.log.acquireWriter({
      holder: this.#holder,
      leaseMs: this.#leaseMs,
      signal: this.#stopping.signal,
      onWaiting: () => {
        this.#recover('standby');
        this.#logger.info({ holder: this.#holder }, 'standing by: another relay holds the lease');
        ready();
      },
      onRetry: (error) => {
        this.#fail('retrying', error);
      },
      onAsked: () => pump?.asked(),
    });
    try {
      pump = new Pump({
        source: this.#options.source,
        writer,
        router: this.#router,
        logger: this.#logger,
        onReading: (status) => {
          this.#leading(status, writer.requests.mode);
          ready();
        },
        onAppended: (done) => this.#count(done),
      });
      await pump.run(AbortSignal.any([writer.signal, this.#stopping.signal]));
    } finally {
      this.#source = undefined;
      await writer.release();
    }
  }

  #leading(source: SourceStatus, wantedMode: RelayMode | undefined): void {
    this.#recover('leading');
    this.#source = source;
    this.#wantedMode = wantedMode;
    this.#logger.info({ holder: this.#holder, ...source }, 'relaying');
  }

  #count({ appends, unroutable, startedAt, isRetry }: Appended): void {
    this.#spans?.appended(appends, startedAt);
    this.#batches += 1;
    this.#appended += sum(appends);
    if (isRetry) return;
    this.#deadLettered += sum(unroutable);
    for (const messages of unroutable) this.#alarm.sound(messages);
  }
}

function sum(lists: readonly { readonly ids: readonly number[] }[]): number {
  return lists.reduce((total, { ids }) => total + ids.length, 0);
}

/** Whether leading again can help: the server was away, or another relay took over. */
function canPass(error: unknown): boolean {
  if (error instanceof TailraceError) return error.retryable || error.code === 'LEASE_LOST';
  return isTransient(error);
}
