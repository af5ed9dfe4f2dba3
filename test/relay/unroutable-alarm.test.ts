import { expect, it } from 'vitest';
import { silentLogger } from '../../src/base/logger.ts';
import { UnroutableAlarm } from '../../src/relay/unroutable-alarm.ts';

it('reports each topic at once, and then every ten seconds with all that came since', () => {
  const errors: object[] = [];
  let nowMs = 0;
  const alarm = new UnroutableAlarm(
    { ...silentLogger, error: (fields: object) => void errors.push(fields) },
    () => nowMs,
  );
  const sound = (topic: string, ...ids: number[]): void => {
    alarm.sound({ topic, ids, reason: 'UNKNOWN_TOPIC', error: 'no such topic' });
  };
  sound('a', 1, 2);
  sound('a', 3);
  sound('b', 4);
  nowMs = 9_999;
  sound('a', 5);
  expect(errors).toMatchObject([
    { topic: 'a', messages: 2, lastPosition: 2, reason: 'UNKNOWN_TOPIC', error: 'no such topic' },
    { topic: 'b', messages: 1, lastPosition: 4 },
  ]);
  nowMs = 10_000;
  sound('a', 6, 7);
  expect(errors.slice(2)).toMatchObject([{ topic: 'a', messages: 4, lastPosition: 7 }]);
});
