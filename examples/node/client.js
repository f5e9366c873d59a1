#!/usr/bin/env node
'use strict';

// Starts a pipeline, watches it and reads its results; one JSON object a line on standard output.
//
//   node client.js KEY PIPELINE INPUTS_AS_JSON
//
// Environment: HEADSTART_ADDRESS (localhost:50051), HEADSTART_CA, HEADSTART_CLIENT_CERT,
// HEADSTART_CLIENT_KEY, HEADSTART_TOKEN, HEADSTART_NAMESPACE. Exit code 1: the service refused.

const grpc = require('@grpc/grpc-js');
const { Headstart, details } = require('./headstart');

const say = (object) => console.log(JSON.stringify(object));
const states = (run) =>
  Object.fromEntries(Object.entries(run.steps).map(([name, { state }]) => [name, state]));

async function main([key, pipeline, inputs]) {
  const env = process.env;
  const client = new Headstart(env.HEADSTART_ADDRESS || 'localhost:50051', {
    ca: env.HEADSTART_CA,
    cert: env.HEADSTART_CLIENT_CERT,
    key: env.HEADSTART_CLIENT_KEY,
    token: env.HEADSTART_TOKEN,
  });
  const options = { namespace: env.HEADSTART_NAMESPACE };
  try {
    // The user begins.
    const started = await client.start(key, pipeline, inputs, options);
    say({ started: started.outcome, revision: started.revision });
    // A page shows how far it is.
    for await (const run of client.watch(key, options)) {
      say({ watched: run.status, steps: states(run) });
    }
    // The user submits: whatever exists, two seconds from now at the latest.
    const run = await client.get(key, { ...options, wait: 2 });
    const artifacts = Object.entries(run.custom?.artifacts ?? {});
    say({
      got: run.status,
      values: Object.fromEntries(artifacts.map(([step, each]) => [step, each.json && JSON.parse(each.json)])),
    });
  } catch (error) {
    if (error.code === undefined) throw error;
    say({ refused: grpc.status[error.code], message: error.details, ...details(error) });
    process.exitCode = 1;
  } finally {
    client.close();
  }
}

main(process.argv.slice(2));
