import { pause } from '../../../src/base/signal.ts';
import type { FailingKeys } from '../consumer-process.ts';
import type { Fault } from '../fault.ts';
import type { Random } from '../random.ts';
import { PATIENCE_MS, STORM, type Stage } from '../stage.ts';
import { KEYS, POISON_DEATHS, POISON_KEY } from '../tables.ts';
import { waitUntil } from '../wait-until.ts';

/** Members that come and go, and handlers that fail. */
export const CONSUMERS: readonly Fault[] = [
  {
    name: 'rebalance-storm',
    what: 'for 5 s there are eight more members; every 300 ms one of them leaves, and another one joins',
    async inject(stage) {
      const before = await stage.owners();
      const storm = await stage.start(STORM);
      await pause(5_000, stage.stop);
      await stage.end(storm);
      return (await stage.owners()) > before;
    },
  },
  {
    name: 'poison',
    what: `${POISON_DEATHS} consumers end, one after the other, in the handler of the same message: those attempts count`,
    inject: poison,
  },
  {
    name: 'handler-fails',
    what: 'a group’s handlers refuse the messages of four keys for 4 s: later ones line up behind the first',
    inject: refuse,
  },
];

async function poison(stage: Stage): Promise<boolean> {
  const { database, handlers } = stage;
  const id = stage.takeIds(1);
  const isHandled = async (): Promise<boolean> => {
    for (const { name, isRunning } of stage.consumers) if (!isRunning) await stage.start(name);
    const { attempt } = await handlers.one<{ attempt: number | null }>(
      'select attempt from torture.poison where id = $1',
      [id],
    );
    return attempt !== null;
  };
  stage.areConsumersMortal = true;
  try {
    await handlers.query('insert into torture.poison (id) values ($1) on conflict do nothing', [id]);
    await database.query(`select torture.step($1, $2) where not exists (select from torture.truth where id = $2)`, [
      ...[POISON_KEY, id],
    ]);
    return await waitUntil(isHandled, PATIENCE_MS, stage.stop);
  } finally {
    stage.areConsumersMortal = false;
  }
}

async function refuse(stage: Stage, random: Random): Promise<boolean> {
  const tell = (failing: readonly string[]): void => {
    for (const consumer of stage.consumers) consumer.send({ failing } satisfies FailingKeys);
  };
  const isLinedUp = async (): Promise<boolean> => {
    const rows = await stage.handlers.query(
      `select from tailrace.parked_message where group_name = 'single' group by key having count(*) > 1 limit 1`,
    );
    return rows.length > 0;
  };
  tell(random.shuffled(KEYS).slice(0, 4));
  try {
    const seen = await waitUntil(isLinedUp, PATIENCE_MS, stage.stop);
    await pause(4_000, stage.stop);
    return seen;
  } finally {
    tell([]);
  }
}
