import { execFile } from 'node:child_process';
import { chown } from 'node:fs/promises';
import { platform, userInfo } from 'node:os';
import { promisify } from 'node:util';
import { TailraceError, messageOf } from '../base/errors.ts';

const run = promisify(execFile);

/** The system user that a local server runs as, in the form that `spawn` takes. */
export interface ServerAccount {
  readonly uid: number;
  readonly gid: number;
}

const NAME = 'postgres';

/**
 * Postgres refuses to run as root. For root this is the system user `postgres`, created on Linux if it is missing (as on
 * a fresh container); for everybody else `undefined`, which means to run as oneself.
 *
 * @throws TailraceError `SERVER_START_FAILED`: root, no such user, and it could not be created.
 */
export async function serverAccount(): Promise<ServerAccount | undefined> {
  if (userInfo().uid !== 0) return undefined;
  const existing = await findAccount();
  if (existing !== undefined) return existing;
  const failure = platform() === 'linux' ? await createAccount() : 'it is created on Linux only';
  const created = await findAccount(); // a second process may have been faster: then useradd failed and all is well
  if (created !== undefined) return created;
  throw new TailraceError(
    'SERVER_START_FAILED',
    `Postgres does not run as root, and there is no system user ${NAME} to run it as: ${failure ?? 'useradd made none'}. Create the user, or start as somebody else.`,
  );
}

async function findAccount(): Promise<ServerAccount | undefined> {
  try {
    const [uid, gid] = await Promise.all([run('id', ['-u', NAME]), run('id', ['-g', NAME])]);
    return { uid: Number(uid.stdout), gid: Number(gid.stdout) };
  } catch {
    return undefined; // id has no other way to say that there is no such user
  }
}

async function createAccount(): Promise<string | undefined> {
  try {
    await run('useradd', ['--system', '--user-group', '--no-create-home', '--shell', '/bin/sh', NAME]);
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

/** Gives a path to the account, so that a server that runs as it may write there. */
export async function giveTo(account: ServerAccount | undefined, path: string): Promise<void> {
  if (account !== undefined) await chown(path, account.uid, account.gid);
}
