// A real WebSocket server (ws from npm) for tests: the words and lines of python/ws_server.py.
"use strict";

const { WebSocketServer } = require("ws");

const name = process.argv[2];
const say = (line) => process.stdout.write(line + "\n");

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: 0,
  perMessageDeflate: true,
  handleProtocols: (offered) => ["chat.v2", "chat.v1"].find((it) => offered.has(it)) ?? false,
});
server.on("connection", (socket, request) => {
  say(`opened ${request.url}`);
  socket.on("message", (data, isBinary) => {
    const text = isBinary ? "" : data.toString();
    if (text === "who") {
      socket.send(name);
    } else if (text.startsWith("close ")) {
      const [, code, reason] = text.match(/^close (\d+) (.*)$/);
      socket.close(Number(code), reason);
    } else {
      socket.send(data, { binary: isBinary });
    }
  });
  socket.on("close", (code, reason) => say(`closed ${code} ${reason}`));
});
// It goes away in order: each client is told.
process.on("SIGHUP", () => server.clients.forEach((socket) => socket.close(1001, "leaving")));
server.on("listening", () => {
  say(`listening address=127.0.0.1:${server.address().port}`);
  say("ready");
});
