// A day of games in a minute: each user starts one, thinks, and reads what is there.
//
//   k6 run examples/k6/load.js
//
// Environment (-e NAME=VALUE): ADDRESS (localhost:50051), USERS (50), RAMP, HOLD (10s, 40s), THINK
// seconds (2), PIPELINE and INPUTS as JSON instead of bridging games, TOKEN, TLS=true. The server must
// reflect its services. k6 ends with 99 when a threshold does not hold.
import { check, fail, sleep } from 'k6';
import exec from 'k6/execution';
import grpc from 'k6/net/grpc';
import { Counter, Rate, Trend } from 'k6/metrics';

const SERVICE = 'headstart.v1.PrecomputeService';
const WORDS = ['ocean', 'forest', 'music', 'winter', 'engine', 'garden', 'letter', 'silver', 'market', 'river'];
const {
  ADDRESS = 'localhost:50051', USERS = '50', RAMP = '10s', HOLD = '40s', THINK = '2',
  PIPELINE = '', INPUTS = '{}', NAMESPACE = 'load', TOKEN = '', TLS = '',
} = __ENV;

const errors = new Rate('call_errors'); // calls that failed after all their tries
const retries = new Counter('call_retries');
const ready = new Rate('runs_ready'); // runs that were complete when their user submitted
const startMs = new Trend('start_ms', true);
const getMs = new Trend('get_ms', true);

export const options = {
  stages: [
    { duration: RAMP, target: Number(USERS) },
    { duration: HOLD, target: Number(USERS) },
    { duration: RAMP, target: 0 },
  ],
  thresholds: {
    call_errors: ['rate<0.01'],
    checks: ['rate>0.99'],
    runs_ready: ['rate>0.5'],
    get_ms: ['p(95)<2500'],
  },
};

const client = new grpc.Client();
const params = { metadata: TOKEN ? { authorization: `Bearer ${TOKEN}` } : {} };
let connected = false;

function call(method, request, timeout) {
  const began = Date.now();
  let response;
  for (let attempt = 0; attempt < 4; attempt += 1) {
    if (attempt) {
      sleep(0.05 * 2 ** attempt);
      retries.add(1);
    }
    response = client.invoke(`${SERVICE}/${method}`, request, { ...params, timeout });
    // As a backend's service config has it: every call can be repeated without harm.
    if (response.status !== grpc.StatusUnavailable && response.status !== grpc.StatusCanceled) break;
  }
  const good = response.status === grpc.StatusOK;
  errors.add(!good);
  if (!good) console.error(`${method}: ${response.status} ${response.error && response.error.message}`);
  return { response, good, took: Date.now() - began };
}

function spec() {
  if (PIPELINE) return { custom: { pipeline: PIPELINE, inputs_json: INPUTS } };
  const pick = () => WORDS[Math.floor(Math.random() * WORDS.length)];
  const anchor = pick();
  let target = pick();
  while (target === anchor) target = pick();
  return { bridging: { anchor, target, recipient_type: 'RECIPIENT_TYPE_HUMAN' } };
}

export default function () {
  if (!connected) {
    // One connection for each user, kept over all games.
    client.connect(ADDRESS, { plaintext: TLS !== 'true', reflect: true, reflectMetadata: params.metadata });
    connected = true;
  }
  const run = { namespace: NAMESPACE, key: `k6-${exec.vu.idInTest}-${exec.vu.iterationInInstance}` };

  const started = call('StartPrecompute', { ...run, ...spec(), ttl: '60s' }, '5s');
  if (!check(started, { 'a run is started': ({ good }) => good })) fail('no start, no game');
  startMs.add(started.took);

  sleep(Number(THINK) * (0.5 + Math.random())); // the user is busy

  const got = call('GetResults', { ...run, wait: '2s' }, '7s');
  if (!check(got, { 'results are answered': ({ good }) => good })) return;
  getMs.add(got.took);
  const { status, steps } = got.response.message;
  ready.add(status === 'PRECOMPUTE_STATUS_COMPLETED');
  check(steps, { 'each step is reported': (each) => Object.keys(each).length > 0 });
}
