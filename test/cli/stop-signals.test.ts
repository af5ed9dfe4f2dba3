import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

it('gives the channel to the parent back to whoever waits for its messages', async () => {
  const child = fork(fileURLToPath(new URL('stop-signals-child.ts', import.meta.url)));
  const ended = once(child, 'exit').then(() => 'it has ended');
  try {
    await once(child, 'message'); // from here on it has nothing to do but to wait
    child.send('still there?');
    expect(await Promise.race([once(child, 'message'), ended])).toEqual(['still there?', undefined]);
  } finally {
    child.kill('SIGKILL');
    await ended;
  }
});
