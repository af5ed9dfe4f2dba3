import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { addEffect, Counted } from './counted.ts';
import { counts, range, Stream, until } from './kit.ts';
import type { MemberOptions } from './member-process.ts';

const keys = Array.from({ length: 12 }, (_, at) => `key ${at}`);
/** Short, so that it is soon over. On a slow machine it may run out at other times too: nothing here minds. */
const LEASE_MS = 1_500;

/** A member in a process of its own. */
class MemberProcess implements AsyncDisposable {
  readonly #child: ChildProcessByStdio<null, Readable, null>;
  readonly #lines: Record<string, unknown>[] = [];
  readonly #exited: Promise<unknown>;

  constructor(stream: Stream, options: Omit<MemberOptions, 'connectionString' | 'leaseMs'>) {
    const script = fileURLToPath(new URL('member-process.ts', import.meta.url));
    const told: MemberOptions = { connectionString: stream.database.connectionString, leaseMs: LEASE_MS, ...options };
    this.#child = spawn(process.execPath, [script, JSON.stringify(told)], { stdio: ['ignore', 'pipe', 'inherit'] });
    this.#exited = once(this.#child, 'exit');
    createInterface({ input: this.#child.stdout }).on('line', (line) => {
      this.#lines.push(JSON.parse(line) as Record<string, unknown>);
    });
  }

  /** Waits until it says something. */
  async says(isIt: (line: Record<string, unknown>) => boolean): Promise<void> {
    await until(() => this.hasSaid(isIt));
  }

  hasSaid(isIt: (line: Record<string, unknown>) => boolean): boolean {
    return this.#lines.some(isIt);
  }

  /** Waits until it has ended by itself. Returns its exit code. */
  async ends(): Promise<unknown> {
    const [code] = (await this.#exited) as unknown[];
    return code;
  }

  signal(name: 'SIGSTOP' | 'SIGCONT' | 'SIGKILL'): void {
    this.#child.kill(name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exited;
  }
}

/** Publishes, and again if the others were faster, until the member pauses inside a transaction. */
async function publishUntilInside(
  stream: Stream,
  member: MemberProcess,
  publishMore: () => Promise<void>,
): Promise<void> {
  const isInside = (): boolean => member.hasSaid(({ inside }) => inside !== undefined);
  while (!isInside()) {
    await publishMore();
    const [outbox] = await stream.rows<{ count: number }>('select count(*)::int from tailrace.outbox');
    await until(async () => {
      const [effects] = await stream.rows<{ count: number }>('select count(*)::int from effect');
      return isInside() || effects?.count === outbox?.count;
    });
  }
}

async function assertOnceAndInOrder(stream: Stream, total: number): Promise<void> {
  expect(await stream.numbers()).toEqual(Object.fromEntries(keys.map((key) => [key, range(total)])));
}

describe('a member that dies', () => {
  it('leaves nothing undone, doubled or out of order to those who take over', async () => {
    await using stream = await Stream.open();
    await stream.log.createTopic('numbers', 4);
    const survivor = stream
      .consumer({ memberId: 'survivor', leaseMs: LEASE_MS })
      .on(Counted, ({ payload }, { tx }) => addEffect(tx, payload, 'survivor'));
    await survivor.start();
    let published = 0;
    const publishMore = async (): Promise<void> => {
      await stream.publish(...counts(keys, 20, published + 1));
      published += 20;
    };
    for (const round of [0, 1, 2]) {
      await using victim = new MemberProcess(stream, { memberId: `victim ${round}`, pauseAt: 10 });
      await victim.says(({ started }) => started !== undefined);
      await until(() => survivor.status().assignments.length === 2);
      await publishUntilInside(stream, victim, publishMore);
      victim.signal('SIGKILL'); // with transactions open, and places not stored
      await stream.untilEffects(keys.length * published);
    }
    await assertOnceAndInOrder(stream, published);
    const members = new Set((await stream.effects()).map(({ member }) => member));
    expect([...members].sort()).toEqual(['survivor', 'victim 0', 'victim 1', 'victim 2']);
  });

  it('leaves what it has stored to those who take over, though retention has removed it from the log', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(['a'], 20));
    await using victim = new MemberProcess(stream, { memberId: 'victim', pauseAt: 1, storesFirst: true });
    await victim.says(({ inside }) => inside !== undefined);
    await until(
      async () => (await stream.rows('select from tailrace.consumer_cursor where stored_to = 20')).length === 1,
    );
    victim.signal('SIGKILL'); // with nothing handled, or little
    await stream.rows('update tailrace.log_partition set start = 20');
    const heir = stream
      .consumer({ memberId: 'heir', delivery: 'store-first' })
      .on(Counted, ({ payload }, { tx }) => addEffect(tx, payload, 'heir'));
    await heir.start();
    await stream.publish(...counts(['a'], 5, 21));
    await stream.untilEffects(25);
    expect(await stream.numbers()).toEqual({ a: range(25) });
    expect(heir.status().lost).toBe(0);
  });

  it('is not waited for longer than its lease, and does no harm when it was only asleep', async () => {
    await using stream = await Stream.open();
    await stream.log.createTopic('numbers', 4);
    await using sleeper = new MemberProcess(stream, { memberId: 'sleeper', pauseAt: 10 });
    await sleeper.says(({ started }) => started !== undefined);
    const survivor = stream
      .consumer({ memberId: 'survivor', leaseMs: LEASE_MS })
      .on(Counted, ({ payload }, { tx }) => addEffect(tx, payload, 'survivor'));
    await survivor.start();
    await until(() => survivor.status().assignments.length === 2);
    let published = 0;
    const publishMore = async (): Promise<void> => {
      await stream.publish(...counts(keys, 20, published + 1));
      published += 20;
    };
    await publishUntilInside(stream, sleeper, publishMore);
    sleeper.signal('SIGSTOP'); // with transactions open: the server ends them
    await stream.untilEffects(keys.length * published);
    sleeper.signal('SIGCONT');
    await sleeper.says(({ message }) => String(message).startsWith('The lease ran out'));
    await until(() => survivor.status().assignments.length === 2); // it has joined again
    await publishMore();
    await stream.untilEffects(keys.length * published);
    await assertOnceAndInOrder(stream, published);
  });
});

describe('a member that stops', () => {
  it.each([false, true])(
    'leaves no timer and no connection that would keep its process alive: store-first %s',
    async (storesFirst) => {
      await using stream = await Stream.open();
      await stream.publish(...counts(keys, 1));
      await using leaver = new MemberProcess(stream, { memberId: 'leaver', stopsAfterOne: true, storesFirst });
      expect(await leaver.ends()).toBe(0);
      const [left] = await stream.rows<{ members: number; owned: number }>(
        `select (select count(*)::int from tailrace.consumer_member) as members,
         (select count(owner)::int from tailrace.consumer_cursor) as owned`,
      );
      expect(left).toEqual({ members: 0, owned: 0 });
    },
  );
});
