import type { LogRecord } from '../broker/record.ts';
import { usageFailure } from './failure.ts';

/** Writes a record as text. */
export type RecordFormat = (record: LogRecord) => string;

const TOKENS: Readonly<Record<string, RecordFormat>> = {
  '%': () => '%',
  t: ({ topic }) => topic,
  p: ({ partition }) => String(partition),
  o: ({ offset }) => String(offset),
  k: ({ key }) => key ?? '',
  y: ({ type }) => type,
  i: ({ messageId }) => messageId,
  s: ({ payload, payloadBytes }) => payload ?? payloadBytes?.toString('base64') ?? '',
  h: ({ headers }) => JSON.stringify(headers),
  T: ({ occurredAt }) => occurredAt.toISOString(),
};

const ESCAPES: Readonly<Record<string, string>> = { n: '\n', t: '\t', r: '\r', '0': '\0', '\\': '\\' };

/** What each token stands for, for people. */
export const TOKEN_HELP =
  '%t topic, %p partition, %o offset, %k key, %y type, %i id, %s payload (bytes as base64), %h headers, %T time, %% a percent sign; \\n and \\t';

/**
 * Reads a format: tokens and text, or the word `json`. A record ends with a line end of its own.
 *
 * @throws CommandFailure a token that does not exist.
 */
export function recordFormat(text: string): RecordFormat {
  if (text === 'json') return jsonLine;
  const parts = (text.match(/%.?|\\.?|[^%\\]+/gsu) ?? []).map(partOf);
  return (record) => `${parts.map((part) => part(record)).join('')}\n`;
}

function partOf(part: string): RecordFormat {
  const name = part.slice(1);
  if (part.startsWith('%')) {
    const token = Object.hasOwn(TOKENS, name) ? TOKENS[name] : undefined;
    if (token === undefined)
      throw usageFailure(`--format has no token ${part}. Expected json, or text with ${TOKEN_HELP}.`);
    return token;
  }
  const plain = part.startsWith('\\') && Object.hasOwn(ESCAPES, name) ? ESCAPES[name] : part;
  return () => plain ?? part;
}

/** A JSON payload stands in it as it was written, so that no number loses digits. */
function jsonLine(record: LogRecord): string {
  const { topic, partition, offset, messageId, kind, type, key, headers, occurredAt, payload, payloadBytes } = record;
  const head = JSON.stringify({
    topic,
    partition,
    offset: String(offset),
    messageId,
    kind,
    type,
    key,
    headers,
    occurredAt,
  });
  const content =
    payload === null
      ? `"payloadBase64":${JSON.stringify(payloadBytes?.toString('base64') ?? '')}`
      : `"payload":${payload.replace(/[\r\n]+/g, ' ')}`; // a raw line end in JSON is white space between values
  return `${head.slice(0, -1)},${content}}\n`;
}
