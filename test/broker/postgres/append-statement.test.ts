import { describe, expect, it } from 'vitest';
import { AppendStatement, notificationOf, partitionsOf } from '../../../src/broker/postgres/append-statement.ts';
import { channelOf } from '../../../src/broker/postgres/channels.ts';

const attempt = { epoch: '3', seq: 8, layout: '6', progress: 'p', checkpoint: undefined, unroutable: [], retried: [] };

describe('AppendStatement', () => {
  it('passes all ids as one array, and where each part begins in it', () => {
    const parts = [
      { partition: 5, ids: [30, 10, 20] },
      { partition: 2, ids: [7] },
      { partition: 9, ids: [1, 2] },
    ];
    const query = new AppendStatement('"tailrace"', 'ch').of({ ...attempt, parts, bases: [100, 0, 3] });
    expect(query.values).toEqual([
      ...['relay', '3', '8', 'p', null],
      ...['{5,2,9}', '{100,0,3}', '{3,1,2}', '{1,4,5}', '{30,10,20,7,1,2}'],
      ...['ch', '5,2,9', '6'],
    ]);
  });

  it('passes dead letters on only where there are some', () => {
    const statement = new AppendStatement('"tailrace"', 'ch');
    const plain = statement.of({ ...attempt, parts: [], bases: [] });
    const unroutable = [{ topic: 'x', ids: [4, 5], reason: 'UNKNOWN_TOPIC', error: 'no such topic' }];
    const query = statement.of({ ...attempt, parts: [], bases: [], unroutable, retried: [6] });
    expect(query.name).not.toBe(plain.name);
    expect(plain.text).not.toContain('relay_dead_letter');
    expect(query.values).toEqual([...plain.values, JSON.stringify(unroutable), '{6}']);
  });

  it('notifies nobody of a batch without messages', () => {
    const query = new AppendStatement('"tailrace"', 'ch').of({ ...attempt, parts: [], bases: [] });
    expect(query.values.slice(5)).toEqual(['{}', '{}', '{}', '{}', '{}', 'ch', null, '6']);
  });
});

describe('a notification', () => {
  it('names the partitions', () => {
    expect(partitionsOf(notificationOf([3, 1, 20]))).toEqual([3, 1, 20]);
  });

  it('of very many partitions means any, since Postgres refuses one of 8,000 bytes', () => {
    const many = Array.from({ length: 5_000 }, (_, n) => n);
    expect(notificationOf(many)).toBe('');
    expect(partitionsOf('')).toBeUndefined();
  });
});

describe('channelOf', () => {
  it('fits into a name of Postgres, whatever the schema', () => {
    expect(channelOf('tailrace', 'log')).toBe('tailrace_log');
    expect(channelOf('x'.repeat(63), 'lease')).toBe(`${'x'.repeat(57)}_lease`);
  });
});
