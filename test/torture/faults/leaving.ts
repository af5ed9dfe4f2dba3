import { pause } from '../../../src/base/signal.ts';
import type { Fault } from '../fault.ts';
import type { Random } from '../random.ts';
import { PATIENCE_MS, type Stage } from '../stage.ts';
import { waitUntil } from '../wait-until.ts';

/** Partitions of the outbox that leave, with what they hold packed into the log. */
export const LEAVING: readonly Fault[] = [
  {
    name: 'partitions-leave',
    what: 'the outbox goes on in small partitions, which leave full under load, while no consumer runs: what these have yet to read is packed; the relay that removes them may be killed over it',
    inject: leave,
  },
];

const PARTITIONS = 8;
/** Few, so that a slow machine has not much to catch up with. */
const ROWS = 400;

/** Observed: a partition has left of whose messages no group has read one. */
async function leave(stage: Stage, random: Random): Promise<boolean> {
  for (const consumer of stage.consumers) await stage.end(consumer);
  try {
    const first = await goOnInSmallPartitions(stage);
    const hasLeft = async (): Promise<boolean> => (await firstPosition(stage)) > first;
    const isFull = async (): Promise<boolean> => (await lastPosition(stage)) >= first + ROWS;
    await stage.rush(stage.perSecond, () => waitUntil(isFull, PATIENCE_MS, stage.stop));
    await pause(random.whole(0, 2_000), stage.stop);
    if (random.chance(0.5)) await stage.killAndStart(await stage.someLeader()); // in the middle of removing it, maybe
    return await waitUntil(hasLeft, 2 * PATIENCE_MS, stage.stop);
  } finally {
    for (const { name } of stage.consumers) await stage.start(name);
  }
}

/** Where the oldest partition begins. */
async function firstPosition({ database }: Stage): Promise<number> {
  const { first } = await database.one<{ first: string }>(
    `select min(substring(pg_get_expr(c.relpartbound, c.oid) from 'FROM \\(''(\\d+)''\\)')::bigint) as first
       from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'tailrace.outbox'::regclass`,
  );
  return Number(first);
}

/**
 * Makes small partitions behind all others, and leaves out the positions before them. Under the lock of who makes partitions
 * always. Returns where they begin.
 */
async function goOnInSmallPartitions(stage: Stage): Promise<number> {
  await stage.database.query(
    `do $$
     declare low bigint;
     begin
       perform pg_advisory_xact_lock(hashtext('tailrace.ensure_outbox_partitions'));
       select max(substring(pg_get_expr(c.relpartbound, c.oid) from 'TO \\(''(\\d+)''\\)')::bigint) into low
         from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'tailrace.outbox'::regclass;
       for n in 1 .. ${PARTITIONS} loop
         execute format('create table tailrace.outbox_%s (like tailrace.outbox including defaults including constraints including indexes)', low);
         execute format('alter table tailrace.outbox attach partition tailrace.outbox_%s for values from (%s) to (%s)', low, low, low + ${ROWS});
         low := low + ${ROWS};
       end loop;
       perform tailrace.ensure_outbox_partitions();
       perform setval(pg_get_serial_sequence('tailrace.outbox', 'position')::regclass, low - ${PARTITIONS * ROWS} - 1);
     end $$`,
  );
  return lastPosition(stage);
}

async function lastPosition({ database }: Stage): Promise<number> {
  const { last } = await database.one<{ last: string }>(
    `select pg_sequence_last_value(pg_get_serial_sequence('tailrace.outbox', 'position')::regclass) as last`,
  );
  return Number(last);
}
