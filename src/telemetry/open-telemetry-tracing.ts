import type * as OpenTelemetry from '@opentelemetry/api';
import type { Attributes, Context, Link, Span, SpanContext, SpanOptions } from '@opentelemetry/api';
import { isTailraceError, messageOf } from '../base/errors.ts';
import type { Headers, Message } from '../message/message.ts';
import { TRACE_STATE_HEADER, traceContextOf, traceHeaders } from '../message/trace-context.ts';
import type { AppendedMessage, Consumption, ConsumptionEnd, Tracing } from './tracing.ts';

const SYSTEM = 'tailrace';

/**
 * Spans as OpenTelemetry's conventions for messaging name them.
 *
 * @see https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/
 */
export function openTelemetryTracing(api: typeof OpenTelemetry): Tracing {
  return new OpenTelemetryTracing(api);
}

class OpenTelemetryTracing implements Tracing {
  readonly #api: typeof OpenTelemetry;

  constructor(api: typeof OpenTelemetry) {
    this.#api = api;
  }

  get isOn(): boolean {
    const { trace, ProxyTracerProvider } = this.#api;
    const provider = trace.getTracerProvider();
    return !(provider instanceof ProxyTracerProvider) || provider.getDelegateTracer(SYSTEM) !== undefined;
  }

  async publish<Result>(
    operation: 'publish' | 'send',
    messages: readonly unknown[],
    write: (headers: Headers | undefined) => Promise<Result>,
  ): Promise<Result> {
    const { SpanKind, trace, context } = this.#api;
    const given = messages as readonly (Partial<Message> | undefined)[]; // not checked yet
    const span = this.#start(operation, topicOf(given), {
      kind: SpanKind.PRODUCER,
      links: given.flatMap((message) => this.#linkTo(message?.headers)),
      attributes: {
        'messaging.operation.type': 'send',
        ...sizeAttributes(given.map((message) => message?.id)),
      },
    });
    try {
      return await context.with(trace.setSpan(context.active(), span), () => write(this.#headersOf(span)));
    } catch (error) {
      this.#fail(span, error);
      throw error;
    } finally {
      span.end();
    }
  }

  async consume<Result>(
    consumption: Consumption,
    work: () => Promise<Result>,
    endOf: (result: Result) => ConsumptionEnd,
  ): Promise<Result> {
    const { trace, context } = this.#api;
    const { options, parent } = this.#consumption(consumption);
    const span = this.#start(consumption.operation, consumption.topic, options, parent);
    try {
      const result = await context.with(trace.setSpan(parent, span), work);
      this.#conclude(span, endOf(result));
      return result;
    } catch (error) {
      this.#fail(span, error);
      throw error;
    } finally {
      span.end();
    }
  }

  appended({ messageId, headers, topic, partition, startedAt, endedAt }: AppendedMessage): void {
    const { SpanKind, TraceFlags } = this.#api;
    const before = this.#spanContextOf(headers);
    if (before === undefined || (before.traceFlags & TraceFlags.SAMPLED) === 0) return;
    this.#start(
      'append',
      topic,
      {
        kind: SpanKind.CLIENT,
        startTime: startedAt,
        attributes: {
          'messaging.operation.type': 'send',
          'messaging.destination.partition.id': String(partition),
          'messaging.message.id': messageId,
        },
      },
      this.#contextOf(before),
    ).end(endedAt);
  }

  /** One record continues its trace; several have a trace each, and what is done with all of them is in none of these. */
  #consumption({ operation, group, partition, attempt, records }: Consumption): {
    readonly options: SpanOptions;
    readonly parent: Context;
  } {
    const { SpanKind } = this.#api;
    const [first] = records;
    const isProcess = operation === 'process';
    const attributes: Attributes = {
      'messaging.operation.type': isProcess ? 'process' : 'settle',
      'messaging.consumer.group.name': group,
      'messaging.destination.partition.id': String(partition),
      ...sizeAttributes(records.map(({ messageId }) => messageId)),
      'messaging.tailrace.attempt': attempt,
      ...(first !== undefined && { 'messaging.tailrace.offset': Number(first.offset) }),
    };
    const options = { kind: isProcess ? SpanKind.CONSUMER : SpanKind.CLIENT, attributes };
    const before = records.length === 1 ? this.#spanContextOf(first?.headers) : undefined;
    if (before !== undefined) return { options, parent: this.#contextOf(before) };
    const links = records.flatMap(({ headers }) => this.#linkTo(headers));
    return { options: { ...options, links }, parent: this.#api.ROOT_CONTEXT };
  }

  #start(operation: string, topic: string | undefined, options: SpanOptions, parent?: Context): Span {
    const attributes = {
      'messaging.system': SYSTEM,
      'messaging.operation.name': operation,
      ...(topic !== undefined && { 'messaging.destination.name': topic }),
      ...options.attributes,
    };
    const name = topic === undefined ? operation : `${operation} ${topic}`;
    return this.#api.trace.getTracer(SYSTEM).startSpan(name, { ...options, attributes }, parent);
  }

  #conclude(span: Span, end: ConsumptionEnd): void {
    switch (end.ended) {
      case 'done':
        return;
      case 'duplicate':
        span.setAttribute('messaging.tailrace.duplicate', true);
        return;
      case 'failed':
        this.#fail(span, end.error);
        return;
    }
  }

  #fail(span: Span, error: unknown): void {
    span.setAttribute('error.type', errorType(error));
    span.recordException(error instanceof Error ? error : messageOf(error));
    span.setStatus({ code: this.#api.SpanStatusCode.ERROR, message: messageOf(error) });
  }

  /** Written here and not by the process's propagator: what lies in a table for years has one form, whoever wrote it. */
  #headersOf(span: Span): Headers | undefined {
    const { traceId, spanId, traceFlags, traceState } = span.spanContext();
    if (!this.#api.isSpanContextValid(span.spanContext())) return undefined;
    return traceHeaders({ traceId, spanId, flags: traceFlags }, traceState?.serialize());
  }

  #linkTo(headers: unknown): Link[] {
    const context = this.#spanContextOf(headers);
    return context === undefined ? [] : [{ context }];
  }

  #spanContextOf(headers: unknown): SpanContext | undefined {
    if (typeof headers !== 'object' || headers === null) return undefined;
    const state: unknown = (headers as Headers)[TRACE_STATE_HEADER];
    const context = traceContextOf(headers as Headers);
    if (context === undefined) return undefined;
    const { traceId, spanId, flags: traceFlags } = context;
    const traceState = typeof state === 'string' ? { traceState: this.#api.createTraceState(state) } : {};
    return { traceId, spanId, traceFlags, ...traceState, isRemote: true };
  }

  #contextOf(before: SpanContext): Context {
    const { trace, ROOT_CONTEXT } = this.#api;
    return trace.setSpanContext(ROOT_CONTEXT, before);
  }
}

/** The topic of all of them, if they have one in common. */
function topicOf(messages: readonly (Partial<Message> | undefined)[]): string | undefined {
  const topic = messages[0]?.topic;
  return typeof topic === 'string' && messages.every((message) => message?.topic === topic) ? topic : undefined;
}

function sizeAttributes(ids: readonly (string | undefined)[]): Attributes {
  const [id] = ids;
  if (ids.length !== 1) return { 'messaging.batch.message_count': ids.length };
  return id === undefined ? {} : { 'messaging.message.id': id };
}

function errorType(error: unknown): string {
  if (isTailraceError(error)) return error.code;
  return error instanceof Error ? error.name : typeof error;
}
