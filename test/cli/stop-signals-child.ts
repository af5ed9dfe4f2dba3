import { stopSignals } from '../../src/cli/stop-signals.ts';

/** Answers messages, after a command has run in it and ended. */
process.on('message', (message) => process.send?.(message));
stopSignals(() => undefined)[Symbol.dispose]();
setImmediate(() => process.send?.('ready'));
