import { expect, it } from 'vitest';
import { loadConfig } from '../../src/config/config.ts';
import { planReload } from '../../src/daemon/pipelines.ts';
import { watchdogIntervalMs } from '../../src/daemon/service-manager.ts';

function pipelines(tree: Record<string, object>) {
  const withUrls = Object.entries(tree).map(([name, more]) => [
    name,
    { databaseUrl: 'postgresql://a:pass@h/d', ...more },
  ]);
  return loadConfig({ file: { path: 'c', text: JSON.stringify({ pipelines: Object.fromEntries(withUrls) }) } })
    .pipelines;
}

function running(tree: Record<string, object>, halted: readonly string[] = []) {
  return Object.entries(pipelines(tree)).map(([name, config]) => ({ name, config, isHalted: halted.includes(name) }));
}

it.each([
  ['nothing', running({ a: {}, b: {} }), pipelines({ b: {}, a: {} }), [], [], []],
  ['what is new', running({ a: {} }), pipelines({ a: {}, b: {} }), ['b'], [], []],
  ['what is gone', running({ a: {}, b: {} }), pipelines({ b: {} }), [], ['a'], []],
  ['what changed', running({ a: {}, b: {} }), pipelines({ a: { leaseMs: 2_000 }, b: {} }), [], [], ['a']],
  ['a password', running({ a: {} }), pipelines({ a: { databaseUrl: 'postgresql://a:other@h/d' } }), [], [], ['a']],
  ['what halted', running({ a: {}, b: {} }, ['b']), pipelines({ a: {}, b: {} }), [], [], ['b']],
  ['a halted one that is gone', running({ a: {}, b: {} }, ['b']), pipelines({ a: {} }), [], ['b'], []],
])('a reload is about %s', (_what, before, wanted, added, removed, restarted) => {
  expect(planReload(before, wanted)).toEqual({ added, removed, restarted });
});

it.each([
  [{}, undefined],
  [{ WATCHDOG_USEC: '' }, undefined],
  [{ WATCHDOG_USEC: 'x' }, undefined],
  [{ WATCHDOG_USEC: '0' }, undefined],
  [{ WATCHDOG_USEC: '10000000' }, 5_000],
  [{ WATCHDOG_USEC: '10000000', WATCHDOG_PID: '7' }, 5_000],
  [{ WATCHDOG_USEC: '10000000', WATCHDOG_PID: '8' }, undefined],
])('a watchdog with %j is fed every %s ms', (env, intervalMs) => {
  expect(watchdogIntervalMs(env, 7)).toBe(intervalMs);
});
