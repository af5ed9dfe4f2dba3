import { pause } from '../../../src/base/signal.ts';
import type { Fault } from '../fault.ts';
import type { Random } from '../random.ts';
import { PATIENCE_MS, type Stage } from '../stage.ts';
import { waitUntil } from '../wait-until.ts';

/** What the relay reads from is taken away or changed behind its back. */
export const SLOTS: readonly Fault[] = [
  {
    name: 'slot-dropped',
    what: 'the replication slot is dropped while messages are written',
    async inject(stage) {
      const slot = await slotName(stage);
      await whileRelaysStand(stage, () => dropSlot(stage, slot));
      return () => streamsAgain(stage);
    },
  },
  {
    name: 'slot-recreated',
    what: 'the slot is dropped and made anew by hand, so that it skips what was written in between',
    async inject(stage) {
      const slot = await slotName(stage);
      await whileRelaysStand(stage, async () => {
        await dropSlot(stage, slot);
        await pause(300, stage.stop); // with messages that the new one will not have
        await stage.database.query(
          `select pg_create_logical_replication_slot($1, 'pgoutput')
             where not exists (select from pg_replication_slots where slot_name = $1)`,
          [slot],
        );
      });
      return () => streamsAgain(stage);
    },
  },
  {
    name: 'slot-advanced',
    what: 'the slot is moved to the end of the WAL by hand, over messages that nobody has read',
    async inject(stage) {
      const slot = await slotName(stage);
      await whileRelaysStand(stage, async () => {
        await pause(300, stage.stop);
        await stage.database.query(`select pg_replication_slot_advance($1, pg_current_wal_lsn())`, [slot]);
      });
      return () => streamsAgain(stage);
    },
  },
  {
    name: 'slot-invalidated',
    what: '`max_slot_wal_keep_size = 16MB` and 100 MB of WAL while the relays stand still: the slot is lost',
    async inject(stage) {
      const { database } = stage;
      const slot = await slotName(stage);
      let isLost = false;
      await database.query(`alter system set max_slot_wal_keep_size = '16MB'`);
      await database.query('select pg_reload_conf()');
      try {
        await whileRelaysStand(stage, async () => {
          await database.query(
            `select pg_logical_emit_message(false, 'torture', repeat('x', 1000000)) from generate_series(1, 100)`,
          );
          isLost = await waitUntil(
            async () => {
              await database.query('checkpoint');
              const rows = await database.query(
                `select from pg_replication_slots where slot_name = $1 and wal_status = 'lost'`,
                [slot],
              );
              return rows.length > 0;
            },
            PATIENCE_MS,
            stage.stop,
          );
        });
      } finally {
        await database.query('alter system reset max_slot_wal_keep_size');
        await database.query('select pg_reload_conf()');
      }
      return async () => isLost && (await streamsAgain(stage));
    },
  },
  {
    name: 'publication-dropped',
    what: 'the publication is dropped for 2 s while messages are written, and made anew',
    async inject(stage) {
      await stage.database.query('drop publication if exists tailrace');
      await pause(2_000, stage.stop);
      await stage.database.query(PUBLICATION);
      return true;
    },
  },
  {
    name: 'publication-altered',
    what: 'for 2 s the publication sends updates only, so no messages',
    async inject({ database, stop }) {
      await database.query(`alter publication tailrace set (publish = 'update')`);
      await pause(2_000, stop);
      await database.query(`alter publication tailrace set (publish = 'insert')`);
      return true;
    },
  },
  {
    name: 'checkpoint-old',
    what: 'the newest rows of the relay’s progress are deleted, as if restored from a backup; the log stays as it is',
    async inject(stage) {
      await stage.stopRelays();
      const deleted = await stage.database.query(
        `delete from tailrace.relay_batch where seq > (select max(seq) - 50 from tailrace.relay_batch) returning seq`,
      );
      await stage.database.query(`delete from torture.batch where seq >= $1`, [
        Math.min(...deleted.map(({ seq }) => Number(seq))),
      ]);
      await stage.startRelays();
      return deleted.length > 0;
    },
  },
  {
    name: 'checkpoint-newer',
    what: 'the relay’s progress is of transactions or WAL that the server has not come to, as if restored from another one: relays must halt, until it is put right',
    inject: restoreNewer,
  },
  {
    name: 'another-cluster',
    what: 'the log says that it was written on another cluster: relays must halt, until it is put right',
    async inject(stage) {
      const { database } = stage;
      await stage.stopRelays();
      stage.allowedHalts = ['WRONG_CLUSTER'];
      const haltsBefore = stage.halts;
      await database.query(`update tailrace.relay_lease set system_identifier = 'x' || system_identifier`);
      await stage.startRelays();
      const halted = await waitUntil(() => stage.halts >= haltsBefore + 2, PATIENCE_MS, stage.stop);
      await stage.stopRelays();
      stage.allowedHalts = [];
      await database.query(`update tailrace.relay_lease set system_identifier = ltrim(system_identifier, 'x')`);
      await stage.startRelays();
      return halted;
    },
  },
];

