import { fastify, type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import type { Service } from '../base/lifecycle.ts';
import { assertGuarded, hostAllowlist, tokenCheck, type Exposure } from './access.ts';
import type { StatusReport } from './contract.ts';
import { metricsOf } from './metrics.ts';
import { readinessOf, reportOf, type ObservedPipeline } from './observed-pipeline.ts';

export interface AdminServerOptions extends Exposure {
  /** 0 takes a free one. */
  readonly port: number;
  /** Names besides `host` and those of loopback that requests may give as `Host`. @defaultValue none */
  readonly allowedHosts?: readonly string[];
  /** The pipelines of this process, asked for at every request. */
  readonly pipelines: () => readonly ObservedPipeline[];
  /** Takes secrets out of an answer. */
  readonly redact: (text: string) => string;
}

/** What a daemon shows of itself over HTTP. */
export interface AdminServer extends Service {
  /** Where it listens, as in `http://127.0.0.1:9464`; `undefined` while it does not. */
  readonly url: string | undefined;
}

/**
 * Serves `/livez`, `/readyz`, `/metrics` and `/status`: GET only, to known hosts only, and nothing that changes anything.
 *
 * @throws TailraceError `INVALID_CONFIG`: others could reach it, and nothing guards it.
 */
export function createAdminServer(options: AdminServerOptions): AdminServer {
  assertGuarded(options);
  return new FastifyAdminServer(options);
}

const HEADERS: Readonly<Record<string, string>> = {
  'cache-control': 'no-store',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
};

/** Answered without the token, but then with the status alone. */
const PROBES: ReadonlySet<string> = new Set(['/livez', '/readyz']);
const MOST_CONNECTIONS = 100;

class FastifyAdminServer implements AdminServer {
  readonly #options: AdminServerOptions;
  readonly #app: FastifyInstance;
  #url: string | undefined;

  constructor(options: AdminServerOptions) {
    this.#options = options;
    this.#app = buildApp(options);
    this.#app.server.maxConnections = MOST_CONNECTIONS;
  }

  get url(): string | undefined {
    return this.#url;
  }

  async start(): Promise<void> {
    const { host, port } = this.#options;
    this.#url = await this.#app.listen({ host, port });
  }

  async stop(): Promise<void> {
    this.#url = undefined;
    await this.#app.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }
}

function buildApp(options: AdminServerOptions): FastifyInstance {
  const { tls } = options;
  const common = {
    logger: false,
    exposeHeadRoutes: false,
    forceCloseConnections: true,
    connectionTimeout: 10_000,
    requestTimeout: 10_000,
    keepAliveTimeout: 10_000,
    bodyLimit: 1_024,
    return503OnClosing: true,
  } as const;
  const app = tls === undefined ? fastify(common) : secureApp(common, tls);
  guard(app, options);
  addRoutes(app, options);
  return app;
}

function secureApp(common: object, tls: { readonly cert: string; readonly key: string }): FastifyInstance {
  return fastify({ ...common, https: { ...tls, minVersion: 'TLSv1.2' } });
}

function guard(app: FastifyInstance, { host, allowedHosts = [], token, redact }: AdminServerOptions): void {
  const isAllowedHost = hostAllowlist(host, allowedHosts);
  const hasToken = tokenCheck(token);
  app.addHook('onRequest', async (request, reply) => {
    void reply.headers(HEADERS);
    if (!isAllowedHost(request.headers.host))
      return refuse(reply, 403, 'This Host is not allowed. Add it to http.allowedHosts.');
    if (request.method !== 'GET') return refuse(reply.header('allow', 'GET'), 405, 'Only GET is answered.');
    if (hasToken(request.headers.authorization) || PROBES.has(request.url)) return undefined;
    return refuse(reply.header('www-authenticate', 'Bearer'), 401, 'A token is needed: Authorization: Bearer …');
  });
  app.addHook('preSerialization', async (request, _reply, payload) =>
    isBare(request) ? { isReady: undefined } : payload,
  );
  app.addHook('onSend', async (_request, _reply, payload) => (typeof payload === 'string' ? redact(payload) : payload));
  app.setNotFoundHandler((_request, reply) => refuse(reply, 404, 'Try /livez, /readyz, /metrics or /status.'));
  app.setErrorHandler((_error, _request, reply) => refuse(reply, 500, 'This could not be answered.'));

  function isBare(request: FastifyRequest): boolean {
    return PROBES.has(request.url) && !hasToken(request.headers.authorization);
  }
}

function refuse(reply: FastifyReply, code: number, error: string): FastifyReply {
  return reply.code(code).send({ error });
}

function addRoutes(app: FastifyInstance, { pipelines }: AdminServerOptions): void {
  const metrics = metricsOf(pipelines);
  app.get('/livez', () => ({ isAlive: true }));
  app.get('/readyz', (_request, reply) => {
    const readiness = readinessOf(pipelines());
    return reply.code(readiness.isReady ? 200 : 503).send(readiness);
  });
  app.get('/metrics', async (_request, reply) => reply.type(metrics.contentType).send(await metrics.metrics()));
  app.get('/status', (): StatusReport => ({
    isReady: readinessOf(pipelines()).isReady,
    pipelines: pipelines().map(reportOf),
  }));
}
