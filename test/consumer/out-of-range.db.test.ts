import { expect, it } from 'vitest';
import { addEffect, Counted } from './counted.ts';
import { counts, listeningLogger, Stream, until } from './kit.ts';

it.each([
  ['stop', 'partitions'],
  ['earliest', 'partitions'],
  ['latest', 'partitions'],
  ['stop', 'work-queue'],
  ['earliest', 'work-queue'],
] as const)(
  'what a group does where retention has removed what it has not read: %s (%s)',
  async (onOutOfRange, mode) => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(['a'], 3));
    const first = stream.consumer({ mode }).on(Counted, ({ payload }, { tx }) => addEffect(tx, payload));
    await first.start();
    await stream.untilEffects(3);
    await first.stop();
    await stream.publish(...counts(['a'], 2, 4)); // offsets 3 and 4
    await stream.publish(...counts(['a'], 2, 6)); // offsets 5 and 6
    await stream.rows('update tailrace.log_partition set start = 5');

    const logger = listeningLogger();
    const consumer = stream
      .consumer({ mode, onOutOfRange, logger })
      .on(Counted, ({ payload }, { tx }) => addEffect(tx, payload));
    await consumer.start();
    const said = (message: RegExp) =>
      logger.lines.filter((line) => line.level === 'error' && message.test(line.message));
    if (onOutOfRange === 'stop') {
      await until(() => said(/stands still/).length > 0);
      expect(consumer.status().problem).toMatch(/the log goes on at 5/);
    } else {
      await until(() => said(/goes on without them/).length > 0);
      const lost = onOutOfRange === 'earliest' ? 2 : 4;
      expect(said(/goes on without them/)).toMatchObject([{ fields: { from: '3', to: `${3 + lost}`, lost } }]);
      expect(consumer.status().lost).toBe(lost);
      await stream.publish(...counts(['a'], 1, 8));
    }
    const expected = { stop: [1, 2, 3], earliest: [1, 2, 3, 6, 7, 8], latest: [1, 2, 3, 8] }[onOutOfRange];
    await stream.untilEffects(expected.length);
    await consumer.stop();
    expect((await stream.numbers())['a']?.sort((a, b) => a - b)).toEqual(expected);
    const [cursor] = await stream.rows('select next_offset::int from tailrace.consumer_cursor');
    expect(cursor).toEqual({ next_offset: onOutOfRange === 'stop' ? 3 : 8 });
  },
);
