import type { Cluster } from '../../base/cluster.ts';
import { isTailraceError } from '../../base/errors.ts';
import { belowZero, fetchBounds, rotated, type FetchBounds } from '../checks.ts';
import type { FetchOptions, FetchPosition } from '../log.ts';
import type { LogRecord } from '../record.ts';
import type { TextRow } from '../../postgres/round-trip.ts';
import { readRows, readTail, type FetchPass } from './fetch-rows.ts';
import { fetchSql, type FetchRow } from './fetch-statement.ts';
import { KnownEnds, type Standing } from './known-ends.ts';
import { danglingEntry, MissingRows } from './missing-rows.ts';
import { logMoved, type ReadPool } from './read-pool.ts';
import { tailSql, type TailRow } from './tail-statement.ts';
import type { Topics } from './topics.ts';
import type { ParkedFetch, WakeUps } from './wake-ups.ts';

/** A position and the number of its partition. */
interface Target {
  readonly id: number;
  readonly position: FetchPosition;
}

interface Asked {
  readonly targets: readonly Target[];
  /** Where the numbers of the partitions come from. */
  readonly cluster: Cluster | undefined;
  /** All of them ended where they are, and have been told of since. */
  readonly isTail: boolean;
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
  readonly #tailSql: string;
  readonly #missing = new MissingRows();
  readonly #ends: KnownEnds;

  constructor(parts: FetcherParts) {
    this.#parts = parts;
    this.#ends = new KnownEnds(parts.wakeUps);
    this.#sql = fetchSql(parts.quotedSchema);
    this.#tailSql = tailSql(parts.quotedSchema);
  }

  async fetch(positions: readonly FetchPosition[], options: FetchOptions = {}): Promise<LogRecord[]> {
    const bounds = fetchBounds(options);
    const cluster = this.#parts.pool.cluster;
    const targets = await this.#targets(positions);
    using parked = this.#parts.wakeUps.park(targets.map(({ id }) => id));
    const { closing } = this.#parts;
    const abort = options.signal === undefined ? closing : AbortSignal.any([options.signal, closing]);
    return await this.#fetchOrWait({ targets, cluster, isTail: false }, bounds, parked, abort);
  }

