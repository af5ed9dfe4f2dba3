import { expect, it, vi } from 'vitest';
import { postgresLog, type PostgresLog } from '../../src/broker/postgres/index.ts';
import { createRelay, walSource, type Relay } from '../../src/relay/index.ts';
import { createTestDatabase, type TestDatabase } from '../servers/test-database.ts';
import { run, type Outcome } from './kit.ts';

vi.setConfig({ testTimeout: 180_000 }); // several waits, each of which may be long on a slow machine

const patient = { timeout: 50_000, interval: 20 };

/** A relay that creates no topics, as the commands find it. */
interface Running extends AsyncDisposable {
  readonly relay: Relay;
  readonly log: PostgresLog;
  /** What it has logged of its dead letters. */
  readonly told: readonly object[];
}

async function startRelay({ connectionString }: TestDatabase): Promise<Running> {
  const log = postgresLog({ connectionString, createTopics: false });
  const told: object[] = [];
  const note = (fields: object, message: string): void => {
    if (message.startsWith('dead letters of the relay')) told.push({ ...fields, message });
  };
  const logger = { debug: () => undefined, info: note, warn: note, error: note };
  const relay = createRelay({ source: walSource({ connectionString }), log, holder: 'the-relay', logger });
  await relay.start();
  const dispose = async (): Promise<void> => {
    await relay.stop();
    await log.close();
  };
  return { relay, log, told, [Symbol.asyncDispose]: dispose };
}

const cli = ({ connectionString }: TestDatabase, ...args: string[]): Promise<Outcome> =>
  run(args, { DATABASE_URL: connectionString });

const publish = (database: TestDatabase, topic: string, count: number): Promise<unknown> =>
  database.pool.query(`select tailrace.publish($1, 'k', 'Counted', to_json(n)) from generate_series(1, $2::int) n`, [
    topic,
    count,
  ]);

it('dead letters of the relay: lists and shows them, lets them be routed again, and forgets others', async () => {
  await using database = await createTestDatabase();
  expect(await cli(database, 'dead-letters', 'list', '--relay')).toEqual({
    exitCode: 0,
    out: 'There are none.\n',
    err: '',
  });
  await using running = await startRelay(database);
  await publish(database, 'nowhere', 3);
  await expect.poll(() => running.relay.status().deadLettered, patient).toBe(3);

  const list = await cli(database, 'dead-letters', '--json');
  expect(JSON.parse(list.out)).toMatchObject({
    deadLetters: [],
    relay: ['3', '2', '1'].map((position) => ({ position, topic: 'nowhere', type: 'Counted', key: 'k', attempts: 1 })),
  });
  expect((await cli(database, 'dead-letters')).out).toMatch(
    /^SET ASIDE AT +POSITION[^]* 3 +nowhere +Counted +k +1 +- +UNKNOWN_TOPIC/,
  );
  await database.pool.query(`insert into tailrace.consumer_group (name) values ('g')`);
  expect((await cli(database, 'dead-letters', 'list', '--group', 'g')).out).toBe('There are none.\n');
  expect((await cli(database, 'dead-letters', 'list', '--topic', 'other')).out).toBe('There are none.\n');
  const shown = await cli(database, 'dead-letters', 'show', '--relay', '2', '--json');
  expect(JSON.parse(shown.out)).toMatchObject({ position: '2', reason: 'UNKNOWN_TOPIC', payload: 2 });
  expect((await cli(database, 'dead-letters', 'show', '--relay', '2')).out).toMatch(
    /topic +nowhere\n[^]*\n2\n\nThere is no topic "nowhere"/,
  );

  const inVain = await cli(database, 'dead-letters', 'retry', '1', '2', '--json');
  expect(inVain).toMatchObject({
    exitCode: 1,
    err: expect.stringMatching(/2 cannot be routed still: There is no topic/) as string,
  });
  expect(JSON.parse(inVain.out)).toMatchObject({
    done: [],
    failed: [{ position: '1' }, { position: '2' }],
    waiting: [],
  });
  await running.log.createTopic('nowhere', 1);
  expect(await cli(database, 'dead-letters', 'retry', '2', '3')).toEqual({
    exitCode: 0,
    out: '2 routed again.\n',
    err: '',
  });
  expect(await cli(database, 'dead-letters', 'discard', '--all')).toEqual({
    exitCode: 0,
    out: '1 discarded.\n',
    err: '',
  });
  await expect
    .poll(() => running.told, patient)
    .toMatchObject([
      { positions: [1, 2], message: expect.stringContaining('still cannot be routed') },
      { positions: [2, 3], message: expect.stringContaining('were routed') },
      { positions: [1], message: expect.stringContaining('were discarded') },
    ]);
  const { rows } = await database.pool.query('select ids from tailrace.log_entry order by base');
  expect(rows).toEqual([{ ids: ['2', '3'] }]);
  const gone = await cli(database, 'dead-letters', 'retry', '1');
  expect(gone).toMatchObject({ exitCode: 1, err: expect.stringMatching(/Nothing was asked for 1/) as string });

  const doctor = await cli(database, 'doctor', '--json');
  const { findings } = JSON.parse(doctor.out) as { findings: readonly { readonly check: string }[] };
  expect(findings.find(({ check }) => check === 'relay lag')).toMatchObject({
    level: 'ok',
    what: 'The relay has read every message.',
  });
  const ids = await database.pool.query<{ id: string }>(
    'select message_id as id from tailrace.outbox order by position limit 2',
  );
  const [discarded = '', routed = ''] = ids.rows.map(({ id }) => id);
  expect(JSON.parse((await cli(database, 'trace', discarded, '--json')).out)).toMatchObject({ isDiscarded: true });
  expect((await cli(database, 'trace', discarded)).out).toContain('the relay has passed it: it is neither in the log');
  expect(JSON.parse((await cli(database, 'trace', routed, '--json')).out)).toMatchObject({
    log: { offset: '0' },
    isDiscarded: false,
  });
});

