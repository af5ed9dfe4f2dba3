import { describe, expect, it } from 'vitest';
import {
  abortCutover,
  cloneGroup,
  cutOver,
  deleteGroup,
  discardDeadLetters,
  editAndRetryDeadLetter,
  registerConsumerMetrics,
  retryDeadLetters,
  seekGroup,
  setCanaryShare,
} from '../../src/consumer/index.ts';

const connect = (): Promise<never> => Promise.reject(new Error('not to be reached'));
const database = { connect, query: connect };

/** Callers without types get as far as this. */
const acts = { abortCutover, cloneGroup, cutOver, deleteGroup, seekGroup, setCanaryShare } as unknown as Readonly<
  Record<string, (options?: unknown) => Promise<unknown>>
>;

describe.each(Object.keys(acts))('%s', (name) => {
  it.each([
    ['nothing', undefined, /there are no options\. Expected { database, /],
    ['no database', {}, /database has no method connect\. Expected a pg\.Pool/],
    ['no names', { database }, /is undefined\. Expected 1 to 200 characters/],
    ['no texts', { database, group: 5, from: 5, to: 5 }, /is 5\. Expected 1 to 200 characters/],
  ])('says what it expects when it is given %s', async (_what, given, message) => {
    await expect(acts[name]?.(given)).rejects.toMatchObject({
      code: 'INVALID_OPTION',
      message: expect.stringMatching(message) as string,
    });
  });
});

const refusal = (message: RegExp): object => ({
  code: 'INVALID_OPTION',
  message: expect.stringMatching(message) as string,
});

describe('seekGroup', () => {
  const given = { database, log: { ends: connect }, group: 'billing', topic: 'orders', to: 'latest' };

  it.each([undefined, 'newest', {}, { offset: 5 }, { time: '2026-01-01' }, { offset: 5n, by: 1n }])(
    'knows no place %o',
    async (to) => {
      const refused = refusal(/^seekGroup: to is .*\. Expected 'earliest'/s);
      await expect(seekGroup({ ...given, to } as never)).rejects.toMatchObject(refused);
    },
  );

  it.each([
    ['a misspelt option', { dryrun: true }, /there is no option dryrun\. Expected log, .*dryRun/],
    ['a flag that is a text', { dryRun: 'false' }, /dryRun is "false"\. Expected true or false/],
    ['a partition that is a text', { partition: '3' }, /partition is "3"\. Expected a whole number/],
    ['no log', { log: undefined }, /log has no method ends\. Expected a log, such as postgresLog/],
  ])('refuses %s', async (_what, more, message) => {
    await expect(seekGroup({ ...given, ...more } as never)).rejects.toMatchObject(refusal(message));
  });
});

describe('cutOver', () => {
  it.each([
    ['no log', {}, /^cutOver: log has no method ends/],
    ['a flag that is a text', { log: { ends: connect }, awaitMembers: 'no' }, /awaitMembers is "no"/],
    ['a timeout that is none', { log: { ends: connect }, timeoutMs: Number.NaN }, /timeoutMs is NaN/],
  ])('refuses %s', async (_what, more, message) => {
    const given = { database, from: 'billing', to: 'billing-2', ...more } as never;
    await expect(cutOver(given)).rejects.toMatchObject(refusal(message));
  });
});

it('deleteGroup takes no text for force', async () => {
  const given = { database, group: 'billing', force: 'false' } as never;
  await expect(deleteGroup(given)).rejects.toMatchObject(refusal(/force is "false"\. Expected true or false/));
});

it('registerConsumerMetrics says what it expects', () => {
  const register = registerConsumerMetrics as (registry?: unknown, consumers?: unknown) => void;
  const registry = { registerMetric: connect };
  expect(() => {
    register();
  }).toThrow(expect.objectContaining(refusal(/no method registerMetric\. Expected one of prom-client/)));
  expect(() => {
    register(registry, []);
  }).toThrow(expect.objectContaining(refusal(/consumers is \[\]\. Expected a function/)));
});

describe('acts on dead letters', () => {
  it.each([
    ['no filter', undefined, { database }, /the filter is undefined/],
    [
      'a misspelt filter',
      { groupName: 'billing' },
      { database },
      /there is no filter groupName\. Expected any of group/,
    ],
    ['no options', { group: 'billing' }, undefined, /database has no method query/],
    ['a filter that is undefined', { group: undefined }, { database }, /group is undefined\. Expected a text/],
    ['an offset that is a number', { offset: 5 }, { database }, /offset is 5\. Expected a bigint/],
    ['a misspelt option', {}, { database, dryrun: true }, /no option dryrun\. Expected any of database, .*dryRun/],
    ['a flag that is a text', {}, { database, dryRun: 'false' }, /dryRun is "false"/],
    ['a database that is none', { group: 'billing' }, { database: {} }, /database has no method query/],
  ])('say what they expect when they are given %s', async (_what, filter, options, message) => {
    for (const act of [retryDeadLetters, discardDeadLetters]) {
      await expect((async () => act(filter as never, options as never))()).rejects.toMatchObject({
        code: 'INVALID_OPTION',
        message: expect.stringMatching(message) as string,
      });
    }
  });

  const place = { group: 'billing', topic: 'orders', partition: 0, offset: 5n };

  it.each([
    ['no new content', place, undefined, { code: 'INVALID_OPTION' }],
    ['misspelt content', place, { pay: '{}' }, refusal(/there is no content pay\. Expected any of payload, headers/)],
    ['an object for JSON', place, { payload: {} }, { code: 'INVALID_PAYLOAD' }],
    ['no message', undefined, { payload: '{}' }, refusal(/the filter is undefined/)],
    ['more than one message', { group: 'billing', topic: 'orders' }, { payload: '{}' }, refusal(/has no partition/)],
  ])('editAndRetryDeadLetter refuses %s', async (_what, filter, edit, refused) => {
    const edited = editAndRetryDeadLetter(filter as never, edit as never, { database });
    await expect(edited).rejects.toMatchObject(refused);
  });
});
