import fc from 'fast-check';
import { expect, test } from 'vitest';
import { backoffMs } from '../../src/base/backoff.ts';
import { formatLsn, lsn, parseLsn } from '../../src/base/lsn.ts';
import { uuidV7 } from '../../src/base/uuid.ts';

test('log positions survive their text form, and compare as numbers beyond the 4 GiB edge', () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }), (value) => {
      expect(parseLsn(formatLsn(lsn(value)))).toBe(value);
    }),
  );
  expect(parseLsn('1/0') > parseLsn('0/FFFFFFFF')).toBe(true);
  expect(formatLsn(parseLsn('16/B374D848'))).toBe('16/B374D848');
});

test.each(['', '1', '1/', '/1', 'x/1', '1/123456789', '0x1/1'])('%j is not a log position', (text) => {
  expect(() => parseLsn(text)).toThrow(expect.objectContaining({ code: 'INVALID_OPTION' }) as Error);
});

test('waits grow up to their limit, and half of each is random', () => {
  const backoff = { initialMs: 100, maxMs: 1000, factor: 2 };
  expect([1, 2, 3, 4, 5, 9].map((attempt) => backoffMs(attempt, backoff, 0))).toEqual([50, 100, 200, 400, 500, 500]);
  expect(backoffMs(3, backoff, 0.999)).toBeGreaterThan(399);
});

test('ids are of version 7, and sort by the time they were made', () => {
  fc.assert(
    fc.property(fc.double({ min: 0, max: 2 ** 45, noNaN: true }), fc.double({ min: 0.001, max: 1e9 }), (ms, later) => {
      const [first, second] = [uuidV7(ms), uuidV7(ms + later)];
      expect(first).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
      if (later >= 0.01) expect(first < second || first.slice(0, 18) === second.slice(0, 18)).toBe(true);
    }),
  );
  expect(parseInt(uuidV7(1_700_000_000_000).slice(0, 13).replace('-', ''), 16)).toBe(1_700_000_000_000);
});
