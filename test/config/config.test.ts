import { inspect } from 'node:util';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isTailraceError } from '../../src/base/errors.ts';
import { loadConfig, loadPipeline, type ConfigSources, type PipelineSources } from '../../src/config/config.ts';
import { readConfigFile } from '../../src/config/config-file.ts';
import { secretsOf } from '../../src/config/schema.ts';

const URL_A = 'postgresql://relay:s3cret-word@db:5432/shop';

function fromFile(text: string, more: ConfigSources = {}) {
  return loadConfig({ file: { path: 'relay.yaml', text }, ...more });
}

function problemOf(load: () => unknown): string {
  try {
    load();
  } catch (error) {
    expect(isTailraceError(error, 'INVALID_CONFIG')).toBe(true);
    return (error as Error).message;
  }
  throw new Error('Nothing was wrong.');
}

const pipeline = (lines = '') => `pipelines:\n  shop:\n    databaseUrl: ${URL_A}\n${lines}`;

describe('a configuration', () => {
  it('has defaults for all but the database', () => {
    const config = fromFile(pipeline());
    expect(config).toMatchObject({
      pipelines: {
        shop: { schema: 'tailrace', mode: 'wal', leaseMs: 10_000, log: { partitions: 8, createTopics: true } },
      },
      http: { host: '127.0.0.1', allowedHosts: [], behindTlsProxy: false },
      log: { level: 'info', format: 'text' },
      shutdownTimeoutMs: 30_000,
    });
    expect(config.http.port).toBeUndefined();
    expect(config.pipelines['shop']!.databaseUrl.reveal()).toBe(URL_A);
  });

  it('may be JSON', () => {
    const text = JSON.stringify({ pipelines: { shop: { databaseUrl: URL_A, mode: 'polling' } }, http: { port: 0 } });
    expect(fromFile(text)).toMatchObject({ pipelines: { shop: { mode: 'polling' } }, http: { port: 0 } });
  });

  it('takes references from the environment, and leaves what is escaped', () => {
    const text = 'pipelines: { shop: { databaseUrl: "postgresql://relay:${PASSWORD}@db/$${x}" } }';
    const url = fromFile(text, { env: { PASSWORD: 'from-env' } }).pipelines['shop']!.databaseUrl;
    expect(url.reveal()).toBe('postgresql://relay:from-env@db/${x}');
    expect(problemOf(() => fromFile(text))).toMatch(
      /relay\.yaml:1: pipelines\.shop\.databaseUrl refers to .* PASSWORD/,
    );
  });

  it('is overlaid by the environment, and that by flags', () => {
    const text = pipeline('    leaseMs: 2000\nhttp:\n  port: 1\nlog:\n  level: warn\n');
    const env = {
      TAILRACE_PIPELINES_SHOP_LEASE_MS: '3000',
      TAILRACE_PIPELINES_SHOP_LOG_CREATE_TOPICS: 'false',
      TAILRACE_PIPELINES_BIG_SHOP_DATABASE_URL: URL_A,
      TAILRACE_SCHEMA: 'outbox', // for all that do not say otherwise
      TAILRACE_LEASE_MS: '5000',
      TAILRACE_HTTP_PORT: '2',
      TAILRACE_HTTP_ALLOWED_HOSTS: 'a.example, b.example',
      TAILRACE_LOG_LEVEL: 'error',
    };
    expect(fromFile(text, { env, flags: { 'http.port': '3' } })).toMatchObject({
      pipelines: {
        shop: { leaseMs: 3_000, schema: 'outbox', log: { createTopics: false, partitions: 8 } },
        'big-shop': { leaseMs: 5_000, schema: 'outbox' },
      },
      http: { port: 3, allowedHosts: ['a.example', 'b.example'] },
      log: { level: 'error' },
    });
  });

  it('of one pipeline needs no file', () => {
    const env = { TAILRACE_DATABASE_URL: 'postgresql://other/d', TAILRACE_MODE: 'polling' };
    expect(loadConfig({ env, flags: { databaseUrl: URL_A, leaseMs: '1000' } }).pipelines).toMatchObject({
      default: { mode: 'polling', leaseMs: 1_000 },
    });
    expect(loadConfig({ env }).pipelines['default']!.databaseUrl.reveal()).toBe('postgresql://other/d');
  });

  it('never has prototypes for settings', () => {
    const text = `${pipeline()}__proto__:\n  shutdownTimeoutMs: 1\n`;
    expect(problemOf(() => fromFile(text))).toMatch(/__proto__ is not known/);
    expect({}).not.toHaveProperty('shutdownTimeoutMs');
  });
});

