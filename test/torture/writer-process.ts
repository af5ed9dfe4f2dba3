import type pg from 'pg';
import { backoffMs } from '../../src/base/backoff.ts';
import { messageOf } from '../../src/base/errors.ts';
import { pause, Signal } from '../../src/base/signal.ts';
import { createOutbox } from '../../src/outbox/outbox.ts';
import { closeClient, openClient } from '../../src/postgres/connection.ts';
import { isConnectionLost } from '../../src/postgres/sqlstate.ts';
import { FailPoints } from './fail-points.ts';
import { History } from './history.ts';
import { linkToParent, work } from './parent-link.ts';
import { Random } from './random.ts';
import { drawVariant } from './transactions.ts';

/** What a writer is told. */
export interface WriterSettings {
  readonly name: string;
  readonly databaseUrl: string;
  readonly historyPath: string;
  readonly seed: number;
  /** Of no other writer process of this run, before or after: ids are made of it. */
  readonly number: number;
  /** Whether it is to wait until it is told to go on. */
  readonly isHeld: boolean;
  readonly lanes: number;
  /** How many transactions a second its lanes try together. */
  readonly perSecond: number;
}

/** So many ids belong to one writer process. */
export const IDS_PER_WRITER = 100_000_000;

const outbox = createOutbox();
const parent = linkToParent<WriterSettings>();
async function write(settings: WriterSettings): Promise<void> {
  const history = new History(settings.historyPath, settings.name);
  const points = new FailPoints(history);
  const gate = new Gate(settings);
  parent.onMessage((message) => {
    points.onMessage(message);
    gate.onMessage(message);
  });
  let next = settings.number * IDS_PER_WRITER;
  const takeIds = (count: number): number[] => Array.from({ length: count }, () => next++);
  const lanes = Array.from({ length: settings.lanes }, (_, lane) =>
    new Lane(settings, lane, takeIds, history, points).run(parent.stopping, gate),
  );
  parent.ready();
  await Promise.all(lanes);
}

/** Lets transactions begin, or wait. */
class Gate {
  /** How many transactions a second may begin, on all lanes together. */
  perSecond: number;
  readonly #opened = new Signal();
  #isHeld: boolean;

  constructor({ isHeld, perSecond }: WriterSettings) {
    this.#isHeld = isHeld;
    this.perSecond = perSecond;
  }

  onMessage(message: unknown): void {
    if (typeof message !== 'object' || message === null) return;
    if ('perSecond' in message) this.perSecond = Number(message.perSecond);
    if ('isHeld' in message) this.#isHeld = message.isHeld === true;
    if (!this.#isHeld) this.#opened.notify();
  }

  async passed(stopping: AbortSignal): Promise<void> {
    while (this.#isHeld && !stopping.aborted) await this.#opened.wait(Infinity, stopping);
  }
}

/** One connection, and one transaction after the other on it. */
class Lane {
  readonly #settings: WriterSettings;
  readonly #takeIds: (count: number) => number[];
  readonly #history: History;
  readonly #points: FailPoints;
  readonly #random: Random;
  #client: pg.Client | undefined;
  #failures = 0;

  constructor(
    settings: WriterSettings,
    lane: number,
    takeIds: (count: number) => number[],
    history: History,
    points: FailPoints,
  ) {
    this.#settings = settings;
    this.#takeIds = takeIds;
    this.#history = history;
    this.#points = points;
    this.#random = new Random(settings.seed, `${settings.name} ${settings.number} ${lane}`);
  }

  async run(stopping: AbortSignal, gate: Gate): Promise<void> {
    const intervalMs = (): number => (1_000 * this.#settings.lanes) / gate.perSecond;
    let dueMs = performance.now() + this.#random.next() * intervalMs();
    while (!stopping.aborted) {
      const nowMs = performance.now();
      if (dueMs > nowMs) await pause(dueMs - nowMs, stopping);
      await gate.passed(stopping);
      dueMs = Math.max(dueMs + intervalMs(), performance.now() - 1_000); // what was missed long ago is not made up for
      await this.#next(stopping);
    }
    if (this.#client !== undefined) await closeClient(this.#client);
  }

  async #next(stopping: AbortSignal): Promise<void> {
    const client = await this.#connected();
    if (client === undefined) {
      this.#failures += 1;
      await pause(backoffMs(this.#failures, { initialMs: 50, maxMs: 500 }), stopping);
      return;
    }
    this.#failures = 0;
    await this.#transaction(client);
  }

  async #transaction(client: pg.Client): Promise<void> {
    const variant = drawVariant(this.#random);
    const ids = this.#takeIds(variant.messages(this.#random));
    const range = [ids[0], ids.at(-1)];
    this.#history.write('commit', 'invoke', { ids: range, variant: variant.name });
    try {
      const tools = { client, outbox, random: this.#random, points: this.#points, ids };
      const ended = await variant.run(tools);
      if (ended === 'unknown') {
        this.#drop(client);
        this.#history.write('commit', 'info', { ids: range });
        return;
      }
      if (ended.rolledBack.length > 0) this.#history.write('commit', 'fail', { ids: rangeOf(ended.rolledBack) });
      if (ended.committed.length > 0) this.#history.write('commit', 'ok', { ids: rangeOf(ended.committed) });
    } catch (error) {
      await this.#failed(client, range, error);
    }
  }

  /** An answer of the server that leaves the session as it is says that the transaction came to nothing. */
  async #failed(client: pg.Client, ids: unknown, error: unknown): Promise<void> {
    const isLost = isConnectionLost(error);
    this.#history.write('commit', isLost ? 'info' : 'fail', { ids, error: messageOf(error) });
    if (isLost) this.#drop(client);
    else await client.query('rollback').catch(() => this.#drop(client));
  }

  async #connected(): Promise<pg.Client | undefined> {
    if (this.#client !== undefined) return this.#client;
    try {
      const { databaseUrl, name } = this.#settings;
      const client = await openClient({
        connectionString: databaseUrl,
        applicationName: name,
        onLost: () => this.#drop(client),
      });
      this.#client = client;
    } catch {
      return undefined; // the server is away; the next attempt comes soon
    }
    return this.#client;
  }

  #drop(client: pg.Client): void {
    if (this.#client === client) this.#client = undefined;
    client.connection.stream.destroy();
  }
}

function rangeOf(ids: readonly number[]): [number | undefined, number | undefined] {
  return [ids[0], ids.at(-1)];
}

await work(() => write(parent.settings));
