import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import { LEASE_NAME } from './lease.ts';
import { unpackRecords } from './packed-entry.ts';
import type { TextRow } from '../../postgres/round-trip.ts';
import type { ReadPool } from './read-pool.ts';
import type { Session } from './session.ts';

/** What the last append left behind. Batches count from 1; 0 stands for none. */
export interface LogEnd {
  readonly seq: number;
  readonly progress: string | undefined;
  readonly checkpointSeq: number;
  readonly checkpoint: string | undefined;
}

/** Whose the lease is, and whose a batch is, by epoch; and which layout appends are routed by. */
export interface Standing {
  readonly leaseEpoch: string | undefined;
  readonly batchEpoch: string | undefined;
  readonly layout: string | undefined;
}

const PRUNE_INTERVAL_MS = 30_000;
/** Batches that stay behind the checkpoint, for people who look into what happened. */
const KEPT_BATCHES = 1_000;
/** Few: packed ones come with all that they hold. */
const ENTRIES_A_PAGE = 50;
const LETTERS_A_PAGE = 10_000;

/** What a writer reads, and the rows that it clears away. */
export class WriterTables {
  readonly #schema: string;
  readonly #pool: ReadPool;
  readonly #logger: Logger;
  #prunedAtMs = -Infinity;
  #pruning: Promise<void> = Promise.resolve();

  constructor(pool: ReadPool, quotedSchema: string, logger: Logger) {
    this.#pool = pool;
    this.#schema = quotedSchema;
    this.#logger = logger;
  }

  async readEnd(session: Session): Promise<LogEnd> {
    const result = await session.query<EndRow>({
      text: `select l.seq::text, l.progress, c.seq::text as checkpoint_seq, c.checkpoint
        from (select seq, progress from ${this.#schema}.relay_batch where name = $1 order by seq desc limit 1) l
        left join (select seq, checkpoint from ${this.#schema}.relay_batch
          where name = $1 and checkpoint is not null order by seq desc limit 1) c on true`,
      values: [LEASE_NAME],
    });
    const row = result.rows[0];
    return {
      seq: Number(row?.seq ?? 0),
      progress: row?.progress,
      checkpointSeq: Number(row?.checkpoint_seq ?? 0),
      checkpoint: row?.checkpoint ?? undefined,
    };
  }

  async standing(session: Session, seq: number): Promise<Standing> {
    const result = await session.query<{
      lease_epoch: string | null;
      batch_epoch: string | null;
      layout: string | null;
    }>({
      text: `select (select epoch::text from ${this.#schema}.relay_lease where name = $1) as lease_epoch,
        (select layout::text from ${this.#schema}.relay_lease where name = $1) as layout,
        (select epoch::text from ${this.#schema}.relay_batch where name = $1 and seq = $2) as batch_epoch`,
      values: [LEASE_NAME, seq],
    });
    const row = result.rows[0];
    return {
      leaseEpoch: row?.lease_epoch ?? undefined,
      batchEpoch: row?.batch_epoch ?? undefined,
      layout: row?.layout ?? undefined,
    };
  }

  /** The next offset of each partition. */
  async endsOf(session: Session, partitions: readonly number[]): Promise<[partition: number, end: number][]> {
    const result = await session.query<{ partition: number; end: string }>({
      text: `select p.partition, coalesce((select e.base + e.count from ${this.#schema}.log_entry e
          where e.partition = p.partition order by e.base desc limit 1), 0)::text as end
        from unnest($1::int[]) p (partition)`,
      values: [partitions],
    });
    return result.rows.map(({ partition, end }) => [partition, Number(end)]);
  }

  /**
   * The outbox positions in all entries of batches after `seq`, and those that were set aside with them, sorted. Entries are
   * packed only below a checkpoint: there are packed ones where that checkpoint is no longer known.
   */
  async idsAfter(seq: number): Promise<Float64Array> {
    const ids = new NumberList();
    await this.#pool.transaction(async (query) => {
      await query('set local enable_bitmapscan = on'); // the index on seq is a BRIN, which is read in no other way
      await query(
        `declare entry no scroll cursor for select ids::text, encode(packed, 'base64'), base, count
          from ${this.#schema}.log_entry where seq > ${seq}`,
      );
      await eachPage(query, 'entry', ENTRIES_A_PAGE, (page) => page.forEach((row) => ids.push(positionsOf(row))));
      await query(
        `declare letter no scroll cursor for select position from ${this.#schema}.relay_dead_letter where seq > ${seq}`,
      );
      await eachPage(query, 'letter', LETTERS_A_PAGE, (page) => ids.push(page.map(([position]) => Number(position))));
    });
    return ids.toArray().sort();
  }

  /** Deletes batches that nobody needs any more; at most every 30 seconds, in the background. */
  pruneNowAndThen(checkpointSeq: number): void {
    const nowMs = performance.now();
    if (nowMs < this.#prunedAtMs + PRUNE_INTERVAL_MS) return;
    this.#prunedAtMs = nowMs;
    this.#pruning = this.#prune(checkpointSeq - KEPT_BATCHES);
  }

  /** Resolves once no prune is under way. */
  async settled(): Promise<void> {
    await this.#pruning;
  }

  async #prune(below: number): Promise<void> {
    try {
      await this.#pool.query(`delete from ${this.#schema}.relay_batch where name = $1 and seq < $2`, [
        LEASE_NAME,
        below,
      ]);
    } catch (error) {
      this.#logger.warn({ error: messageOf(error) }, 'old rows of relay_batch could not be deleted; tried again later');
    }
  }
}

interface EndRow {
  seq: string;
  progress: string;
  checkpoint_seq: string | null;
  checkpoint: string | null;
}

async function eachPage(
  query: (text: string) => Promise<TextRow[]>,
  cursor: string,
  rows: number,
  take: (page: readonly TextRow[]) => void,
): Promise<void> {
  for (;;) {
    const page = await query(`fetch ${rows} from ${cursor}`);
    if (page.length === 0) return;
    take(page);
  }
}

/** Of an entry: of the rows that it names, or of the messages that are packed in it. */
function positionsOf([ids, packed, base, count]: TextRow): number[] {
  if (typeof ids === 'string') return ids.slice(1, -1).split(',').map(Number);
  const span = { base: BigInt(base ?? 0), count: BigInt(count ?? 0) };
  return unpackRecords(Buffer.from(packed ?? '', 'base64'), span).map(({ position }) => Number(position));
}

/** Numbers in a typed array that grows. */
class NumberList {
  #array = new Float64Array(1024);
  #length = 0;

  push(numbers: readonly number[]): void {
    const length = this.#length + numbers.length;
    if (length > this.#array.length) this.#grow(length);
    this.#array.set(numbers, this.#length);
    this.#length = length;
  }

  toArray(): Float64Array {
    return this.#array.slice(0, this.#length);
  }

  #grow(length: number): void {
    const larger = new Float64Array(Math.max(length, 2 * this.#array.length));
    larger.set(this.#array);
    this.#array = larger;
  }
}
