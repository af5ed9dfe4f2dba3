import { expect, it } from 'vitest';
import { BatchWait } from '../../src/relay/batch-wait.ts';
import type { SourceBatch, SourceReader } from '../../src/source/source.ts';

const batch = (progress: string): SourceBatch => ({ ids: [], topics: [], keyHashes: [], progress });

/** A reader whose batches are given by hand. */
function byHand(): { reader: SourceReader; asked: PromiseWithResolvers<SourceBatch>[] } {
  const asked: PromiseWithResolvers<SourceBatch>[] = [];
  const reader: SourceReader = {
    status: { mode: 'polling' },
    next: () => {
      const next = Promise.withResolvers<SourceBatch>();
      asked.push(next);
      return next.promise;
    },
    durable: () => undefined,
    close: () => Promise.resolve(),
  };
  return { reader, asked };
}

const none = new AbortController().signal;

it('gives batch after batch', async () => {
  const { reader, asked } = byHand();
  const wait = new BatchWait(reader, none);
  for (const progress of ['1', '2']) {
    const next = wait.next();
    asked.at(-1)?.resolve(batch(progress));
    expect(await next).toEqual(batch(progress));
  }
  expect(asked).toHaveLength(2);
});

it('ends a wait that is interrupted, and asks for no other batch when it is taken up again', async () => {
  const { reader, asked } = byHand();
  const wait = new BatchWait(reader, none);
  for (let times = 0; times < 3; times++) {
    const interrupted = wait.next();
    wait.interrupt();
    expect(await interrupted).toBeUndefined();
  }
  const next = wait.next();
  asked[0]?.resolve(batch('1'));
  expect(await next).toEqual(batch('1'));
  expect(asked).toHaveLength(1);
});

it('remembers an interruption until the next wait, once', async () => {
  const { reader, asked } = byHand();
  const wait = new BatchWait(reader, none);
  wait.interrupt();
  wait.interrupt();
  expect(await wait.next()).toBeUndefined();
  const next = wait.next();
  asked[0]?.resolve(batch('1'));
  expect(await next).toEqual(batch('1'));
});

it('loses no batch that comes at the moment of an interruption', async () => {
  const { reader, asked } = byHand();
  const wait = new BatchWait(reader, none);
  const both = wait.next();
  asked[0]?.resolve(batch('1'));
  wait.interrupt();
  const found = [await both, await wait.next()];
  expect(found.filter((one) => one !== undefined)).toEqual([batch('1')]);
});

it('tells what the reader failed with, and settles when it has', async () => {
  const { reader, asked } = byHand();
  const wait = new BatchWait(reader, none);
  await wait.settled();
  const failing = wait.next();
  asked[0]?.reject(new Error('lost'));
  await expect(failing).rejects.toThrow('lost');
  await wait.settled();
});
