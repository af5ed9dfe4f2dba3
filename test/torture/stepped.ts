import { defineEvent } from '../../src/message/definition.ts';
import { MESSAGE_TYPE, TOPIC, type Step } from './tables.ts';

/** A key was counted up. */
export const Stepped = defineEvent<Step>(MESSAGE_TYPE, { topic: TOPIC, key: ({ k }) => k });
