// A real WebSocket client (ws from npm) for tests: the arguments, talk and lines of python/ws_client.py.
"use strict";

const fs = require("fs");
const WebSocket = require("ws");

const SIZES = [0, 1, 125, 126, 65535, 65536, 1 << 20];
const LIMIT = 30000;

function check(found, expected, what) {
  const same = Buffer.isBuffer(expected) ? expected.equals(found) : found === expected;
  if (same) return;
  process.stderr.write(`${what}: ${String(found).slice(0, 200)} instead of ${String(expected).slice(0, 200)}\n`);
  process.exit(1);
}

// What comes next of one kind; too late is wrong.
function next(socket, event) {
  return new Promise((done) => {
    const late = setTimeout(() => check("nothing", event, "waited for"), LIMIT);
    socket.once(event, (...what) => {
      clearTimeout(late);
      done(what);
    });
  });
}

async function asked(socket, message) {
  const answer = next(socket, "message");
  socket.send(message);
  const [data, isBinary] = await answer;
  return isBinary ? data : data.toString();
}

async function talk(url, options) {
  const socket = new WebSocket(url, ["chat.v1"], { ...options, perMessageDeflate: true });
  socket.on("error", (error) => check(String(error), "no error", "the connection"));
  await next(socket, "open");
  check(socket.protocol, "chat.v1", "the protocol");
  process.stdout.write(`served ${await asked(socket, "who")}\n`);
  for (const size of SIZES) {
    const text = "\u00fc".repeat(size);
    check(await asked(socket, text), text, `a text of ${size}`);
    const data = Buffer.from(Array.from({ length: size }, (_, at) => (at * 7) % 256));
    check(await asked(socket, data), data, `bytes of ${size}`);
  }
  const answer = next(socket, "message");
  for (const [at, piece] of ["in ", "three ", "pieces"].entries()) socket.send(piece, { fin: at === 2 });
  check((await answer)[0].toString(), "in three pieces", "fragments");
  const pong = next(socket, "pong");
  socket.ping("are you there");
  check((await pong)[0].toString(), "are you there", "a pong");
  const closed = next(socket, "close");
  socket.close(4000, "done");
  const [code, reason] = await closed;
  check(`${code} ${reason}`, "4000 done", "the close");
}

async function stay(url) {
  const socket = new WebSocket(url, ["chat.v1"]);
  socket.on("error", (error) => check(String(error), "no error", "the connection"));
  const closed = next(socket, "close");
  await next(socket, "open");
  process.stdout.write(`served ${await asked(socket, "who")}\n`);
  socket.on("message", () => process.stdout.write("echo\n"));
  const sending = setInterval(() => socket.readyState === WebSocket.OPEN && socket.send("hello"), 100);
  const [code, reason] = await closed;
  clearInterval(sending);
  process.stdout.write(code === 1006 ? "cut\n" : `told ${code} ${reason}\n`);
}

async function main() {
  const [url, ...args] = process.argv.slice(2);
  const flag = (name) => (args.includes(name) ? args[args.indexOf(name) + 1] : undefined);
  if (args.includes("--until-told")) return stay(url);
  const options = flag("--ca") ? { ca: fs.readFileSync(flag("--ca")), servername: "localhost", checkServerIdentity: () => undefined } : {};
  for (let at = 0; at < Number(flag("--connections") ?? 1); at++) await talk(url, options);
  process.stdout.write("done\n");
}

main();
