import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { allCommands, type CommandHelp } from './commands.ts';
import { CliProcess, type Outcome, run } from './kit.ts';

/** Nothing listens on port 1 of loopback. */
const NOWHERE = 'postgresql://shop:s3cret@127.0.0.1:1/shop';
const ONE_LINE = /^tailrace: [^\n]+\n$/;

const COMMANDS = await allCommands();
const named = (commands: readonly CommandHelp[]) => commands.map((command) => [command.name, command] as const);
/** Those that work on one pipeline. */
const ON_PIPELINE = COMMANDS.filter((command) => command.has('--pipeline'));

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tailrace-failures-'));
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

async function configFile(name: string, text: string): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, text);
  return path;
}

/** With and without `--json`: a clear line, no password, no stack trace; and with it, the same as one document. */
async function expectFailure(command: CommandHelp, args: readonly string[], exitCode: number, code: string | RegExp) {
  const outcomes: Outcome[] = [];
  for (const json of command.has('--json') ? [[], ['--json']] : [[]]) {
    const outcome = await run([...command.words, ...args, ...json]);
    const { out, err } = outcome;
    expect(outcome.exitCode, err).toBe(exitCode);
    const line = err.slice(err.indexOf('tailrace: ')); // the demo tells its progress before
    expect(line).toMatch(ONE_LINE);
    expect(`${out}${err}`).not.toContain('s3cret');
    expect(err).not.toMatch(/^\s+at /m);
    if (json.length === 0) expect(out).toBe('');
    else {
      expect(out).toMatch(/^[^\n]+\n$/);
      expect(JSON.parse(out)).toEqual({
        error: { code: expect.stringMatching(code), message: line.slice('tailrace: '.length, -1) },
      });
    }
    outcomes.push(outcome);
  }
  return outcomes.map(({ err }) => err).join('');
}

it('there are commands, and most work on a pipeline', () => {
  expect(COMMANDS.length).toBeGreaterThanOrEqual(14);
  expect(ON_PIPELINE.map(({ name }) => name)).toEqual(
    expect.arrayContaining(['init', 'migrate', 'publish', 'tail', 'topics list', 'topics create', 'doctor']),
  );
  for (const command of ON_PIPELINE) expect(command.has('--config'), command.name).toBe(true);
});

describe('one line, and one document with --json:', () => {
  it.each(named(COMMANDS))('%s, with an unknown option', async (_name, command) => {
    const said = await expectFailure(command, [`--no-such-option=${NOWHERE}`], 2, /^INVALID_OPTION$/);
    expect(said).toMatch(/unknown option/);
  });

  it.each(named(COMMANDS.filter((command) => command.has('--database-url'))))(
    '%s, with a URL that is none',
    async (_name, command) => {
      const said = await expectFailure(command, ['--database-url', 'mysql://u:s3cret@h/d'], 2, /^INVALID_OPTION$/);
      expect(said).toMatch(/--database-url holds a URL that begins with mysql:/);
    },
  );

  it.each(named(COMMANDS.filter((command) => command.has('--config'))))(
    '%s, with a key in its config that is not known',
    async (_name, command) => {
      const path = await configFile(
        'key.yaml',
        `pipelines:\n  shop:\n    databaseUrl: ${NOWHERE}\n    leaseMS: 5000\n`,
      );
      const said = await expectFailure(command, ['--config', path], 2, /^INVALID_CONFIG$/);
      expect(said).toMatch(/key\.yaml:4: pipelines\.shop\.leaseMS is not known\. Did you mean leaseMs\?/);
    },
  );

  it.each(named(COMMANDS.filter((command) => command.has('--config'))))(
    '%s, with a config that is not there',
    async (_name, command) => {
      const said = await expectFailure(command, ['--config', join(folder, 'no.yaml')], 2, /^INVALID_CONFIG$/);
      expect(said).toMatch(/cannot be read: ENOENT/);
    },
  );

  it.each(named(ON_PIPELINE))('%s, with a config of which it cannot know the pipeline', async (_name, command) => {
    const url = `databaseUrl: ${NOWHERE}`;
    const path = await configFile('two.yaml', `pipelines:\n  shop: { ${url} }\n  stock: { ${url} }\n`);
    expect(await expectFailure(command, ['--config', path], 2, /^INVALID_CONFIG$/)).toMatch(
      /several pipelines: shop, stock\. Say which: --pipeline <name>/,
    );
    expect(await expectFailure(command, ['--config', path, '--pipeline', 'shpo'], 2, /^INVALID_CONFIG$/)).toMatch(
      /no pipeline "shpo"\. The configured ones are: shop, stock\./,
    );
  });

  // A relay waits for its server.
  it.each(named(COMMANDS.filter((command) => command.has('--database-url') && command.name !== 'relay')))(
    '%s, with a database that is down',
    async (_name, command) => {
      const said = await expectFailure(command, ['--database-url', NOWHERE], 1, /^ECONNREFUSED$/);
      expect(said).toMatch(/Cannot reach Postgres at 127\.0\.0\.1:1: nothing accepts connections there/);
    },
  );
});

it.each([
  ['publish', 'orders'],
  ['dead-letters', 'edit-and-redrive', 'g', 'orders/0@1'],
])('%s %s looks at its payload before it connects', async (...words) => {
  const outcome = await run([...words, '--payload', '{', '--database-url', NOWHERE]);
  expect(outcome).toMatchObject({ exitCode: 2, out: '' });
  expect(outcome.err).toMatch(/--payload is not JSON/);
});

describe('a server without TLS', () => {
  const server = createServer((socket) => {
    socket.on('error', () => undefined).once('data', () => socket.write('N')); // its answer to a request for encryption
  });
  const url = (): string => {
    const { port } = server.address() as AddressInfo;
    return `postgresql://shop:s3cret@127.0.0.1:${port}/shop?sslmode=require`;
  };
  beforeAll(async () => {
    await once(server.listen(0, '127.0.0.1'), 'listening');
  });
  afterAll(() => {
    server.close();
  });

  it.each(named(ON_PIPELINE.filter(({ name }) => name !== 'relay')))(
    'is told by %s, where the URL asks for encryption',
    async (_name, command) => {
      const said = await expectFailure(command, ['--database-url', url()], 1, /^TLS_REFUSED$/);
      expect(said).toMatch(/does not support SSL.*Turn it on at the server/);
    },
  );

  it('is told without the warnings of a library', async () => {
    await using cli = new CliProcess(['topics', '--database-url', url()]);
    expect((await cli.outcome()).err).toMatch(ONE_LINE);
  });
});

it.each(named(ON_PIPELINE))('%s takes its database from the config', async (_name, command) => {
  const path = await configFile('one.json', JSON.stringify({ pipelines: { shop: { databaseUrl: '${SHOP_URL}' } } }));
  const env = { TAILRACE_CONFIG: path, SHOP_URL: NOWHERE, DATABASE_URL: 'postgresql://a@127.0.0.2:1/b' };
  expect((await run(command.words, env)).err).toContain('127.0.0.1:1');
  const flag = ['--database-url', 'postgresql://a@127.0.0.3:1/b'];
  expect((await run([...command.words, ...flag], env)).err).toContain('127.0.0.3:1');
  const named = { ...env, TAILRACE_PIPELINES_SHOP_DATABASE_URL: 'postgresql://a@127.0.0.4:1/b' };
  expect((await run(command.words, named)).err).toContain('127.0.0.4:1');
});
