import { createServer } from 'node:net';
import { once } from 'node:events';
import { describe, expect, it } from 'vitest';
import { CliProcess, run } from './kit.ts';

/** Nothing listens on port 1 of loopback. */
const NOWHERE = 'postgresql://shop:s3cret@127.0.0.1:1/shop';
const ONE_LINE = /^tailrace: [^\n]+\n$/;

describe('help', () => {
  it('lists the commands on standard output', async () => {
    const { exitCode, out, err } = await run(['--help']);
    expect(exitCode).toBe(0);
    expect(err).toBe('');
    for (const command of ['demo', 'migrate', 'relay']) expect(out).toMatch(new RegExp(`^  ${command} `, 'm'));
  });

  it.each(['demo', 'migrate', 'relay'])('shows options and an example of %s', async (command) => {
    const { exitCode, out } = await run([command, '--help']);
    expect(exitCode).toBe(0);
    expect(out).toMatch(/--database-url <url>/);
    expect(out).toMatch(/--json/);
    expect(out).toMatch(new RegExp(`^Examples?:\\n.*tailrace ${command}`, 'm'));
  });

  it('is what a bare tailrace prints, as a mistake', async () => {
    const { exitCode, out, err } = await run([]);
    expect(exitCode).toBe(2);
    expect(out).toBe('');
    expect(err).toMatch(/^Usage: tailrace /);
  });

  it('tells the version', async () => {
    expect(await run(['--version'])).toEqual({ exitCode: 0, out: expect.stringMatching(/^\d+\.\d+\.\d+/), err: '' });
  });
});

describe('what cannot be understood is one line and exit code 2', () => {
  it.each([
    ['an unknown command', ['migrat'], /unknown command 'migrat'.*migrate/],
    ['an unknown option', ['migrate', '--databse-url=x'], /unknown option/],
    ['a word too many', ['migrate', 'now'], /too many arguments/],
    [
      'a word that is no command of its group',
      ['groups', 'frob'],
      /unknown command 'frob' of tailrace groups\. Expected list, describe/,
    ],
    ['an unknown mode', ['relay', '--mode', 'magic'], /--mode.*wal, polling/],
    ['a lease that is no number', ['relay', '--lease-ms', '5s'], /--lease-ms.*whole number/],
    ['a lease that is too short', ['relay', '--lease-ms', '10'], /--lease-ms.*1000/],
    ['no writers', ['demo', '--writers', '0'], /--writers.*from 1/],
    ['no database', ['migrate'], /--database-url, \$TAILRACE_DATABASE_URL and \$DATABASE_URL are all empty/],
    ['no URL', ['migrate', '--database-url', 'shop'], /--database-url holds something that is no URL/],
    ['another kind of URL', ['relay', '--database-url', 'mysql://u:s3cret@h/d'], /begins with mysql:\/\//],
    ['a URL with a broken port', ['migrate', '--database-url', 'postgresql://u:s3cret@h:port/d'], /cannot be read/],
    ['a demo on no URL', ['demo', '--database-url', 'shop'], /no URL/],
    [
      'a bad schema name',
      ['migrate', '--schema', 'No', '--database-url', NOWHERE],
      /--schema is "No"; expected 1 to 63/,
    ],
    ['a bad slot name', ['relay', '--slot', 'No', '--database-url', NOWHERE], /slot is "No"/],
  ])('%s', async (_what, args, message) => {
    const { exitCode, out, err } = await run(args);
    expect(err).toMatch(ONE_LINE);
    expect(err).toMatch(message);
    expect(err).not.toContain('s3cret');
    expect(out).toBe('');
    expect(exitCode).toBe(2);
  });

  it('a misspelt option does not show the password of its URL', async () => {
    const { err } = await run(['migrate', '--databse-url=postgresql://shop:s3cret@db:5432/shop']);
    expect(err).toContain('postgresql://shop:***@db:5432/shop');
    expect(err).not.toContain('s3cret');
  });
});

describe('what cannot be done is one line and exit code 1', () => {
  it('no server', async () => {
    const { exitCode, out, err } = await run(['migrate', '--json', '--database-url', NOWHERE]);
    expect(err).toMatch(ONE_LINE);
    expect(err).toMatch(
      /Cannot reach Postgres at 127\.0\.0\.1:1: nothing accepts connections there\. Start the server/,
    );
    expect(err).not.toContain('s3cret');
    expect(JSON.parse(out)).toEqual({ error: { code: 'ECONNREFUSED', message: err.slice('tailrace: '.length, -1) } });
    expect(exitCode).toBe(1);
  });

  it('no server at any address of a host', async () => {
    const { exitCode, err } = await run(['migrate', '--database-url', 'postgresql://shop@localhost:1/shop']);
    expect(err).toMatch(/^tailrace: Cannot reach Postgres at localhost:1: nothing accepts connections/);
    expect(exitCode).toBe(1);
  });

  it('no server for the demo, which leaves nothing', async () => {
    const { exitCode, out, err } = await run(['demo', '--json', '--database-url', NOWHERE]);
    expect(err).toMatch(/^tailrace: Cannot reach Postgres at 127\.0\.0\.1:1/m);
    expect(JSON.parse(out)).toMatchObject({ error: { code: 'ECONNREFUSED' } });
    expect(exitCode).toBe(1);
  });

  it('something that is not Postgres', async () => {
    const server = createServer((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as { port: number };
    const { exitCode, err } = await run(['migrate', '--database-url', `postgresql://u@127.0.0.1:${port}/d`]);
    server.close();
    expect(err).toMatch(ONE_LINE);
    expect(exitCode).toBe(1);
  });
});

it('takes the URL from TAILRACE_DATABASE_URL, then DATABASE_URL', async () => {
  const own = {
    TAILRACE_DATABASE_URL: 'postgresql://a@127.0.0.1:1/own',
    DATABASE_URL: 'postgresql://a@127.0.0.2:1/any',
  };
  expect((await run(['migrate'], own)).err).toContain('127.0.0.1:1');
  expect((await run(['migrate'], { ...own, TAILRACE_DATABASE_URL: '' })).err).toContain('127.0.0.2:1');
  expect((await run(['migrate', '--database-url', 'postgresql://a@127.0.0.3:1/b'], own)).err).toContain('127.0.0.3:1');
});

it('runs as a program, and says no more than it must', async () => {
  await using cli = new CliProcess(['migrate'], { TAILRACE_DATABASE_URL: '', DATABASE_URL: NOWHERE });
  const { exitCode, out, err } = await cli.outcome();
  expect(err).toMatch(ONE_LINE);
  expect(out).toBe('');
  expect(exitCode).toBe(1);
});

describe('a relay whose server is down', () => {
  it('goes on trying until it is told to stop', async () => {
    await using cli = new CliProcess(['relay', '--json', '--database-url', NOWHERE]);
    await cli.says(/trying again[^]*trying again/);
    cli.child.kill('SIGTERM');
    const { exitCode, out, err } = await cli.outcome();
    expect(exitCode).toBe(0);
    expect(JSON.parse(out)).toEqual({ state: 'stopped', modes: [], appended: 0, batches: 0 });
    for (const line of err.trim().split('\n')) expect(JSON.parse(line)).toHaveProperty('level');
    expect(err).not.toContain('s3cret');
  });

  it('ends with the process that started it', async () => {
    await using cli = new CliProcess(['relay', '--database-url', NOWHERE]);
    await cli.says(/trying again/);
    cli.child.disconnect();
    const { exitCode, err } = await cli.outcome();
    expect(err).toMatch(/stopping.*signal="parent gone"/);
    expect(exitCode).toBe(0);
  });
});
