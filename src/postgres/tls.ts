import { TailraceError, messageOf } from '../base/errors.ts';

/**
 * What a connection failed with, if that was its encryption: the server has none, or shows a certificate that does not hold
 * for it. Any other error as it is.
 */
export function withTlsExplained(error: unknown): unknown {
  if (!isTlsFailure(error)) return error;
  return new TailraceError(
    'TLS_REFUSED',
    `The encrypted connection to Postgres was not made: ${messageOf(error)}. Expected a certificate for the URL's host name that an authority known to this machine, or the one in the URL's sslrootcert, has signed.`,
    { cause: error },
  );
}

/** What OpenSSL finds wrong with a certificate, by Node's names; and what `pg` says of a server without TLS. */
const CERTIFICATE_CODES =
  /^(ERR_TLS_|ERR_SSL_|ERR_OSSL_|CERT_|UNABLE_TO_|SELF_SIGNED_CERT|DEPTH_ZERO_SELF_SIGNED|HOSTNAME_MISMATCH|INVALID_CA|INVALID_PURPOSE|PATH_LENGTH_EXCEEDED)/;
const NO_TLS = /^(The server does not support SSL|There was an error establishing an SSL)/;

function isTlsFailure(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const code: unknown = 'code' in error ? error.code : undefined;
  return typeof code === 'string' ? CERTIFICATE_CODES.test(code) : NO_TLS.test(error.message);
}
