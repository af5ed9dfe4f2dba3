import { join, posix } from 'node:path';
import ts from 'typescript';
import { expect, it } from 'vitest';
import { ROOT, readManifest } from './packed.ts';

/** By its subpath, the source of each front door of the package. */
async function frontDoors(): Promise<[subpath: string, source: string][]> {
  const { exports } = await readManifest();
  return Object.entries(exports).flatMap(([subpath, target]) =>
    typeof target === 'string' ? [] : [[subpath, join(ROOT, target['tailrace-source'])]],
  );
}

function programOf(sources: readonly string[]): ts.Program {
  const config = ts.getParsedCommandLineOfConfigFile(join(ROOT, 'tsconfig.json'), undefined, {
    ...ts.sys,
    onUnRecoverableConfigFileDiagnostic: ({ messageText }) => {
      throw new Error(ts.flattenDiagnosticMessageText(messageText, '\n'));
    },
  });
  return ts.createProgram(sources, config?.options ?? {});
}

const KINDS: readonly [flag: ts.SymbolFlags, name: string][] = [
  [ts.SymbolFlags.Function, 'function'],
  [ts.SymbolFlags.Class, 'class'],
  [ts.SymbolFlags.Variable, 'const'],
  [ts.SymbolFlags.Interface, 'interface'],
  [ts.SymbolFlags.TypeAlias, 'type'],
];

/** What a front door exports, a line each: `function createOutbox`. */
function namesOf(checker: ts.TypeChecker, file: ts.SourceFile | undefined): string[] {
  const door = file === undefined ? undefined : checker.getSymbolAtLocation(file);
  if (door === undefined) throw new Error('A front door is no module.');
  return checker
    .getExportsOfModule(door)
    .map((symbol) => `${kindOf(checker, symbol)} ${symbol.name}`)
    .sort();
}

function kindOf(checker: ts.TypeChecker, symbol: ts.Symbol): string {
  const named = symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;
  const kinds = KINDS.filter(([flag]) => (named.flags & flag) !== 0).map(([, name]) => name);
  return kinds.join('+') || 'unknown';
}

it('exports these names, and changes them on purpose only', async () => {
  const doors = await frontDoors();
  const program = programOf(doors.map(([, source]) => source));
  const checker = program.getTypeChecker();
  const sections = doors.map(([subpath, source]) => {
    const names = namesOf(checker, program.getSourceFile(source));
    return [posix.join('tailrace', subpath), ...names.map((name) => `  ${name}`)].join('\n');
  });
  // Changed on purpose? npx vitest run --project package -u test/package/faces.test.ts
  await expect(`${sections.join('\n\n')}\n`).toMatchFileSnapshot('faces.txt');
});
