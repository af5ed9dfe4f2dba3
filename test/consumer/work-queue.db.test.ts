import { expect, it } from 'vitest';
import type { Consumer, ConsumerOptions } from '../../src/consumer/index.ts';
import { addEffect, Counted } from './counted.ts';
import { counts, range, Stream, until } from './kit.ts';

const QUEUE = { mode: 'work-queue' } as const;

/** Handlers that wait, each counted, until they are let go. */
class Gate {
  inside = 0;
  readonly #open = Promise.withResolvers<undefined>();

  async pass(): Promise<void> {
    this.inside += 1;
    await this.#open.promise;
    this.inside -= 1;
  }

  open(): void {
    this.#open.resolve(undefined);
  }
}

function member(stream: Stream, memberId: string, options: Partial<ConsumerOptions> = {}, gate?: Gate): Consumer {
  return stream.consumer({ ...QUEUE, memberId, concurrency: 1, ...options }).on(Counted, async ({ payload }, { tx }) => {
    await gate?.pass();
    await addEffect(tx, payload, memberId);
  });
}

it('more members than partitions all get work, and everything is handled once', async () => {
  await using stream = await Stream.open({ partitions: 1 });
  const names = range(5).map((n) => `m${n}`);
  const gate = new Gate();
  const members = names.map((name) => member(stream, name, {}, gate));
  for (const one of members) await one.start();
  await stream.publish(...counts(['a'], 20));
  await until(() => gate.inside === names.length); // each of them is at work
  gate.open();
  await stream.untilEffects(20);
  const effects = await stream.effects();
  expect(effects.map(({ n }) => n).sort((a, b) => a - b)).toEqual(range(20));
  expect(new Set(effects.map(({ member: by }) => by))).toEqual(new Set(names));
  await until(async () => {
    const [place] = await stream.rows<{ next_offset: string }>('select next_offset from tailrace.consumer_cursor');
    return place?.next_offset === '20';
  });
});
