import { readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { metricsOf } from '../../src/admin/metrics.ts';
import { loadConfig } from '../../src/config/config.ts';
import { blocksOf } from './snippets.ts';

const URL = 'postgresql://shop_relay@localhost:5432/shop';
const env = { SHOP_DATABASE_URL: URL, BILLING_DATABASE_URL: URL };
const read = (path: string): Promise<string> => readFile(path, 'utf8');
const pages = await Promise.all(
  ['README.md', 'docs/configuration.md', 'docs/deploy/README.md'].map(async (path) => ({
    path,
    text: await read(path),
  })),
);
const configs = pages.flatMap(({ path, text }) =>
  blocksOf(text)
    .filter((block) => block.language === 'yaml' && block.text.includes('pipelines:'))
    .map((block) => [`${path}:${block.line}`, block.text] as const),
);

it('every page that is to show a config does', () => {
  expect(configs.length).toBeGreaterThanOrEqual(3);
});

it.each(configs)('the config in %s can be used', (path, text) => {
  expect(Object.keys(loadConfig({ file: { path, text }, env }).pipelines)).toContain('shop');
});

describe('the pages on deployment', () => {
  it('name metrics that exist', async () => {
    const known = (await metricsOf(() => []).getMetricsAsJSON()).map(({ name }) => name);
    const named = [
      ...(await read('docs/deploy/README.md')).matchAll(/\btailrace_(?:relay|slot|group|parked|figures)_\w+/g),
    ];
    expect(named.length).toBeGreaterThan(5);
    for (const [name] of named) expect(known).toContain(name);
  });

  it('have a unit that hears of the relay by systemd-notify, and reloads it', async () => {
    const unit = await read('docs/deploy/tailrace-relay.service');
    for (const line of [
      'Type=notify',
      'NotifyAccess=all',
      'RestartPreventExitStatus=2',
      'ExecReload=/bin/kill -HUP $MAINPID',
    ]) {
      expect(unit.split('\n')).toContain(line);
    }
    expect(unit).toMatch(/^ExecStart=\S*tailrace relay --config \S+$/m);
  });

  it('name settings that exist', async () => {
    const variables = [...(await read('docs/deploy/Dockerfile')).matchAll(/\b(TAILRACE_\w+)=(\S+)/g)];
    const given = Object.fromEntries(variables.map(([, name = '', value = '']) => [name, value]));
    expect(loadConfig({ env: { ...given, TAILRACE_DATABASE_URL: URL } })).toMatchObject({
      http: { port: 9464 },
      log: { format: 'json' },
    });
  });
});
