// A real gRPC client (@grpc/grpc-js) for tests: the arguments, calls and lines of python/grpc_client.py.
"use strict";

const fs = require("fs");
const grpc = require("@grpc/grpc-js");

const METHODS = {
  unary: "Unary",
  server_stream: "ServerStream",
  client_stream: "ClientStream",
  bidi: "Bidi",
};
const LIMIT = 30;

const say = (line) => process.stdout.write(line + "\n");
const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));
const encoded = (request) =>
  Buffer.from(JSON.stringify({ ...request, text: (request.text || "").repeat(request.times ?? 1) }));
const decoded = (bytes) => JSON.parse(bytes);
const pairs = (metadata) => (metadata ? metadata.getMap() : {});

function make(client, at, call) {
  return new Promise((done) => {
    const path = "/test.Echo/" + (call.method ?? METHODS[call.kind]);
    const metadata = new grpc.Metadata();
    for (const [key, value] of Object.entries(call.metadata ?? {})) metadata.set(key, value);
    const began = Date.now();
    const options = { deadline: began + (call.timeout ?? LIMIT) * 1000 };
    const answers = [];
    let initial;
    // How it ended is told by its status.
    const callback = (_, answer) => answer && answers.push(answer);
    let running;
    if (call.kind === "unary") {
      running = client.makeUnaryRequest(path, encoded, decoded, call.requests[0], metadata, options, callback);
    } else if (call.kind === "server_stream") {
      running = client.makeServerStreamRequest(path, encoded, decoded, call.requests[0], metadata, options);
    } else if (call.kind === "client_stream") {
      running = client.makeClientStreamRequest(path, encoded, decoded, metadata, options, callback);
      (async () => {
        for (const [number, request] of call.requests.entries()) {
          if (number > 0 && call.hold) await pause(call.hold);
          running.write(request);
        }
        running.end();
      })();
    } else {
      running = client.makeBidiStreamRequest(path, encoded, decoded, metadata, options);
      running.write(call.requests[0]);
    }
    running.on("data", (answer) => {
      answers.push(answer);
      say(`answer ${at} ${answers.length}`);
      if (call.cancel_after === answers.length) {
        running.cancel();
      } else if (call.kind === "bidi") {
        const next = call.requests[answers.length];
        if (next) running.write(next);
        else running.end();
      }
    });
    running.on("error", () => {});
    running.on("metadata", (metadata) => (initial = metadata));
    running.on("status", (status) => {
      const code = Object.keys(grpc.status).find((name) => grpc.status[name] === status.code);
      const told = {
        at,
        code,
        details: status.details,
        answers,
        initial: pairs(initial),
        trailing: pairs(status.metadata),
        took: (Date.now() - began) / 1000,
      };
      say(JSON.stringify(told));
      done();
    });
  });
}

async function main() {
  const args = process.argv.slice(2);
  const target = args.shift();
  const calls = JSON.parse(args.pop());
  const flag = (name) => (args.includes(name) ? args[args.indexOf(name) + 1] : undefined);
  const [ca, name] = [flag("--ca"), flag("--name")];
  const credentials = ca ? grpc.credentials.createSsl(fs.readFileSync(ca)) : grpc.credentials.createInsecure();
  const options = { "grpc.enable_retries": 0, "grpc.enable_http_proxy": 0 };
  if (name) options[ca ? "grpc.ssl_target_name_override" : "grpc.default_authority"] = name;
  const client = new grpc.Client(target, credentials, options);
  const made = (call, at) => make(client, at, call);
  if (args.includes("--at-once")) await Promise.all(calls.map(made));
  else for (const [at, call] of calls.entries()) await made(call, at);
  client.close();
  say("done");
}

main();
