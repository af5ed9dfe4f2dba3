import { writeFile } from 'node:fs/promises';
import { REFERENCE_PATH, formattedReference } from './formatted-reference.ts';

await writeFile(REFERENCE_PATH, await formattedReference());
