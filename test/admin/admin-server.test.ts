import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { request as plainRequest, type IncomingHttpHeaders } from 'node:http';
import { request as tlsRequest } from 'node:https';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { describe, expect, it } from 'vitest';
import { createAdminServer, type AdminServer, type AdminServerOptions } from '../../src/admin/admin-server.ts';
import type { Figures } from '../../src/admin/contract.ts';
import type { ObservedPipeline } from '../../src/admin/observed-pipeline.ts';
import { redactor, Secret } from '../../src/base/secret.ts';
import type { RelayState } from '../../src/relay/relay.ts';
import { parseExposition, promtoolFindings } from './exposition.ts';

const FIGURES: Figures = {
  lagMessages: 7,
  lagSeconds: 1.5,
  slotRetainedBytes: 4_096,
  groups: [{ group: 'billing "a"', topic: 'orders', partition: 4, messages: 3, seconds: 2 }],
  parked: [{ group: 'billing', isDead: true, count: 2 }],
  waiting: [{ group: 'billing', parkedKeys: 1, timers: 3 }],
  relayDeadLetters: 3,
};

function pipeline(name: string, state: RelayState, error?: Error, figures?: Figures): ObservedPipeline {
  const source = state === 'leading' ? ({ mode: 'polling', reason: 'no slot' } as const) : undefined;
  return {
    name,
    status: () => ({ state, source, appended: 5, batches: 2, deadLettered: 4, error }),
    figures: () => ({ figures, ageMs: 1_000, error: undefined }),
  };
}

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

interface Asked {
  readonly method?: string;
  readonly headers?: Record<string, string>;
}

async function started(options: Partial<AdminServerOptions> = {}): Promise<AdminServer> {
  const server = createAdminServer({
    host: '127.0.0.1',
    port: 0,
    pipelines: () => [pipeline('shop', 'leading', undefined, FIGURES), pipeline('stock', 'standby')],
    redact: (body) => body,
    ...options,
  });
  await server.start();
  return server;
}

function ask(server: AdminServer, path: string, { method = 'GET', headers = {} }: Asked = {}): Promise<Answer> {
  const url = new URL(path, server.url);
  const request = url.protocol === 'https:' ? tlsRequest : plainRequest;
  return new Promise((resolve, reject) => {
    request(url, { method, headers, rejectUnauthorized: false, agent: false }, (response) => {
      text(response).then(
        (body) => resolve({ status: response.statusCode ?? 0, headers: response.headers, body }),
        reject,
      );
    })
      .on('error', reject)
      .end();
  });
}

describe('answers', () => {
  it('/livez: the process works, whatever the pipelines do', async () => {
    await using server = await started({ pipelines: () => [pipeline('shop', 'halted', new Error('x'))] });
    expect(await ask(server, '/livez')).toMatchObject({ status: 200, body: '{"isAlive":true}' });
  });

  it('/readyz: everybody leads or stands by', async () => {
    await using server = await started();
    const { status, body } = await ask(server, '/readyz');
    expect(status).toBe(200);
    expect(JSON.parse(body)).toEqual({
      isReady: true,
      pipelines: [
        { name: 'shop', state: 'leading' },
        { name: 'stock', state: 'standby' },
      ],
    });
  });

  it.each(['stopped', 'starting', 'retrying', 'halted'] as const)('/readyz: not while one is %s', async (state) => {
    const error = state === 'halted' ? new Error('a gap') : undefined;
    await using server = await started({ pipelines: () => [pipeline('a', 'leading'), pipeline('b', state, error)] });
    const { status, body } = await ask(server, '/readyz');
    expect(status).toBe(503);
    const reason = state === 'halted' ? 'a gap' : `it is ${state}`;
    expect(JSON.parse(body)).toMatchObject({
      isReady: false,
      pipelines: [{ name: 'a' }, { name: 'b', state, reason }],
    });
  });

  it('/status: everything as one document', async () => {
    await using server = await started();
    expect(JSON.parse((await ask(server, '/status')).body)).toEqual({
      isReady: true,
      pipelines: [
        {
          name: 'shop',
          state: 'leading',
          mode: 'polling',
          reason: 'no slot',
          appended: 5,
          batches: 2,
          deadLettered: 4,
          figures: FIGURES,
          figuresAgeSeconds: 1,
        },
        { name: 'stock', state: 'standby', appended: 5, batches: 2, deadLettered: 4 },
      ],
    });
  });

  it('/metrics: in the form and by the conventions of Prometheus', async () => {
    await using server = await started();
    await ask(server, '/metrics');
    const { headers, body } = await ask(server, '/metrics'); // a second scrape shows the same, not twice as much
    expect(headers['content-type']).toMatch(/^text\/plain; version=0\.0\.4/);
    expect(Object.fromEntries(parseExposition(body))).toMatchObject({
      'tailrace_relay_appended_messages_total{pipeline="shop"}': 5,
      'tailrace_relay_batches_total{pipeline="stock"}': 2,
      'tailrace_relay_unroutable_messages_total{pipeline="shop"}': 4,
      'tailrace_relay_dead_letters{pipeline="shop"}': 3,
      'tailrace_relay_state{pipeline="shop",state="leading"}': 1,
      'tailrace_relay_state{pipeline="shop",state="standby"}': 0,
      'tailrace_relay_lag_messages{pipeline="shop"}': 7,
      'tailrace_relay_lag_seconds{pipeline="shop"}': 1.5,
      'tailrace_slot_retained_bytes{pipeline="shop"}': 4_096,
      'tailrace_group_lag_messages{pipeline="shop",group="billing \\"a\\"",topic="orders",partition="4"}': 3,
      'tailrace_group_lag_seconds{pipeline="shop",group="billing \\"a\\"",topic="orders",partition="4"}': 2,
      'tailrace_parked_messages{pipeline="shop",group="billing",dead="true"}': 2,
      'tailrace_parked_keys{pipeline="shop",group="billing"}': 1,
      'tailrace_waiting_timers{pipeline="shop",group="billing"}': 3,
      'tailrace_figures_age_seconds{pipeline="shop"}': 1,
      nodejs_eventloop_lag_seconds: expect.any(Number),
      process_resident_memory_bytes: expect.any(Number),
    });
    expect((await promtoolFindings(body)) ?? '').toBe('');
  });

  it('have no secret in them', async () => {
    const leaky = pipeline('shop', 'retrying', new Error('cannot use hush-hush'), FIGURES);
    await using server = await started({ pipelines: () => [leaky], redact: redactor(['hush-hush']) });
    for (const path of ['/readyz', '/status', '/metrics']) {
      const { body } = await ask(server, path);
      expect(body).not.toContain('hush-hush');
    }
    expect((await ask(server, '/status')).body).toContain('cannot use [redacted]');
  });
});

