import { createHash, timingSafeEqual } from 'node:crypto';
import { TailraceError } from '../base/errors.ts';
import type { Secret } from '../base/secret.ts';

/** Where an HTTP interface listens and what guards it. */
export interface Exposure {
  /** The address to listen on. */
  readonly host: string;
  /** What requests must carry as `Authorization: Bearer …`; without it none is asked for. */
  readonly token?: Secret | undefined;
  /** Whether only a proxy that ends TLS can reach the port. */
  readonly behindTlsProxy?: boolean;
  /** A certificate with its chain and its key, in PEM form. */
  readonly tls?: { readonly cert: string; readonly key: string } | undefined;
}

/**
 * Loopback needs no guard.
 *
 * @throws TailraceError `INVALID_CONFIG`: any other address without a token, or without TLS or a declared proxy.
 */
export function assertGuarded({ host, token, behindTlsProxy = false, tls }: Exposure): void {
  if (isLoopback(host)) return;
  const missing = [
    ...(token === undefined ? ['http.token'] : []),
    ...(tls === undefined && !behindTlsProxy ? ['http.tls (or http.behindTlsProxy)'] : []),
  ];
  if (missing.length === 0) return;
  throw new TailraceError(
    'INVALID_CONFIG',
    `http.host is ${host}, which others can reach, without ${missing.join(' and ')}. Set what is missing, or listen on 127.0.0.1.`,
  );
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host);
}

const LOCAL_NAMES: readonly string[] = ['localhost', '127.0.0.1', '[::1]'];

/** Decides whether a request's `Host` is one that this server goes by, whatever the port: else a page elsewhere could ask. */
export function hostAllowlist(host: string, more: readonly string[]): (header: string | undefined) => boolean {
  const own = host.includes(':') ? `[${host}]` : host;
  const names = new Set([...LOCAL_NAMES, own, ...more].map((name) => name.toLowerCase()));
  return (header) => {
    const name = /^(\[[0-9a-f:.]+\]|[^:[\]/@\s]+)(?::\d{1,5})?$/i.exec(header ?? '')?.[1];
    return name !== undefined && names.has(name.toLowerCase());
  };
}

/** Decides whether an `Authorization` header carries the token, in a time that tells nothing of it. */
export function tokenCheck(token: Secret | undefined): (header: string | undefined) => boolean {
  if (token === undefined) return () => true;
  const expected = digest(token.reveal());
  return (header) => timingSafeEqual(digest(/^Bearer (.+)$/i.exec(header ?? '')?.[1] ?? ''), expected);
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