it('dead letters of the relay: what is asked while none runs is done by the next', async () => {
  await using database = await createTestDatabase();
  {
    await using running = await startRelay(database);
    await publish(database, 'nowhere', 1);
    await expect.poll(() => running.relay.status().deadLettered, patient).toBe(1);
    await running.log.createTopic('nowhere', 1);
  }
  const asked = await cli(database, 'dead-letters', 'retry', '--topic', 'nowhere', '--json');
  expect(asked).toMatchObject({
    exitCode: 1,
    err: expect.stringMatching(/No relay runs: the next one does it/) as string,
  });
  expect(JSON.parse(asked.out)).toMatchObject({ waiting: ['1'], isRelayRunning: false });
  await using next = await startRelay(database);
  await expect.poll(() => next.relay.status().appended, patient).toBe(1);
});

it('relay switch: asks for a mode, and says when the relay reads like that', async () => {
  await using database = await createTestDatabase();
  expect(await cli(database, 'relay', 'switch', 'polling')).toMatchObject({
    exitCode: 1,
    err: expect.stringMatching(/No relay has run/) as string,
  });
  {
    await using running = await startRelay(database);
    await expect.poll(() => running.relay.status().source?.mode, patient).toBe('wal');
    expect(await cli(database, 'relay', 'switch', 'polling')).toEqual({
      exitCode: 0,
      out: 'The relay the-relay polls now.\n',
      err: '',
    });
    expect(running.relay.status()).toMatchObject({ wantedMode: 'polling', source: { mode: 'polling' } });
    const back = await cli(database, 'relay', 'switch', 'wal', '--json');
    expect(back).toMatchObject({ exitCode: 0, err: '' });
    expect(JSON.parse(back.out)).toMatchObject({ holder: 'the-relay', asked: 'wal', before: 'polling', mode: 'wal' });
    expect(await cli(database, 'relay', 'switch', 'auto')).toMatchObject({ exitCode: 0, err: '' });
    await expect.poll(() => running.relay.status().wantedMode, patient).toBeUndefined();
  }
  expect(await cli(database, 'relay', 'switch', 'polling')).toMatchObject({
    exitCode: 1,
    err: expect.stringMatching(/No relay runs. What you asked for is kept/) as string,
  });
  await using next = await startRelay(database);
  expect(next.relay.status().source).toEqual({ mode: 'polling' });
});

it.each([
  ['a mode that is none', ['relay', 'switch', 'fast'], /Allowed choices are wal, polling, auto/],
  ['a place in a topic', ['dead-letters', 'retry', 'orders/3@1041'], /For a place in a topic, name its --group/],
  ['no choice', ['dead-letters', 'discard'], /Expected positions, or --topic, or --all/],
  ['two choices', ['dead-letters', 'discard', '1', '--all'], /Expected positions, or --topic, or --all/],
  ['two owners', ['dead-letters', 'list', '--relay', '--group', 'g'], /do not go together/],
  ['half a place', ['dead-letters', 'show', 'billing'], /Expected a group and a place/],
])('refuses %s', async (_what, args, message) => {
  const { exitCode, out, err } = await run(args, { DATABASE_URL: 'postgresql://nobody@127.0.0.1:1/none' });
  expect({ exitCode, out }).toEqual({ exitCode: 2, out: '' });
  expect(err).toMatch(message);
});
