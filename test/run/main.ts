import { fileURLToPath } from 'node:url';
import { runAlone } from './run-alone.ts';

// The tests, and then the question whether they left anything behind: `npm test -- <what vitest takes>`.
const vitest = fileURLToPath(new URL('../../node_modules/vitest/vitest.mjs', import.meta.url));
const { exitCode, leftovers } = await runAlone(process.execPath, [vitest, 'run', ...process.argv.slice(2)]);
for (const leftover of leftovers) console.error(`The tests left behind: ${leftover}`);
process.exitCode = exitCode === 0 && leftovers.length > 0 ? 1 : (exitCode ?? 1);
