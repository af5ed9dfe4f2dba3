import { TailraceError, messageOf } from '../base/errors.ts';

/**
 * A database's URL as `pg` is to have it. `sslmode` of `require`, `prefer` or `verify-ca` means `verify-full`, as it does to
 * `pg` 8, which warns that its next version will take less: so it is said outright. With `uselibpqcompat` the URL has the
 * meaning that libpq gives it.
 */
export function clientUrl(url: string): string {
  if (/[?&]uselibpqcompat=true(?=[&#]|$)/.test(url)) return url;
  return url.replace(/([?&]sslmode=)(?:require|prefer|verify-ca)(?=[&#]|$)/g, '$1verify-full');
}

/**
 * What a connection failed with, if that was its encryption: the server has none, or shows a certificate that does not hold
 * for it. Any other error as it is.
 */
export function withTlsExplained(error: unknown): unknown {
  const expected = expectedInstead(error);
  if (expected === undefined) return error;
  return new TailraceError(
    'TLS_REFUSED',
    `The encrypted connection to Postgres was not made: ${messageOf(error)}. ${expected}`,
    { cause: error },
  );
}

const A_CERTIFICATE =
  "Expected a certificate for the URL's host name that an authority known to this machine, or the one in the URL's sslrootcert, has signed.";
const A_SERVER_WITH_TLS =
  'The URL asks for encryption. Turn it on at the server (ssl = on), or, where nobody can listen on the way there, write sslmode=disable in the URL.';

/** What OpenSSL finds wrong with a certificate, by Node's names; and what `pg` says of a server without TLS. */
const CERTIFICATE_CODES =
  /^(ERR_TLS_|ERR_SSL_|ERR_OSSL_|CERT_|UNABLE_TO_|SELF_SIGNED_CERT|DEPTH_ZERO_SELF_SIGNED|HOSTNAME_MISMATCH|INVALID_CA|INVALID_PURPOSE|PATH_LENGTH_EXCEEDED)/;
const NO_TLS = /^(The server does not support SSL|There was an error establishing an SSL)/;

/** `undefined`: the failure has nothing to do with encryption. */
function expectedInstead(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  const code: unknown = 'code' in error ? error.code : undefined;
  if (typeof code === 'string') return CERTIFICATE_CODES.test(code) ? A_CERTIFICATE : undefined;
  return NO_TLS.test(error.message) ? A_SERVER_WITH_TLS : undefined;
}
