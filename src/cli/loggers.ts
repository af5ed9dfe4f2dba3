import { pino } from 'pino';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';

/** From the least to the most important. */
export type LogLevel = 'debug' | 'info' | 'warn' | 'error';
type Write = (text: string) => void;
/** The least that is written, asked for with each entry: it may change. */
type LeastLevel = () => LogLevel;

const IMPORTANCE: Readonly<Record<LogLevel, number>> = { debug: 0, info: 1, warn: 2, error: 3 };
const atLeastInfo: LeastLevel = () => 'info';

function logger(least: LeastLevel, log: (level: LogLevel, fields: object, message: string) => void): Logger {
  const at =
    (level: LogLevel) =>
    (fields: object, message: string): void => {
      if (IMPORTANCE[level] >= IMPORTANCE[least()]) log(level, fields, message);
    };
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}

/** Writes a line for people an entry: the time, the level, the message, the fields. */
export function textLogger(
  write: Write,
  { hasColors }: { readonly hasColors: boolean },
  least: LeastLevel = atLeastInfo,
): Logger {
  const paint = hasColors ? paintLevel : (level: LogLevel): string => level.padEnd(5);
  return logger(least, (level, fields, message) => {
    const time = new Date().toISOString().slice(11, 23);
    write(`${time}  ${paint(level)}  ${message}${Object.entries(fields).map(formatField).join('')}\n`);
  });
}

const COLORS: Readonly<Record<LogLevel, number>> = { debug: 90, info: 32, warn: 33, error: 31 };

function paintLevel(level: LogLevel): string {
  return `\u001b[${COLORS[level]}m${level.padEnd(5)}\u001b[0m`;
}

function formatField([name, value]: [string, unknown]): string {
  return value === undefined ? '' : `  ${name}=${formatValue(value)}`;
}

function formatValue(value: unknown): string {
  if (typeof value === 'string') return /^[^\s"=]+$/.test(value) ? value : JSON.stringify(value);
  if (typeof value === 'number') return String(Math.round(value * 1_000) / 1_000);
  return JSON.stringify(value, (_name, inner: unknown) => plain(inner));
}

/** Writes a line of JSON for programs an entry: `time`, `level`, `message`, and the fields beside them. */
export function jsonLogger(write: Write, least: LeastLevel = atLeastInfo): Logger {
  const lines = pino(
    {
      base: null,
      level: 'debug',
      messageKey: 'message',
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (level) => ({ level }) },
    },
    { write },
  );
  return logger(least, (level, fields, message) => {
    lines[level](ownAside(fields), message);
  });
}

const OWN: ReadonlySet<string> = new Set(['time', 'level', 'message']);

/** The fields, without those that would hide what every entry has. */
function ownAside(fields: object): object {
  return Object.fromEntries(
    Object.entries(fields)
      .filter(([name]) => !OWN.has(name))
      .map(([name, value]) => [name, plain(value)]),
  );
}

/** What JSON has no form for. */
function plain(value: unknown): unknown {
  if (typeof value === 'bigint') return value.toString();
  return value instanceof Error ? messageOf(value) : value;
}
