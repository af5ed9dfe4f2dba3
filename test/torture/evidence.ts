import { unpackRecords } from '../../src/broker/postgres/packed-entry.ts';
import type {
  Attempts,
  BatchFact,
  Entry,
  LeaseFact,
  Place,
  PoisonFact,
  RefusedAppend,
  StaleEffect,
} from './checker.ts';
import { GROUPS } from './groups.ts';
import type { Database } from './database.ts';
import { readHistory, type HistoryEvent } from './history.ts';
import { NOT_YET_KNOWN, type Step } from './tables.ts';

/** What the database holds at the end. */
export interface DatabaseEvidence {
  readonly truth: readonly Step[];
  readonly log: Place;
  readonly effects: readonly Place[];
  readonly entries: readonly Entry[];
  readonly batches: readonly BatchFact[];
  readonly leases: readonly LeaseFact[];
  readonly staleEffects: readonly StaleEffect[];
  readonly poison: readonly PoisonFact[];
  readonly redelivered: number;
}

/**
 * Reads everything back, past the code that is under test, but for the bytes of packed entries.
 *
 * @param handlers the database that handlers write to.
 */
export async function readDatabase(database: Database, handlers: Database): Promise<DatabaseEvidence> {
  const truth = steps(await database.query<StepRow>('select id, k, n from torture.truth'));
  const numbers = new Map(truth.map(({ id, n }) => [id, n]));
  const effects: Place[] = [];
  for (const group of GROUPS) {
    effects.push({ name: `group ${group}`, steps: numbered(await readEffects(handlers, group), numbers) });
  }
  return {
    truth,
    log: { name: 'log', steps: numbered(await readLog(database), numbers) },
    effects,
    entries: await readEntries(database),
    batches: await readBatches(database),
    leases: await readLeases(database),
    staleEffects: await readStaleEffects(handlers),
    poison: await readPoison(handlers),
    redelivered: await countRedelivered(handlers),
  };
}

interface StepRow {
  readonly id: string | null;
  readonly k: string | null;
  readonly n: string | null;
}

/** Of a message that was published before its number was known, the truth knows it. */
function numbered(found: readonly Step[], numbers: ReadonlyMap<number, number>): Step[] {
  return found.map((step) => (step.n === NOT_YET_KNOWN ? { ...step, n: numbers.get(step.id) ?? step.n } : step));
}

interface Placed extends Step {
  readonly partition: number;
  readonly offset: number;
}

/** In the order of the offsets. */
async function readLog(database: Database): Promise<Step[]> {
  const found = [...(await readNamed(database)), ...(await readPacked(database))];
  return found.sort((a, b) => a.partition - b.partition || a.offset - b.offset).map(({ id, k, n }) => ({ id, k, n }));
}

/** Records that are rows of the outbox. */
async function readNamed(database: Database): Promise<Placed[]> {
  const rows = await database.query<StepRow & { readonly partition: number; readonly record_offset: string }>(
    `select e.partition, e.base + x.nth - 1 as record_offset, (o.payload ->> 'id')::bigint as id, o.key as k,
       (o.payload ->> 'n')::bigint as n
     from tailrace.log_entry e
     cross join lateral unnest(e.ids) with ordinality x (position, nth)
     left join tailrace.outbox o on o.position = x.position`,
  );
  return rows.map((row) => ({ ...stepOf(row), partition: row.partition, offset: Number(row.record_offset) }));
}

/** Records whose partition of the outbox may have left. */
async function readPacked(database: Database): Promise<Placed[]> {
  const rows = await database.query<{ partition: number; base: string; count: number; packed: Buffer }>(
    'select partition, base, count, packed from tailrace.log_entry where packed is not null',
  );
  return rows.flatMap(({ partition, base, count, packed }) =>
    unpackRecords(packed, { base: BigInt(base), count: BigInt(count) }).map(({ offset, key, payload }) => {
      const { id, n } = JSON.parse(payload ?? '{}') as Partial<Step>;
      return { partition, offset: Number(offset), id: id ?? NOBODYS, k: key ?? '', n: n ?? 0 };
    }),
  );
}

const NOBODYS = -1;

function steps(rows: readonly StepRow[]): Step[] {
  return rows.map(stepOf);
}

/** A record that names no message becomes one that nobody wrote. */
function stepOf({ id, k, n }: StepRow): Step {
  return { id: Number(id ?? NOBODYS), k: k ?? '', n: Number(n ?? 0) };
}

