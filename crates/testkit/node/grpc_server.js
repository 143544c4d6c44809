// A real gRPC server (@grpc/grpc-js) for tests: the service `test.Echo` of python/grpc_server.py, without its health and
// its control port.
//
//     grpc_server.js NAME [--cert FILE --key FILE]
"use strict";

const fs = require("fs");
const grpc = require("@grpc/grpc-js");

const [name, ...args] = process.argv.slice(2);
const say = (line) => process.stdout.write(line + "\n");
const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

function answer(call, request, at = 0) {
  const deadline = call.getDeadline();
  const left = (deadline - Date.now()) / 1000;
  const metadata = Object.entries(call.metadata.getMap()).filter(([key]) => key.startsWith("x-"));
  return {
    server: name,
    text: request.text ?? "",
    at,
    remaining: Number.isFinite(left) ? left : null,
    metadata: Object.fromEntries(metadata),
    peer: call.getPeer(),
    pad: "x".repeat(request.size ?? 0),
  };
}

// Says how the call goes.
function begin(method, call) {
  say(`began ${method}`);
  call.on("cancelled", () => say(`cancelled ${method}`));
}

function trailers() {
  const metadata = new grpc.Metadata();
  metadata.set("x-served-by", name);
  return metadata;
}

const failure = (request) => ({ code: request.status, details: request.message ?? "", metadata: trailers() });

function endStream(method, call, request) {
  if (call.cancelled) return;
  say(`ended ${method}`);
  if (request.status) call.emit("error", failure(request));
  else call.end(trailers());
}

async function unary(call, done) {
  begin("Unary", call);
  const request = call.request;
  if (request.sleep) await pause(request.sleep);
  if (call.cancelled) return;
  say("ended Unary");
  if (request.status) done(failure(request));
  else done(null, answer(call, request), trailers());
}

async function serverStream(call) {
  begin("ServerStream", call);
  const request = call.request;
  for (let at = 0; at < (request.count ?? 3) && !request.early && !call.cancelled; at++) {
    call.write(answer(call, request, at));
    if (request.sleep) await pause(request.sleep);
  }
  endStream("ServerStream", call, request);
}

function clientStream(call, done) {
  begin("ClientStream", call);
  const texts = [];
  let last = {};
  call.on("data", (request) => {
    last = request;
    texts.push(request.text ?? "");
  });
  call.on("end", () => {
    if (call.cancelled) return;
    say("ended ClientStream");
    if (last.status) done(failure(last));
    else done(null, answer(call, { ...last, text: texts.join(" ") }, texts.length), trailers());
  });
}

function bidi(call) {
  begin("Bidi", call);
  let [last, at] = [{}, 0];
  call.on("data", (request) => {
    last = request;
    call.write(answer(call, request, at++));
  });
  call.on("end", () => endStream("Bidi", call, last));
}

const encoded = (message) => Buffer.from(JSON.stringify(message));
const decoded = (bytes) => JSON.parse(bytes);
const method = (name, requestStream, responseStream) => ({
  path: `/test.Echo/${name}`,
  requestStream,
  responseStream,
  requestSerialize: encoded,
  requestDeserialize: decoded,
  responseSerialize: encoded,
  responseDeserialize: decoded,
});

const server = new grpc.Server();
server.addService(
  {
    Unary: method("Unary", false, false),
    ServerStream: method("ServerStream", false, true),
    ClientStream: method("ClientStream", true, false),
    Bidi: method("Bidi", true, true),
  },
  { Unary: unary, ServerStream: serverStream, ClientStream: clientStream, Bidi: bidi },
);
const file = (flag) => fs.readFileSync(args[args.indexOf(flag) + 1]);
const credentials = args.includes("--cert")
  ? grpc.ServerCredentials.createSsl(null, [{ cert_chain: file("--cert"), private_key: file("--key") }])
  : grpc.ServerCredentials.createInsecure();
server.bindAsync("127.0.0.1:0", credentials, (error, port) => {
  if (error) throw error;
  say(`listening address=127.0.0.1:${port}`);
  say("ready");
});
process.on("SIGTERM", () => server.tryShutdown(() => process.exit(0)));
