import { describe, expect, it } from 'vitest';
import {
  abortCutover,
  cloneGroup,
  cutOver,
  deleteGroup,
  discardDeadLetters,
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

describe('seekGroup', () => {
  it.each([undefined, 'newest', {}, { offset: 5 }, { time: '2026-01-01' }])('knows no place %j', async (to) => {
    const given = { database, group: 'billing', topic: 'orders', to } as never;
    await expect(seekGroup(given)).rejects.toMatchObject({
      code: 'INVALID_OPTION',
      message: expect.stringMatching(/^seekGroup: to is .*\. Expected 'earliest'/s) as string,
    });
  });
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
    ['a database that is none', { group: 'billing' }, { database: {} }, /database has no method query/],
  ])('say what they expect when they are given %s', async (_what, filter, options, message) => {
    for (const act of [retryDeadLetters, discardDeadLetters]) {
      await expect((async () => act(filter as never, options as never))()).rejects.toMatchObject({
        code: 'INVALID_OPTION',
        message: expect.stringMatching(message) as string,
      });
    }
  });
});