async function readEffects(database: Database, group: string): Promise<Step[]> {
  return steps(
    await database.query<StepRow>('select id, k, n from torture.effect where group_name = $1 order by seq', [group]),
  );
}

async function readEntries(database: Database): Promise<Entry[]> {
  const rows = await database.query<{ partition: number; base: string; count: number }>(
    'select partition, base, count from tailrace.log_entry order by partition, base',
  );
  return rows.map(({ partition, base, count }) => ({ partition, base: Number(base), count }));
}

async function readBatches(database: Database): Promise<BatchFact[]> {
  const rows = await database.query<{ seq: string; epoch: string; lease_epoch: string | null }>(
    'select seq, epoch, lease_epoch from torture.batch order by seq',
  );
  return rows.map(({ seq, epoch, lease_epoch }) => ({
    seq: Number(seq),
    epoch: Number(epoch),
    leaseEpoch: lease_epoch === null ? undefined : Number(lease_epoch),
  }));
}

async function readLeases(database: Database): Promise<LeaseFact[]> {
  const rows = await database.query<{ epoch: string; holder: string; at_ms: string }>(
    'select epoch, holder, extract(epoch from at) * 1000 as at_ms from torture.lease order by epoch',
  );
  return rows.map(({ epoch, holder, at_ms }) => ({ epoch: Number(epoch), holder, atMs: Number(at_ms) }));
}

/** Effects that were undone have used a number of their sequence up. */
async function countRedelivered(database: Database): Promise<number> {
  const { undone } = await database.one<{ undone: string }>(
    `select coalesce(pg_sequence_last_value('torture.effect_seq_seq'), 0) - (select count(*) from torture.effect) as undone`,
  );
  return Math.max(0, Number(undone));
}

async function readStaleEffects(database: Database): Promise<StaleEffect[]> {
  const rows = await database.query<{ group_name: string; id: string; member: string; owner: string }>(
    'select group_name, id, member, owner from torture.stale_effect',
  );
  return rows.map(({ group_name, id, ...rest }) => ({ group: group_name, id: Number(id), ...rest }));
}

async function readPoison(database: Database): Promise<PoisonFact[]> {
  const rows = await database.query<{ id: string; deaths: number; attempt: number }>(
    'select id, deaths, attempt from torture.poison where attempt is not null',
  );
  return rows.map(({ id, ...rest }) => ({ id: Number(id), ...rest }));
}

/** What the processes wrote down. */
export interface HistoryEvidence {
  readonly attempts: Attempts;
  readonly refused: readonly RefusedAppend[];
  /** Ranges of ids, both ends included, of transactions that were under way while a failover without its slots was. */
  readonly failedOver: readonly (readonly [number, number])[];
}

export async function readProcesses(path: string): Promise<HistoryEvidence> {
  const ok: (readonly [number, number])[] = [];
  const fail: (readonly [number, number])[] = [];
  const refused: RefusedAppend[] = [];
  let isFailingOver = false;
  let mayUndo = false;
  const failedOver: (readonly [number, number])[] = [];
  const open = new Map<number, readonly [number, number]>();
  for await (const event of readHistory(path)) {
    if (event.op === 'failover') {
      isFailingOver = event.outcome === 'invoke';
      if (isFailingOver && event['keepsSlots'] !== true) failedOver.push(...open.values());
      mayUndo = isFailingOver && event['keepsSlots'] !== true;
    }
    if (event.op === 'append' && event.outcome !== 'ok') refused.push(refusedAppend(event));
    if (event.op !== 'commit') continue;
    const ids = event['ids'] as [number, number];
    if (event.outcome === 'invoke') {
      open.set(ids[0], ids);
      if (mayUndo) failedOver.push(ids);
    } else open.delete(ids[0]);
    // What was answered by a server whose standby was behind may be gone with it.
    if (event.outcome === 'ok' && !isFailingOver) ok.push(ids);
    if (event.outcome === 'fail') fail.push(ids);
  }
  return { attempts: { ok, fail }, refused, failedOver };
}

function refusedAppend(event: HistoryEvent): RefusedAppend {
  return {
    holder: String(event['holder']),
    trusted: event['trusted'] === true,
    atMs: Number(event['wallMs']),
    code: String(event['code']),
  };
}