  async #fetchOrWait(asked: Asked, bounds: FetchBounds, parked: ParkedFetch, abort: AbortSignal): Promise<LogRecord[]> {
    const deadlineMs = performance.now() + bounds.maxWaitMs;
    for (let lookMs = FIRST_LOOK_MS; !abort.aborted;) {
      const { records, blocked } = await this.#read(bounds.maxWaitMs > 0 ? this.#mayHaveGrown(asked) : asked, bounds);
      const leftMs = deadlineMs - performance.now();
      if (records.length > 0 || leftMs <= 0) return records;
      const delayMs = blocked.length > 0 ? lookMs : this.#parts.wakeUps.pollDelayMs();
      lookMs = blocked.length > 0 ? Math.min(2 * lookMs, LONGEST_LOOK_MS) : FIRST_LOOK_MS;
      await parked.wait(Math.min(delayMs, leftMs), abort);
    }
    return [];
  }

  /** Where something is known to have come, the others can wait. */
  #mayHaveGrown({ targets, cluster }: Asked): Asked {
    const by = Map.groupBy(targets, ({ id, position }) =>
      this.#ends.standing({ id, offset: position.offset }, cluster),
    );
    const { unknown = [], told = [], due = [] } = Object.fromEntries(by) as Partial<Record<Standing, Target[]>>;
    if (unknown.length === 0 && told.length > 0) return { targets: told, cluster, isTail: true };
    return { targets: [...unknown, ...told, ...due], cluster, isTail: false };
  }

  async #targets(positions: readonly FetchPosition[]): Promise<Target[]> {
    const targets: Target[] = [];
    for (const position of positions) {
      if (position.offset < 0n) throw belowZero(position);
      const { topic, partition } = position;
      const id = this.#parts.topics.known(topic)?.[partition] ?? (await this.#parts.topics.idOf(topic, partition));
      targets.push({ id, position });
    }
    return targets;
  }

  /** One round trip, and more only for positions at which a compacted topic has no records for a while. */
  async #read(asked: Asked, bounds: FetchBounds): Promise<Pick<FetchPass, 'records' | 'blocked'>> {
    const tail = asked.isTail ? await this.#tailPass(asked, bounds) : undefined;
    if (tail !== undefined) return tail;
    const first = await this.#pass(asked, bounds);
    const { records, blocked } = first;
    for (let moved = first.moved; moved.size > 0 && records.length < bounds.maxRecords;) {
      const targets = [...moved].map(([id, position]) => ({ id, position }));
      const next = await this.#pass(
        { ...asked, targets },
        { ...bounds, maxRecords: bounds.maxRecords - records.length },
      );
      records.push(...next.records);
      blocked.push(...next.blocked);
      moved = next.moved;
    }
    return { records, blocked };
  }

  /** `undefined`: these have to be asked for as any others. */
  async #tailPass(asked: Asked, bounds: FetchBounds): Promise<FetchPass | undefined> {
    const { targets, cluster } = asked;
    const ids = targets.map(({ id }) => id);
    const foundEnds = this.#ends.look(ids, cluster);
    const rows = await this.#ask(asked, { name: 'tailrace_tail', text: this.#tailSql });
    const positions = targets.map(({ position }) => position);
    const pass = readTail(rows as unknown as readonly TailRow[], positions, bounds);
    if (pass === undefined) return undefined;
    if (pass.records.length > 0) this.#parts.wakeUps.noteNews();
    foundEnds([...pass.ends].map(([n, offset]) => ({ id: ids[n] ?? 0, offset })));
    return pass;
  }

  async #ask(
    { targets, cluster }: Asked,
    statement: { readonly name: string; readonly text: string },
    limits: readonly number[] = [],
  ): Promise<readonly TextRow[]> {
    const ids = targets.map(({ id }) => id).join(',');
    const offsets = targets.map(({ position }) => position.offset).join(',');
    const values = [`{${ids}}`, `{${offsets}}`, ...limits.map(String)];
    const rows = await this.#parts.pool.ask({ ...statement, values });
    if (cluster !== undefined && cluster !== this.#parts.pool.cluster) throw logMoved(); // with other numbers
    return rows;
  }

  /** `moved` is by the numbers of partitions. */
  async #pass(asked: Asked, bounds: FetchBounds): Promise<FetchPass> {
    const { targets, cluster } = asked;
    if (targets.length === 0) return { records: [], blocked: [], moved: new Map(), ends: new Map() };
    const turned = rotated(targets, Math.random());
    const ids = turned.map(({ id }) => id);
    const foundEnds = this.#ends.look(ids, cluster);
    const limits = [bounds.maxRecords, bounds.maxBytes, bounds.maxRecordsEach];
    const rows = await this.#ask({ ...asked, targets: turned }, { name: 'tailrace_fetch', text: this.#sql }, limits);
    const pass = this.#readRows(
      rows as unknown as readonly FetchRow[],
      turned.map(({ position }) => position),
      bounds,
    );
    const gone = pass.blocked.find((row) => this.#missing.isGone(row, performance.now()));
    if (gone !== undefined) throw danglingEntry(gone, this.#parts.quotedSchema);
    if (pass.records.length > 0) this.#parts.wakeUps.noteNews();
    if (rows.length === 0) foundEnds(turned.map(({ id, position }) => ({ id, offset: position.offset })));
    else foundEnds([...pass.ends].map(([n, offset]) => ({ id: ids[n] ?? 0, offset })));
    return { ...pass, moved: new Map([...pass.moved].map(([n, position]) => [ids[n] ?? 0, position])) };
  }
  #readRows(rows: readonly FetchRow[], positions: readonly FetchPosition[], bounds: FetchBounds): FetchPass {
    try {
      return readRows(rows, positions, bounds);
    } catch (error) {
      if (isTailraceError(error, 'UNKNOWN_TOPIC')) this.#parts.topics.forgetTopic(String(error.details['topic']));
      throw error;
    }
  }
}
