import { expect, it } from 'vitest';
import { bytesOrNone, durationOrNone, showBytes, showDuration } from '../../src/cli/quantities.ts';

it.each([
  ['7d', 604_800_000, '1w'],
  ['12h', 43_200_000, '12h'],
  ['90s', 90_000, '90s'],
  ['60m', 3_600_000, '1h'],
  ['none', 'none', 'none'],
])('a time of %s', (text, ms, shown) => {
  expect(durationOrNone(text)).toBe(ms);
  expect(showDuration(typeof ms === 'number' ? ms : null)).toBe(shown);
});

it.each([
  ['10GB', 10_000_000_000, '10GB'],
  ['1500kB', 1_500_000, '1500kB'],
  ['7B', 7, '7B'],
  ['none', 'none', 'none'],
])('a size of %s', (text, bytes, shown) => {
  expect(bytesOrNone(text)).toBe(bytes);
  expect(showBytes(typeof bytes === 'number' ? bytes : null)).toBe(shown);
});

it('shows a time that no command could set', () => {
  expect(showDuration(1_500)).toBe('1500ms');
});

it.each(['', '7', 'd', '0d', '-1d', '1.5d', '7 d', '7D', '999999999999w', 'NaN'])('refuses %j', (text) => {
  expect(() => durationOrNone(text)).toThrow(/Expected a time such as 7d/);
  expect(() => bytesOrNone(text)).toThrow(/Expected a size such as 10GB/);
});