describe('one pipeline of several', () => {
  const two = `pipelines:
  shop:
    databaseUrl: \${SHOP_URL}
    leaseMs: 2000
  stock:
    databaseUrl: \${STOCK_URL}
    schema: stock
http:
  token: \${ADMIN_TOKEN}
`;
  const load = (more: Partial<PipelineSources> = {}, text = two) =>
    loadPipeline({ file: { path: 'relay.yaml', text }, env: { STOCK_URL: URL_A }, ...more });

  it('is taken by its name, and needs no variable of the others', () => {
    const chosen = load({ pipeline: 'stock' });
    expect(chosen).toMatchObject({ schema: 'stock', leaseMs: 10_000 });
    expect(chosen.databaseUrl?.reveal()).toBe(URL_A);
    expect(problemOf(() => load({ pipeline: 'shop' }))).toMatch(
      /^relay\.yaml:3: pipelines\.shop\.databaseUrl refers to the variable SHOP_URL, which is not set\./,
    );
  });

  it('has to be named', () => {
    expect(problemOf(() => load())).toMatch(/several pipelines: shop, stock\. Say which: --pipeline <name>/);
    expect(problemOf(() => load({ pipeline: 'shpo' }))).toMatch(
      /no pipeline "shpo"\. The configured ones are: shop, stock\./,
    );
  });

  it('need not be named where it is the only one', () => {
    expect(load({}, pipeline('    schema: a\n')).schema).toBe('a');
    expect(problemOf(() => loadPipeline({ pipeline: 'shop' }))).toMatch(/No pipeline is configured/);
  });

  it('takes flags over the environment, that over the file, and that over what is built in', () => {
    const env = { STOCK_URL: URL_A, TAILRACE_PIPELINES_STOCK_SCHEMA: 'from_env' };
    const pipelineNamed = { pipeline: 'stock' };
    expect(load(pipelineNamed).schema).toBe('stock');
    expect(load({ ...pipelineNamed, env }).schema).toBe('from_env');
    expect(load({ ...pipelineNamed, env, flags: { schema: 'from_flag' } }).schema).toBe('from_flag');
    expect(load({ ...pipelineNamed, env }).log.partitions).toBe(8);
  });

  it('is checked with all that stands beside it', () => {
    expect(problemOf(() => load({ pipeline: 'stock' }, `${two}  prot: 1\n`))).toMatch(
      /relay\.yaml:10: http\.prot is not known\. Did you mean port\?/,
    );
    expect(problemOf(() => load({ pipeline: 'stock' }, `${two}log:\n  level: loud\n`))).toMatch(/log\.level is "loud"/);
  });

  it('may lack a database only where that is said', () => {
    expect(loadPipeline({ isDatabaseOptional: true, env: { TAILRACE_SCHEMA: 'a' } })).toMatchObject({ schema: 'a' });
    expect(loadPipeline({ isDatabaseOptional: true })).toMatchObject({ schema: 'tailrace' });
    expect(problemOf(() => loadPipeline({ env: { TAILRACE_SCHEMA: 'a' } }))).toMatch(/databaseUrl is missing/);
    expect(problemOf(() => loadPipeline({}))).toMatch(/No pipeline is configured/);
  });
});

