import { readFileSync } from 'node:fs';
import { isNode, LineCounter, parseDocument, type Document } from 'yaml';
import { TailraceError, messageOf } from '../base/errors.ts';

/** A file and what is written in it. */
export interface ConfigFile {
  readonly path: string;
  readonly text: string;
}

/** @throws TailraceError `INVALID_CONFIG`: it cannot be read. */
export function readConfigFile(path: string): ConfigFile {
  try {
    return { path, text: readFileSync(path, 'utf8') };
  } catch (error) {
    throw new TailraceError('INVALID_CONFIG', `The config file cannot be read: ${messageOf(error)}.`, { cause: error });
  }
}

/** The values of a file, and where they stand in it. */
export interface ParsedFile {
  readonly value: unknown;
  /** As in `relay.yaml:7`: the line of the value at a path, or of the last thing on the way to it. */
  lineOf(path: readonly PropertyKey[]): string;
}

/**
 * Reads YAML, of which JSON is a part.
 *
 * @throws TailraceError `INVALID_CONFIG`: it is neither. The message shows no part of the text, which may hold a secret.
 */
export function parseFile({ path, text }: ConfigFile): ParsedFile {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, logLevel: 'silent' });
  const [problem] = document.errors;
  if (problem !== undefined) throw notYaml(`${path}:${lines.linePos(problem.pos[0]).line}`, problem.code);
  return {
    value: valueOf(document, path),
    lineOf: (at) => `${path}:${lines.linePos(startOf(document, at)).line}`,
  };
}

function valueOf(document: Document, path: string): unknown {
  try {
    return document.toJS({ maxAliasCount: 100 });
  } catch {
    throw notYaml(path, 'BAD_ALIAS');
  }
}

function startOf(document: Document, path: readonly PropertyKey[]): number {
  for (let length = path.length; length > 0; length--) {
    const node = document.getIn(path.slice(0, length), true);
    if (isNode(node) && node.range != null) return node.range[0];
  }
  return 0;
}

function notYaml(where: string, code: string): TailraceError {
  return new TailraceError(
    'INVALID_CONFIG',
    `${where}: this is not YAML or JSON (${code}). Put texts with special characters in quotes, and look at the indentation.`,
  );
}