const PATHS = ['/livez', '/readyz', '/metrics', '/status', '/nothing'];

describe('guards', () => {
  it.each(PATHS)('%s has security headers, and no door for pages elsewhere', async (path) => {
    await using server = await started();
    const { headers } = await ask(server, path, { headers: { origin: 'https://evil.example' } });
    expect(headers).toMatchObject({
      'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
      'x-content-type-options': 'nosniff',
      'cache-control': 'no-store',
    });
    expect(Object.keys(headers).filter((name) => name.startsWith('access-control'))).toEqual([]);
  });

  it.each(PATHS)('%s refuses a strange Host', async (path) => {
    await using server = await started({ allowedHosts: ['relay.example'] });
    expect((await ask(server, path, { headers: { host: 'evil.example' } })).status).toBe(403);
    expect((await ask(server, path, { headers: { host: 'relay.example:99' } })).status).not.toBe(403);
  });

  it.each(['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'HEAD', 'TRACE'])('refuses %s', async (method) => {
    await using server = await started();
    for (const path of PATHS) expect((await ask(server, path, { method })).status).toBe(405);
  });

  it('a token is asked for, and probes without it learn the status alone', async () => {
    const token = new Secret('0123456789abcdef');
    await using server = await started({ token });
    for (const path of ['/metrics', '/status', '/nothing']) expect((await ask(server, path)).status).toBe(401);
    expect(await ask(server, '/readyz')).toMatchObject({ status: 200, body: '{}' });
    const headers = { authorization: 'Bearer 0123456789abcdef' };
    expect((await ask(server, '/readyz', { headers })).body).toContain('shop');
    expect((await ask(server, '/status', { headers })).status).toBe(200);
    expect((await ask(server, '/status', { headers: { authorization: 'Bearer wrong' } })).status).toBe(401);
  });

  it('does not listen where others can reach it unguarded', () => {
    expect(() => createAdminServer({ host: '0.0.0.0', port: 0, pipelines: () => [], redact: String })).toThrow(
      /http\.token/,
    );
  });

  it('speaks TLS', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'tailrace-tls-'));
    try {
      const [keyFile, certFile] = [join(folder, 'key.pem'), join(folder, 'cert.pem')];
      const subject = ['-subj', '/CN=localhost', '-days', '2', '-keyout', keyFile, '-out', certFile];
      execFileSync('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', ...subject], { stdio: 'ignore' });
      const tls = { cert: readFileSync(certFile, 'utf8'), key: readFileSync(keyFile, 'utf8') };
      await using server = await started({ tls });
      expect(server.url).toMatch(/^https:/);
      expect((await ask(server, '/livez')).status).toBe(200);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

it('stops though a client keeps its connection', async () => {
  const server = await started();
  const socket = connect(Number(new URL(server.url ?? '').port), '127.0.0.1');
  const closed = new Promise((resolve) => socket.once('close', resolve));
  socket.on('error', () => undefined).write('GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n');
  await new Promise((resolve) => socket.once('data', resolve));
  await server.stop();
  await server.stop();
  await closed;
});
