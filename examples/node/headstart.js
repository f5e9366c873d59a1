'use strict';

// A client of Headstart for Node: calls with deadlines, watches that outlive their connection, and
// errors with their details. Copy it, with google-rpc.proto, precompute.proto and
// service-config.json, into a project of your own.

const fs = require('node:fs');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');
const protobuf = require('protobufjs');

const PROTOS = path.join(__dirname, '..', '..', 'protos');
const SERVICE_CONFIG = path.join(__dirname, '..', 'service-config.json');

const { PrecomputeService } = grpc.loadPackageDefinition(
  protoLoader.loadSync('headstart/v1/precompute.proto', {
    includeDirs: [PROTOS],
    keepCase: true, // names as in the contract
    longs: Number, // revisions and counts stay far below 2^53
    enums: String,
    arrays: true,
    objects: true,
    oneofs: true,
  }),
).headstart.v1;
const rpc = protobuf.loadSync(path.join(__dirname, 'google-rpc.proto')).lookup('google.rpc');

const ANSWER_SECONDS = 5;
const WATCH_ATTEMPTS = 6;
const FIRST_PAUSE = 0.2;
const LONGEST_PAUSE = 3;
const HEALTHY_STREAM = 5; // seconds; servers end old connections on purpose
const RESUMED = [grpc.status.UNAVAILABLE, grpc.status.CANCELLED];
const ENDED = ['COMPLETED', 'FAILED', 'CANCELLED'].map((end) => `PRECOMPUTE_STATUS_${end}`);

/** Whether a run will not change any more, given its results or its status. */
const hasEnded = (run) => ENDED.includes(run.status);

/** What a failed call was told: field violations, seconds to wait, the reason of a refusal. */
function details(error) {
  const found = { violations: [], retryAfter: undefined, info: undefined };
  const [packed] = error.metadata?.get('grpc-status-details-bin') ?? [];
  if (!packed) return found;
  for (const { type_url: url, value } of rpc.Status.decode(packed).details) {
    switch (url.split('/').pop()) {
      case 'google.rpc.BadRequest':
        found.violations = rpc.BadRequest.toObject(rpc.BadRequest.decode(value)).fieldViolations ?? [];
        break;
      case 'google.rpc.RetryInfo': {
        const delay = rpc.RetryInfo.decode(value).retryDelay;
        found.retryAfter = Number(delay.seconds) + delay.nanos / 1e9;
        break;
      }
      case 'google.rpc.ErrorInfo':
        found.info = rpc.ErrorInfo.toObject(rpc.ErrorInfo.decode(value));
        break;
    }
  }
  return found;
}

/** A google.protobuf.Duration. */
function duration(seconds) {
  const whole = Math.trunc(seconds);
  return { seconds: whole, nanos: Math.round((seconds - whole) * 1e9) };
}

// gRPC would send calls to this machine to the proxy of `http_proxy`, which cannot reach it.
const LOOPBACK = /^(dns:(\/\/\/)?|ipv[46]:)?(localhost|127\.[\d.]+|\[::1\])(:\d+)?$/i;

class Headstart {
  /**
   * `address` is any target of gRPC: `localhost:50051`, `dns:///headstart:50051`,
   * `ipv4:10.0.0.1:50051,10.0.0.2:50051`; calls are spread over all that it stands for. `ca`,
   * `cert` and `key` are PEM files: with a `ca` the connection is TLS, with all three mTLS.
   */
  constructor(address, { ca, cert, key, token } = {}) {
    const read = (file) => (file ? fs.readFileSync(file) : null);
    const credentials = ca
      ? grpc.credentials.createSsl(read(ca), read(key), read(cert))
      : grpc.credentials.createInsecure();
    this.token = token;
    this.stub = new PrecomputeService(address, credentials, {
      'grpc.service_config': fs.readFileSync(SERVICE_CONFIG, 'utf8'),
      'grpc.max_receive_message_length': 64 * 1024 * 1024,
      'grpc.keepalive_time_ms': 60_000,
      'grpc.keepalive_timeout_ms': 10_000,
      'grpc.keepalive_permit_without_calls': 1,
      ...(LOOPBACK.test(address) ? { 'grpc.enable_http_proxy': 0 } : {}),
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 1_000,
    });
  }

  /** Call a method once, retries by the service config included. Rejects with gRPC's error. */
  call(method, request, seconds = ANSWER_SECONDS) {
    const deadline = Date.now() + seconds * 1000;
    return new Promise((resolve, reject) => {
      this.stub[method](request, this.#metadata(), { deadline }, (error, answer) =>
        error ? reject(error) : resolve(answer),
      );
    });
  }

  /**
   * Start any pipeline; again with the same inputs it joins or reuses what is there. `inputs` is an
   * object or its JSON text: only text holds whole numbers beyond 2^53 exactly.
   */
  start(key, pipeline, inputs, { namespace = '' } = {}) {
    const inputs_json = typeof inputs === 'string' ? inputs : JSON.stringify(inputs);
    return this.call('StartPrecompute', { namespace, key, custom: { pipeline, inputs_json } });
  }

  /** What exists of a run, after at most `wait` seconds for all of it, or for `steps`. */
  get(key, { namespace = '', wait = 0, steps = [] } = {}) {
    const request = { namespace, key, wait: duration(wait), required_steps: steps };
    // The deadline lies behind the wait, so that the partial answer at its end still arrives.
    return this.call('GetResults', request, wait + ANSWER_SECONDS);
  }

  /** Each state of a run until it has ended, over as many streams as that takes. */
  async *watch(key, { namespace = '' } = {}) {
    let cuts = 0;
    let last;
    for (;;) {
      const opened = Date.now();
      const stream = this.stub.WatchResults({ namespace, key }, this.#metadata());
      let cut = new Error('the stream ended before the run did');
      try {
        for await (const { results } of stream) {
          cuts = 0;
          const state = JSON.stringify(results); // a resumed stream begins with the last one
          if (state === last) continue;
          last = state;
          yield results;
          if (hasEnded(results)) return;
        }
      } catch (error) {
        if (!RESUMED.includes(error.code)) throw error;
        cut = error;
      } finally {
        stream.on('error', () => {}); // cancelling is one
        stream.cancel();
      }
      cuts = Date.now() - opened > HEALTHY_STREAM * 1000 ? 1 : cuts + 1;
      if (cuts >= WATCH_ATTEMPTS) throw cut;
      const told = details(cut).retryAfter ?? 0;
      const pause = Math.min(Math.max(told, FIRST_PAUSE * 2 ** (cuts - 1)), LONGEST_PAUSE);
      // Not all watchers of a lost server shall come back at once.
      await sleep(pause * 1000 * (0.5 + Math.random() / 2));
    }
  }

  close() {
    this.stub.close();
  }

  #metadata() {
    const metadata = new grpc.Metadata();
    if (this.token) metadata.set('authorization', `Bearer ${this.token}`);
    return metadata;
  }
}

module.exports = { Headstart, details, hasEnded };
