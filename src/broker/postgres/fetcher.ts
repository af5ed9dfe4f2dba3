import type { Cluster } from '../../base/cluster.ts';
import type { FetchOptions, FetchPosition } from '../log.ts';
import type { LogRecord } from '../record.ts';
import { outOfRange, readRows, type FetchPass } from './fetch-rows.ts';
import { fetchSql, type FetchRow } from './fetch-statement.ts';
import { danglingEntry, MissingRows } from './missing-rows.ts';
import { invalid, LONGEST_TIMER_MS } from './options.ts';
import { logMoved, type ReadPool } from './read-pool.ts';
import type { Topics } from './topics.ts';
import type { ParkedFetch, WakeUps } from './wake-ups.ts';

interface Bounds {
  readonly maxRecords: number;
  readonly maxBytes: number;
  readonly maxWaitMs: number;
}

/** A position and the number of its partition. */
interface Target {
  readonly id: number;
  readonly position: FetchPosition;
}

interface Asked {
  readonly targets: readonly Target[];
  /** Where the numbers of the partitions come from. */
  readonly cluster: Cluster | undefined;
}

/** A row that is not visible yet is looked for this soon, then after twice as long, and so on up to the longest wait. */
const FIRST_LOOK_MS = 1;
const LONGEST_LOOK_MS = 100;

export interface FetcherParts {
  readonly pool: ReadPool;
  readonly topics: Topics;
  readonly wakeUps: WakeUps;
  readonly quotedSchema: string;
  /** Fires when the log closes. */
  readonly closing: AbortSignal;
}

/** Reads records: see `Log.fetch`. */
export class Fetcher {
  readonly #parts: FetcherParts;
  readonly #sql: string;
  readonly #missing = new MissingRows();

  constructor(parts: FetcherParts) {
    this.#parts = parts;
    this.#sql = fetchSql(parts.quotedSchema);
  }

  async fetch(positions: readonly FetchPosition[], options: FetchOptions = {}): Promise<LogRecord[]> {
    const bounds = boundsOf(options);
    const cluster = this.#parts.pool.cluster;
    const targets = await this.#targets(positions);
    using parked = this.#parts.wakeUps.park(targets.map(({ id }) => id));
    const { closing } = this.#parts;
    const abort = options.signal === undefined ? closing : AbortSignal.any([options.signal, closing]);
    return await this.#fetchOrWait({ targets, cluster }, bounds, parked, abort);
  }

  async #fetchOrWait(asked: Asked, bounds: Bounds, parked: ParkedFetch, abort: AbortSignal): Promise<LogRecord[]> {
    const deadlineMs = performance.now() + bounds.maxWaitMs;
    for (let lookMs = FIRST_LOOK_MS; !abort.aborted;) {
      const { records, blocked } = await this.#pass(asked, bounds);
      const leftMs = deadlineMs - performance.now();
      if (records.length > 0 || leftMs <= 0) return records;
      const delayMs = blocked.length > 0 ? lookMs : this.#parts.wakeUps.pollDelayMs();
      lookMs = blocked.length > 0 ? Math.min(2 * lookMs, LONGEST_LOOK_MS) : FIRST_LOOK_MS;
      await parked.wait(Math.min(delayMs, leftMs), abort);
    }
    return [];
  }

  async #targets(positions: readonly FetchPosition[]): Promise<Target[]> {
    const targets: Target[] = [];
    for (const position of positions) {
      if (position.offset < 0n) throw outOfRange(position, 'offsets count from 0', 'Correct the position.');
      const { topic, partition } = position;
      const id = this.#parts.topics.known(topic)?.[partition] ?? (await this.#parts.topics.idOf(topic, partition));
      targets.push({ id, position });
    }
    return targets;
  }

  async #pass({ targets, cluster }: Asked, bounds: Bounds): Promise<FetchPass> {
    if (targets.length === 0) return { records: [], blocked: [] };
    const turned = rotated(targets, Math.random());
    const ids = turned.map(({ id }) => id);
    const offsets = turned.map(({ position }) => position.offset);
    const values = [`{${ids.join(',')}}`, `{${offsets.join(',')}}`, bounds.maxRecords, bounds.maxBytes];
    const rows = await this.#parts.pool.query(this.#sql, values, 'tailrace_fetch');
    if (cluster !== undefined && cluster !== this.#parts.pool.cluster) throw logMoved(); // with other numbers
    const pass = readRows(
      rows as unknown as readonly FetchRow[],
      turned.map(({ position }) => position),
    );
    const gone = pass.blocked.find((row) => this.#missing.isGone(row, performance.now()));
    if (gone !== undefined) throw danglingEntry(gone, this.#parts.quotedSchema);
    if (pass.records.length > 0) this.#parts.wakeUps.noteNews();
    return pass;
  }
}

/** Lets another position be first each time, so that with room for a few records none of them is passed over for ever. */
function rotated<Item>(items: readonly Item[], random: number): Item[] {
  const first = Math.floor(random * items.length);
  return [...items.slice(first), ...items.slice(0, first)];
}

/** @throws TailraceError `INVALID_OPTION`. */
function boundsOf(options: FetchOptions): Bounds {
  const { maxRecords = 2_000, maxBytes = 1_000_000, maxWaitMs = 0 } = options;
  assertAtLeast('maxRecords', maxRecords, 1);
  assertAtLeast('maxBytes', maxBytes, 1);
  assertAtLeast('maxWaitMs', maxWaitMs, 0);
  return {
    maxRecords: Math.min(Math.floor(maxRecords), MOST_RECORDS),
    maxBytes: Math.floor(Math.min(maxBytes, Number.MAX_SAFE_INTEGER)),
    maxWaitMs: Math.min(maxWaitMs, LONGEST_TIMER_MS),
  };
}

const MOST_RECORDS = 1_000_000;

function assertAtLeast(name: string, value: number, least: number): void {
  if (!(value >= least)) throw invalid(name, String(value), `a number, at least ${least}`);
}
