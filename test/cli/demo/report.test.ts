import { expect, it } from 'vitest';
import { drawChart } from '../../../src/cli/demo/chart.ts';
import type { Account, Findings } from '../../../src/cli/demo/read-back.ts';
import { jsonReport, textReport, type Run } from '../../../src/cli/demo/report.ts';

function account(name: string, found: Partial<Account> = {}): Account {
  return { name, handled: 1_200, lost: 0, invented: 0, doubled: 0, reordered: 0, ...found };
}

function runOf(found: Partial<Findings> = {}): Run {
  return {
    findings: {
      committed: 1_200,
      rolledBack: 100,
      rolledBackToSavepoint: 40,
      log: account('log'),
      consumers: [account('invoices'), account('customer-orders')],
      wrongInView: 0,
      isTruthSound: true,
      ...found,
    },
    measures: {
      messagesPerSecond: 400,
      latencyMs: { p50: 0.84, p99: 2_345.6 },
      steadyLatencyMs: { p50: 4.25, p99: 55.5 },
      startedAtMs: 10_000,
      durationMs: 3_000,
      rates: [{ name: 'committed', counts: [400, 400, 400] }],
    },
    kills: ['relay', 'consumer 2'],
    modes: ['wal', 'polling', 'wal'],
    marks: [{ atMs: 11_500, label: 'kill -9: relay' }],
  };
}

it('gives programs one document with exactly these names', () => {
  const text = jsonReport(runOf());
  expect(text).toMatch(/^[^\n]+\n$/);
  expect(JSON.parse(text)).toEqual({
    committed: 1_200,
    rolledBack: 100,
    appended: 1_200,
    handled: { invoices: 1_200, 'customer-orders': 1_200 },
    lost: 0,
    invented: 0,
    doubled: 0,
    reordered: 0,
    messagesPerSecond: 400,
    latencyMs: { p50: 0.84, p99: 2_345.6 },
    kills: 2,
    modes: ['wal', 'polling', 'wal'],
  });
});

it('adds up what the log and the consumers did wrong', () => {
  const text = jsonReport(
    runOf({
      log: account('log', { lost: 1, reordered: 2 }),
      consumers: [
        account('invoices', { lost: 3, invented: 4 }),
        account('customer-orders', { doubled: 5, invented: 6 }),
      ],
    }),
  );
  expect(JSON.parse(text)).toMatchObject({ lost: 4, invented: 10, doubled: 5, reordered: 2 });
});

it('tells people what was read back', () => {
  const text = textReport(runOf());
  expect(text).toContain('1,200 orders were committed');
  expect(text).toContain('100 attempts published an event and were rolled back, 40 of them to a savepoint');
  expect(text).toMatch(/^ +handled +lost +invented +doubled +reordered$/m);
  expect(text).toMatch(/^ +customer-orders +1,200 +0 +0 +0 +0$/m);
  expect(text).toContain('p50 0.84 ms, p99 2,346 ms');
  expect(text).toContain('p50 4.3 ms, p99 56 ms');
  expect(text).toMatch(
    /\nEvery committed order was handled once by each consumer, in order, and nothing else was\.\n$/,
  );
});

it.each([
  ['a loss', { log: account('log', { handled: 1_199, lost: 1 }) }, '1 lost (log); 1,199 of 1,200 rows (log)'],
  [
    'a double',
    { consumers: [account('invoices', { handled: 1_201, doubled: 1 })] },
    '1 doubled (invoices); 1,201 of 1,200',
  ],
  ['an inversion', { consumers: [account('invoices', { reordered: 2 })] }, '2 reordered (invoices)'],
  ['a view that is wrong', { wrongInView: 3 }, '3 customers with wrong totals in the view'],
  ['a truth that is none', { isTruthSound: false }, 'nothing above can be trusted'],
])('tells people of %s', (_what, found, message) => {
  const text = textReport(runOf(found));
  expect(text).toMatch(/\nThis does not hold: .*\.\n$/);
  expect(text).toContain(message);
  expect(text).not.toContain('Every committed order');
});

it('draws rates to the scale of the first, with numbers where something happened', () => {
  const rates = [
    { name: 'in', counts: [8, 8, 4, 0, 0, 1] },
    { name: 'out', counts: [0, 1, 8, 99, 0, 0] },
  ];
  const marks = [
    { atMs: 1_000, label: 'first' },
    { atMs: 1_150, label: 'second' },
    { atMs: 1_500, label: 'third' },
    { atMs: 99_000, label: 'long after' },
  ];
  expect(drawChart(rates, marks, 1_000, 600)).toEqual([
    'orders a second, over 0.6 s from the first commit; a full column is 80 or more',
    'in   ██▄  ▁',
    'out   ▁██',
    '     12   3',
    '1    0.0 s  first',
    '2    0.1 s  second',
    '3    0.5 s  third',
  ]);
});

it('draws a run in which nothing happened', () => {
  expect(drawChart([{ name: 'in', counts: [0, 0] }], [], 0, 1_000)[1]).toBe('in');
});