/** Put right as the message of the error says. */
async function restoreNewer(stage: Stage, random: Random): Promise<boolean> {
  const { database } = stage;
  await stage.stopRelays();
  stage.allowedHalts = ['WRONG_CLUSTER'];
  const haltsBefore = stage.halts;
  await database.query(
    random.chance(0.5)
      ? `update tailrace.relay_batch set checkpoint = format('%1$s:%1$s: ', pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 1000000)
           where seq = (select max(seq) from tailrace.relay_batch)`
      : `update tailrace.relay_batch set progress = (pg_current_wal_insert_lsn() + 4294967296)::text
           where seq = (select max(seq) from tailrace.relay_batch)`,
  );
  await stage.startRelays();
  const halted = await waitUntil(() => stage.halts >= haltsBefore + 2, PATIENCE_MS, stage.stop);
  await stage.stopRelays();
  stage.allowedHalts = [];
  await database.query(`update tailrace.relay_batch set checkpoint = null, progress = '0/0'`);
  await stage.startRelays();
  return halted;
}

const PUBLICATION = `create publication tailrace for table tailrace.outbox (position, topic, key, tx)
  with (publish = 'insert', publish_via_partition_root = true)`;

async function slotName({ database, stop }: Stage): Promise<string> {
  let name: string | undefined;
  await waitUntil(
    async () => {
      const [row] = await database.query<{ slot_name: string }>(
        `select slot_name from pg_replication_slots where database = current_database() and confirmed_flush_lsn is not null
           and coalesce(wal_status, '') <> 'lost'`,
      );
      name = row?.slot_name;
      return name !== undefined;
    },
    PATIENCE_MS,
    stop,
  );
  if (name === undefined) throw new Error('There is no replication slot.');
  return name;
}

/** Stops all relays where they are, and their walsenders, so that nobody is quicker than the fault. */
async function whileRelaysStand(stage: Stage, act: () => Promise<void>): Promise<void> {
  for (const relay of stage.relays) relay.freeze();
  try {
    const isFree = async (): Promise<boolean> => {
      await stage.database.query(
        `select pg_terminate_backend(pid) from pg_stat_activity where application_name in ('tailrace relay wal', 'tailrace relay slot')`,
      );
      const rows = await stage.database.query('select from pg_replication_slots where active');
      return rows.length === 0;
    };
    await waitUntil(isFree, PATIENCE_MS, stage.stop);
    await act();
  } finally {
    for (const relay of stage.relays) relay.thaw();
  }
}

async function dropSlot({ database }: Stage, slot: string): Promise<void> {
  await database.query('select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1', [
    slot,
  ]);
}

/** Waits until a relay streams from a slot again: polling meanwhile delivers, but is not the end of it. */
export async function streamsAgain({ database, stop }: Stage): Promise<boolean> {
  return waitUntil(
    async () => {
      const rows = await database.query(
        `select from pg_stat_activity a join pg_replication_slots s on s.active_pid = a.pid
           where a.application_name = 'tailrace relay wal'`,
      );
      return rows.length > 0;
    },
    PATIENCE_MS,
    stop,
  );
}