it('flags are for the only pipeline that a file names', () => {
  expect(fromFile(pipeline(), { flags: { leaseMs: '3000' } }).pipelines).toMatchObject({ shop: { leaseMs: 3_000 } });
});

describe('what is wrong is said with place, found and expected:', () => {
  it.each([
    [
      'an unknown key',
      pipeline('    leaseMS: 5\n'),
      /relay\.yaml:4: pipelines\.shop\.leaseMS is not known\. Did you mean leaseMs\?/,
    ],
    ['an unknown group', `${pipeline()}htpp: {}\n`, /relay\.yaml:4: htpp is not known\. Did you mean http\?/],
    ['a key a level too high', `${pipeline()}leaseMs: 5\n`, /leaseMs is not known.*Known here: pipelines, http, log/],
    [
      'a wrong type',
      pipeline('    leaseMs: soon\n'),
      /relay\.yaml:4: pipelines\.shop\.leaseMs is "soon"; expected a whole number from 1000 to 86400000\./,
    ],
    [
      'a number out of range',
      `${pipeline()}http:\n  port: 70000\n`,
      /relay\.yaml:5: http\.port is 70000; expected a whole number from 0 to 65535/,
    ],
    ['a choice', pipeline('    mode: push\n'), /mode is "push"; expected wal or polling/],
    [
      'a group where a value belongs',
      `${pipeline()}log:\n  level: [info]\n`,
      /log\.level is a list; expected debug or info or/,
    ],
    [
      'a value where a group belongs',
      `${pipeline()}log: info\n`,
      /log is "info"; expected a group of settings: level, format/,
    ],
    ['nothing', 'pipelines:\n  shop:\n', /pipelines\.shop is empty; expected a group of settings: databaseUrl/],
    [
      'a missing URL',
      'pipelines:\n  shop:\n    mode: wal\n',
      /pipelines\.shop\.databaseUrl is missing; expected a URL such as/,
    ],
    [
      'a bad name',
      `pipelines:\n  Shop!:\n    databaseUrl: ${URL_A}\n`,
      /relay\.yaml:[23]: pipelines\.Shop! has a name that cannot be used; expected a name of 1 to 50/,
    ],
    ['no pipeline', 'http: {}\n', /No pipeline is configured/],
    ['an empty file', '', /No pipeline is configured/],
    ['a list', '- a\n', /relay\.yaml:1: expected settings/],
    ['text that is not YAML', 'pipelines:\n  shop: "s3cret-word\n', /relay\.yaml:\d: this is not YAML or JSON/],
    ['an alias to nothing', 'pipelines: *s3cret-word\n', /relay\.yaml.*: this is not YAML or JSON/],
    [
      'a token that is too short',
      `${pipeline()}http:\n  token: s3cret-word\n`,
      /http\.token is a text that does not fit; expected at least 16 characters/,
    ],
    ['a key with a URL', pipeline(`    schema: ${URL_A}\n`), /schema is "postgresql:\/\/relay:\[redacted\]@db/],
  ])('%s', (_what, text, message) => {
    const said = problemOf(() => fromFile(text));
    expect(said).toMatch(message);
    expect(said).not.toContain('s3cret-word');
  });

  it('one mistake once', () => {
    expect(problemOf(() => fromFile('pipelines:\n  shop:\n    databaseUrl: ${SHOP_URL}\n'))).toBe(
      'relay.yaml:3: pipelines.shop.databaseUrl refers to the variable SHOP_URL, which is not set.',
    );
    const misspelt = problemOf(() => fromFile(`pipelines:\n  shop:\n    databaseUrI: ${URL_A}\n`));
    expect(misspelt).toMatch(/^relay\.yaml:3: pipelines\.shop\.databaseUrI is not known\. Did you mean databaseUrl\?/);
    expect(misspelt).not.toMatch(/missing/);
    const both = problemOf(() => fromFile('pipelines:\n  shop:\n    databaseUrI: a\n    databaseUrl: s3cret-word\n'));
    expect(both).toMatch(/databaseUrl is a text that does not fit/);
  });

  it('everything at once', () => {
    const said = problemOf(() => fromFile(pipeline('    slto: x\n    mode: y\nhttp:\n  prot: 1\n')));
    for (const part of ['slto', 'mode', 'prot']) expect(said).toContain(part);
  });

  it('in the environment', () => {
    const given = (env: Record<string, string>) => problemOf(() => fromFile(pipeline(), { env }));
    expect(given({ TAILRACE_HTTP_PORT: 'tcp://10.0.0.1' })).toMatch(/^\$TAILRACE_HTTP_PORT is "tcp:.*expected a whole/);
    expect(given({ TAILRACE_LOG_LEVL: 'info' })).toMatch(
      /\$TAILRACE_LOG_LEVL is not known\. Did you mean \$TAILRACE_LOG_LEVEL\?/,
    );
    expect(given({ TAILRACE_PIPELINES_SHOP_LEASE: '1' })).toMatch(/\$TAILRACE_PIPELINES_SHOP_LEASE is not known/);
    expect(given({ TAILRACE_PIPELINES_SHOP_LEASE_MSS: '2000' })).toBe(
      '$TAILRACE_PIPELINES_SHOP_LEASE_MSS is not known. Did you mean $TAILRACE_PIPELINES_SHOP_LEASE_MS?',
    );
    expect(given({ TAILRACE_PIPELINES_BIG_SHOP_LOG_CREATE_TOPIC: 'true' })).toMatch(
      /Did you mean \$TAILRACE_PIPELINES_BIG_SHOP_LOG_CREATE_TOPICS\?$/,
    );
    expect(given({ TAILRACE_PIPELINES_SHOP: 'x' })).toMatch(/Expected TAILRACE_PIPELINES_, the pipeline's name, and/);
    expect(given({ TAILRACE_HTTP_TOKEN: 's3cret-word' })).not.toContain('s3cret-word');
    expect(fromFile(pipeline(), { env: { TAILRACE_SERVICE_ACCOUNT: 'x' } }).log.level).toBe('info');
  });

  it('on the command line', () => {
    const two = `${pipeline()}  stock:\n    databaseUrl: ${URL_A}\n`;
    const given = (flags: Record<string, string>) => problemOf(() => fromFile(two, { flags }));
    expect(given({ 'http.port': 'many' })).toMatch(/^--http-port is "many"; expected a whole number/);
    expect(given({ leaseMs: '2000' })).toMatch(
      /--lease-ms is for a single pipeline, and the config names shop, stock\./,
    );
  });
});

it('says that a file cannot be read', () => {
  expect(problemOf(() => readConfigFile('/nowhere/relay.yaml'))).toMatch(
    /cannot be read: ENOENT.*\/nowhere\/relay\.yaml/,
  );
});

it('shows no secret, whatever is printed', () => {
  const config = fromFile(`${pipeline()}http:\n  token: a-very-long-token\n`);
  const printed = [
    String(config.http.token),
    JSON.stringify(config),
    inspect(config, { depth: 9 }),
    String(config.pipelines['shop']!.databaseUrl),
  ];
  for (const text of printed) {
    expect(text).toContain('[redacted]');
    expect(text).not.toMatch(/s3cret-word|a-very-long-token/);
  }
  expect(secretsOf(config)).toEqual([URL_A, 's3cret-word', 's3cret-word', 'a-very-long-token']);
});

it('refuses or takes whatever it is given, and throws nothing else', () => {
  const value = fc.jsonValue();
  fc.assert(
    fc.property(
      fc.dictionary(fc.constantFrom('pipelines', 'http', 'log', 'x', 'constructor'), value),
      value,
      (tree, inner) => {
        const text = JSON.stringify({
          ...tree,
          pipelines: { a: inner, b: tree['pipelines'] },
        });
        try {
          fromFile(text);
        } catch (error) {
          if (!isTailraceError(error, 'INVALID_CONFIG')) throw error;
        }
      },
    ),
  );
});
