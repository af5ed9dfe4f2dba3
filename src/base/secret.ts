import { inspect } from 'node:util';

const REDACTED = '[redacted]';

/** A text that must not be shown: however it is printed, what appears is `[redacted]`. Only {@link Secret.reveal} gives it. */
export class Secret {
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  /** The text itself, for whoever it was given to. */
  reveal(): string {
    return this.#text;
  }

  toString(): string {
    return REDACTED;
  }

  toJSON(): string {
    return REDACTED;
  }

  [inspect.custom](): string {
    return REDACTED;
  }
}

/** Shorter ones are words that stand elsewhere in a text for other reasons. */
const SHORTEST_LENGTH = 6;

/**
 * Takes every one of `secrets` out of a text, also where it is written as in JSON or in a URL; and the password out of
 * whatever looks like a URL. A secret of fewer than 6 characters is only found in URLs.
 */
export function redactor(secrets: Iterable<string>): (text: string) => string {
  const forms = new Set([...secrets].filter(({ length }) => length >= SHORTEST_LENGTH).flatMap(formsOf));
  const longestFirst = [...forms].sort((a, b) => b.length - a.length);
  return (text) => withoutUrlPasswords(longestFirst.reduce((rest, form) => rest.replaceAll(form, REDACTED), text));
}

/** A {@link redactor} that learns of secrets while it is in use, and forgets none. */
export class Redaction {
  readonly #secrets = new Set<string>();
  #redact = redactor([]);

  add(secrets: Iterable<string>): void {
    for (const secret of secrets) this.#secrets.add(secret);
    this.#redact = redactor(this.#secrets);
  }

  redact(text: string): string {
    return this.#redact(text);
  }
}

function formsOf(secret: string): string[] {
  const inUrl = encodeURIComponent(secret.toWellFormed());
  return [secret, JSON.stringify(secret).slice(1, -1), inUrl];
}

function withoutUrlPasswords(text: string): string {
  return text.replace(/([a-z][a-z0-9+.-]{0,20}:\/\/[^\s:@/"]*):[^\s@"]*@/gi, `$1:${REDACTED}@`);
}

/** The passwords in a URL: before its host, and among its parameters. */
export function passwordsIn(url: string): string[] {
  if (!URL.canParse(url)) return [];
  const { password, searchParams } = new URL(url);
  return [password, decoded(password), ...searchParams.getAll('password')].filter((text) => text !== '');
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // not in percent form
  }
}
