import { fileURLToPath } from 'node:url';
import { checkFloors } from './check-floors.ts';

const { files, problems } = await checkFloors(fileURLToPath(new URL('../../', import.meta.url)));
for (const problem of problems) console.error(problem);
console.error(`floors: ${String(files)} files read, ${String(problems.length)} problems`);
if (problems.length > 0) process.exitCode = 1;
