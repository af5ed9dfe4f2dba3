import { fileURLToPath } from 'node:url';
import { format } from 'prettier';
import { configReference } from '../../src/config/reference.ts';

export const REFERENCE_PATH = fileURLToPath(new URL('../../docs/configuration.md', import.meta.url));

/** The reference of settings, as it stands in the repository. */
export function formattedReference(): Promise<string> {
  return format(configReference(), { parser: 'markdown', printWidth: 120, singleQuote: true });
}
