import { expect, it } from 'vitest';
import { CliProcess, run } from './kit.ts';

const NOWHERE = 'postgresql://shop:s3cret@127.0.0.1:1/shop';

it.each([
  ['a file that is not there', ['--config', '/nowhere/relay.yaml'], {}, /config file cannot be read: ENOENT/],
  ['an unknown variable', [], { TAILRACE_LOG_LEVL: 'x' }, /\$TAILRACE_LOG_LEVL is not known/],
  [
    'an open door',
    ['--http-port', '0', '--http-host', '0.0.0.0'],
    {},
    /http\.host is 0\.0\.0\.0.*http\.token and http\.tls/,
  ],
  ['half a certificate', ['--http-port', '0', '--http-tls-cert-file', '/x'], {}, /http\.tls\.keyFile is missing/],
  [
    'a missing certificate',
    ['--http-port', '0', '--http-tls-cert-file', '/x', '--http-tls-key-file', '/y'],
    {},
    /http\.tls\.certFile cannot be read/,
  ],
])('%s is one line and exit code 2', async (_what, args, env, message) => {
  const { exitCode, out, err } = await run(['relay', ...args], { DATABASE_URL: NOWHERE, ...env });
  expect(err).toMatch(/^tailrace: [^\n]+\n$/);
  expect(err).toMatch(message);
  expect(err).not.toContain('s3cret');
  expect(out).toBe('');
  expect(exitCode).toBe(2);
});

it('a port that is taken is one line and exit code 1', async () => {
  const env = { DATABASE_URL: NOWHERE };
  await using first = new CliProcess(['relay', '--json', '--http-port', '0'], env);
  const [, port = ''] = await first.says(/"url":"http:\/\/127\.0\.0\.1:(\d+)"/);
  await using second = new CliProcess(['relay', '--http-port', port], env);
  const { exitCode, err } = await second.outcome();
  expect(err).toMatch(/^tailrace: .*EADDRINUSE[^\n]*$/m);
  expect(exitCode).toBe(1);
});

it('says over HTTP that its server cannot be reached', async () => {
  await using cli = new CliProcess(['relay', '--json', '--http-port', '0'], { DATABASE_URL: NOWHERE });
  const [, url = ''] = await cli.says(/"url":"(http:[^"]+)"/);
  await cli.says(/the right to append could not be asked for/); // said right after the status has it
  const ready = await fetch(`${url}/readyz`);
  expect(ready.status).toBe(503);
  expect(await ready.json()).toEqual({
    isReady: false,
    pipelines: [{ name: 'default', state: 'retrying', reason: 'connect ECONNREFUSED 127.0.0.1:1' }],
  });
  const status = (await (await fetch(`${url}/status`)).json()) as { pipelines: { error: { since: string } }[] };
  expect(status).toMatchObject({
    isReady: false,
    pipelines: [{ state: 'retrying', error: { code: 'ECONNREFUSED', message: 'connect ECONNREFUSED 127.0.0.1:1' } }],
  });
  expect(new Date(status.pipelines[0]!.error.since).getTime()).toBeLessThanOrEqual(Date.now());
});
