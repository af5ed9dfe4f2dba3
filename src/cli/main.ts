#!/usr/bin/env node
import { processTerminal } from './terminal.ts';

const NEEDED = [22, 12] as const;

/** Whether this Node runs what the command line is about to load: an older one would fail with a stack trace. */
function isNodeRecentEnough(): boolean {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  return major > NEEDED[0] || (major === NEEDED[0] && minor >= NEEDED[1]);
}

if (isNodeRecentEnough()) {
  const { runCommandLine } = await import('./program.ts');
  process.exitCode = await runCommandLine(process.argv.slice(2), processTerminal());
} else {
  process.stderr.write(
    `tailrace: this is Node ${process.versions.node}, expected ${NEEDED.join('.')} or later. Install a newer Node; for this project alone: npm install node@24, after which npx and npm run find it.\n`,
  );
  process.exitCode = 1;
}
